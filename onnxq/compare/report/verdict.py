"""What came out, in sentences that are made from the numbers."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Final

from onnxq.algorithms.scheme_choice import AS_FAST, LOW_SQNR
from onnxq.compare.report.cells import shortened
from onnxq.runtime.timing import Ratio
from onnxq.wording import bytes_text, ms_text, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnxq.compare.compare import ComparedRun, Comparison
    from onnxq.compare.report.evidence import Evidence
    from onnxq.verify.fidelity import Fidelity

_EQUAL: Final = 0.02
_CLEAR: Final = 1.2
_FAR: Final = 100.0
"""From so many decibels on a further output is not named beside the first."""
_IN_INTEGERS: Final = frozenset({"int8", "int8-dynamic", ""})


def headline(found: Evidence) -> str:
    """One sentence: the fastest run beside the first, or what there is of a run alone."""
    runs = found.comparison.runs
    if len(runs) == 1:
        return _alone(found.comparison, runs[0])
    return sentence(found, best_run(found))


def best_run(found: Evidence) -> int:
    """The fastest run beside the first, counted from 0; without times the closest.

    One with NaN or Inf is it only where all have them.
    """
    runs = found.comparison.runs
    others = range(1, len(runs))
    return max(others, key=lambda at: _merit(found.comparison, runs[at]), default=0)


def sentence(found: Evidence, at: int) -> str:
    """What one run is, beside the first model.

    Args:
        found: The evidence.
        at: Which run, counted from 0.
    """
    run = found.comparison.runs[at]
    first = found.comparison.runs[0]
    parts = [f"{run_name(found.comparison, run)} is {' and '.join(_better(first, run))}"]
    parts.append(_closeness(run))
    parts.append(_fallen_back(run))
    return "; ".join(part for part in parts if part) + "."


def warnings(found: Evidence) -> tuple[str, ...]:
    """What is wrong, or must be told with the numbers; worst first, runs counted from 1."""
    return (*_wrong(found), *(printable(text) for text in found.comparison.warnings))


def run_name(comparison: Comparison, run: ComparedRun) -> str:
    """``model.int8.onnx on cpu``; with its folder where another model is called the same."""
    paths = {other.model for other in comparison.runs}
    alike = sum(path.name == run.model.name for path in paths) > 1
    name = str(run.model) if alike else run.model.name
    return f"{shortened(printable(name))} on {run.provider}"


def speed(comparison: Comparison, run: ComparedRun) -> float | None:
    """How many times as fast as the first model on this provider, or as the first run."""
    first = comparison.runs[0]
    if run.ratio is not None:
        return run.ratio.median
    if run is first or run.latency is None or first.latency is None:
        return None
    return first.latency.median_ms / run.latency.median_ms


def size_ratio(comparison: Comparison, run: ComparedRun) -> float:
    """How many times smaller than the first model."""
    return comparison.runs[0].file_bytes / run.file_bytes


def _alone(comparison: Comparison, run: ComparedRun) -> str:
    time = "" if run.latency is None else f"takes {ms_text(run.latency.median_ms)} a run and "
    size = bytes_text(run.file_bytes)
    return f"{run_name(comparison, run)} {time}has {size}; nothing stands beside it."


def _merit(comparison: Comparison, run: ComparedRun) -> tuple[bool, float, float]:
    fidelity = run.fidelity
    sound = fidelity is None or not fidelity.not_finite
    closeness = fidelity.sqnr_db if fidelity is not None and fidelity.sqnr_db is not None else 0.0
    return sound, speed(comparison, run) or 0.0, -math.inf if math.isnan(closeness) else closeness


def _better(first: ComparedRun, run: ComparedRun) -> Iterator[str]:
    if run.ratio is not None:
        yield _speed(run.ratio)
    elif run.latency is not None and first.latency is not None:
        ratio = first.latency.median_ms / run.latency.median_ms
        yield f"{_speed(Ratio(ratio, ratio, ratio))} as on {first.provider}"
    size = first.file_bytes / run.file_bytes
    if size > 1 + _EQUAL:
        yield f"{_times(size)} smaller"
    elif size < 1 - _EQUAL:
        yield f"{_times(1 / size)} larger"
    else:
        yield "as large"


def _speed(ratio: Ratio) -> str:
    median = ratio.median
    if abs(median - 1) < _EQUAL:
        return "as fast"
    if not ratio.clear:
        return f"about as fast ({median:.2f} times, {_rounds(ratio)})"
    if median < AS_FAST:
        return f"slower, {median:.2f} times as fast"
    return f"{_times(median)} as fast"


def _rounds(ratio: Ratio) -> str:
    return f"{ratio.low:.2f} to {ratio.high:.2f} in single rounds, which do not agree"


def _times(ratio: float) -> str:
    """``1.9 times``; two decimals where it is near 1."""
    return f"{ratio:.1f} times" if ratio >= _CLEAR else f"{ratio:.2f} times"


def _closeness(run: ComparedRun) -> str:
    fidelity = run.fidelity
    if fidelity is None:
        return ""
    if fidelity.not_finite:
        return "its outputs hold NaN or Inf"
    if fidelity.sqnr_db is not None and not math.isnan(fidelity.sqnr_db):
        return _agree(fidelity, fidelity.sqnr_db)
    if fidelity.equal_share is not None:
        return f"{100 * fidelity.equal_share:.1f} % of the output's elements are equal"
    return "outputs were not compared"


def _agree(fidelity: Fidelity, sqnr_db: float) -> str:
    if fidelity.all_equal:
        return "outputs are equal"
    farthest = fidelity.farthest
    if sqnr_db < math.inf:
        text = f"outputs agree to {sqnr_db:.1f} dB"
    else:
        text = f"what was compared of {shortened(printable(fidelity.output))} is equal"
    if farthest is None or farthest[1] >= min(sqnr_db, _FAR):
        return text
    return f"{text}, {shortened(printable(farthest[0]))} to {farthest[1]:.1f} dB"


def _fallen_back(run: ComparedRun) -> str:
    nodes = run.placement.unmeant
    if not nodes:
        return "nothing fell back"
    ops = ", ".join(op for op, _ in Counter(node.op for node in nodes).most_common(3))
    counted = "1 node does" if len(nodes) == 1 else f"{len(nodes)} nodes do"
    return f"{counted} not run on {run.provider} ({ops})"


def _wrong(found: Evidence) -> Iterator[str]:
    for number, run in enumerate(found.comparison.runs, start=1):
        fidelity = run.fidelity
        if fidelity is not None and fidelity.sqnr_db is not None and fidelity.sqnr_db < LOW_SQNR:
            yield f"run {number}: outputs agree to {fidelity.sqnr_db:.1f} dB only"
        if run.ratio is not None and run.ratio.median < AS_FAST:
            clear = run.ratio.clear
            yield (
                f"run {number} is {'' if clear else 'perhaps '}slower than the first model on "
                f"{run.provider}: {run.ratio.median:.2f} times its speed"
                + ("" if clear else f", {_rounds(run.ratio)}")
            )
    for model in found.models:
        kernels = found.comparison.runs[model.run].kernels
        wanted = model.skipped is not None and model.skipped.scheme in _IN_INTEGERS
        if wanted and kernels is not None and not (kernels.integer or kernels.nbits):
            yield f"run {model.run + 1} is quantized, and no node of it runs in an integer kernel"
