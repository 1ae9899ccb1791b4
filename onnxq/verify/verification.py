"""Everything that is measured of a quantized model before it is handed over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from onnxq.graph.io import file_bytes
from onnxq.runtime.session import SessionSettings, open_session
from onnxq.runtime.timing import Contender, TimingSettings, measure
from onnxq.verify.fidelity import Fidelity, compare_outputs, not_compared
from onnxq.verify.kernels import KernelReport, report_kernels
from onnxq.verify.structure import check_structure, level_for

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxq.data import DataSource, Labels
    from onnxq.plan import Plan
    from onnxq.runtime.session import Session
    from onnxq.runtime.timing import LatencyResult, Ratio


Report = Callable[[str, int, int], None]
"""Called with the name of a step, how much of it is done, and all of it."""

TIMED_SAMPLES = 16
"""Different samples that the timed runs cycle through."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Float and quantized model timed against each other."""

    floating: LatencyResult
    quantized: LatencyResult
    ratio: Ratio


@dataclass(frozen=True, slots=True)
class Verification:
    """What was measured of a quantized model.

    Attributes:
        fidelity: How close its outputs are.
        kernels: What runs in integers.
        latency: How fast it is; None where timing was not asked for.
        float_bytes: Size of the float model on disk.
        quantized_bytes: Size of the quantized model on disk.
        made_up: Whether all this was measured on made-up inputs.
        timed_past: How many tokens are the past of the one that was timed; 0 where whole samples
            were.
    """

    fidelity: Fidelity
    kernels: KernelReport
    latency: Latency | None
    float_bytes: int
    quantized_bytes: int
    made_up: bool = False
    timed_past: int = 0

    @property
    def size_ratio(self) -> float:
        """How many times smaller the quantized model is."""
        return self.float_bytes / self.quantized_bytes


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a quantized model is judged on.

    Attributes:
        data: Samples to compare on; None where there is nothing the model can be run on.
        independent: Whether calibration saw none of them.
        made_up: Whether they are made up: what they show of accuracy proves nothing.
        why_none: Why there are none.
        labels: The right classes, if there are any.
        macs: Multiply-accumulates of each site, by name.
        provider: Where both models run.
        timing: How to time; None to leave timing out.
        timed: What is fed while they are timed, in place of ``data``; empty for ``data`` itself.
        timed_past: How many tokens are the past of what is fed then.
    """

    data: DataSource | None
    independent: bool
    made_up: bool
    why_none: str
    labels: Labels | None
    macs: Mapping[str, int]
    provider: str
    timing: TimingSettings | None
    timed: tuple[Mapping[str, NDArray[Any]], ...] = ()
    timed_past: int = 0


def verify(
    reference: Path, result: Path, plan: Plan, evidence: Evidence, report: Report
) -> Verification:
    """Measure a written quantized model against the float model it came from.

    Args:
        reference: The float model.
        result: The quantized model.
        plan: What it was made from.
        evidence: What it is judged on.
        report: Called with the name of the step, how much of it is done, and all of it.

    Raises:
        InternalError: The result is invalid or does not load.
    """
    level = level_for(plan.target, evidence.provider)
    opened = check_structure(result, reference, evidence.provider, level)
    fidelity = _compare(reference, opened, evidence, report)
    del opened  # its memory, before the result is loaded again elsewhere
    return Verification(
        fidelity=fidelity,
        kernels=report_kernels(result, plan, evidence.macs, evidence.provider),
        latency=_time(reference, result, evidence, report),
        float_bytes=file_bytes(reference),
        quantized_bytes=file_bytes(result),
        made_up=evidence.made_up,
        timed_past=evidence.timed_past,
    )


def _compare(reference: Path, result: Session, evidence: Evidence, report: Report) -> Fidelity:
    if evidence.data is None:
        return not_compared(evidence.why_none)
    settings = SessionSettings(provider=evidence.provider, spinning=False)
    return compare_outputs(
        open_session(reference, settings),
        result,
        evidence.data,
        independent=evidence.independent,
        labels=evidence.labels,
        progress=lambda done, total: report("compare", done, total),
    )


def _time(reference: Path, result: Path, evidence: Evidence, report: Report) -> Latency | None:
    if evidence.timing is None or evidence.data is None:
        return None
    feeds: list[Mapping[str, NDArray[Any]]] = list(evidence.timed)
    feeds = feeds or [sample.feeds for sample in islice(evidence.data, TIMED_SAMPLES)]
    contenders = [
        Contender("float", reference, evidence.provider),
        Contender("quantized", result, evidence.provider),
    ]
    timing = measure(
        contenders, feeds, evidence.timing, lambda done, total: report("time", done, total)
    )
    results = timing.results
    return Latency(results["float"], results["quantized"], timing.ratio("float", "quantized"))
