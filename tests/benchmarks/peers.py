"""onnxq beside onnxruntime.quantization: accuracy, size, speed, and what quantizing cost.

Run from the repository root::

    python -m tests.benchmarks.peers [NAME...] [--samples N] [--rounds N] [--runs N] [--json FILE]

NAME is a model of ``models/`` (default: minilm efficientnet_lite0). onnxq and every setting of the
peer quantize the same float model, each in a process of its own, on the same calibration samples
(all of them; the first N with ``--samples``). The same function then compares each result with the
float model on the same evaluation samples, and all models are timed in one run, each alone in its
process, in alternation (``onnxq.runtime.timing``).

Columns: SQNR pooled over the first output; top-1 agreement with the float model; how many times
smaller the file is; how many times faster the model is than float, and onnxq's model than this one
(median of the rounds, least to greatest); Conv, Gemm and MatMul in integer kernels, read from the
optimized graph; seconds and peak memory of the quantization itself. onnxq's seconds are from a cold
statistics cache and include its own check of the result on the evaluation samples; its compiled
kernels are warm.

The peer's settings are the best we know, its own defaults among them: see ``peer_settings``. All
use uint8 activations and int8 weights per channel, as its documentation advises for the CPU.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from onnxq.errors import OnnxqError
from onnxq.graph.io import file_bytes
from onnxq.runtime.kernels import executed
from onnxq.runtime.timing import Contender, Ratio, TimingSettings, measure
from tests.benchmarks.common import (
    THREADS,
    FailedError,
    Workload,
    built,
    fidelity,
    in_own_process,
    megabytes,
    number,
    parser,
    show,
    times,
    write_json,
)
from tests.benchmarks.peer_settings import variants_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.benchmarks.peer_tasks import Variant

ONNXQ: Final = "onnxq"
FLOAT: Final = "float"

COLUMNS: Final = (
    "model",
    "SQNR dB",
    "top-1",
    "x smaller",
    "x faster than float",
    "onnxq x faster",
    "int kernels",
    "seconds",
    "peak MB",
)

_TIMED_SAMPLES: Final = 16

_WEIGHTED: Final = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "QGemm",
        "QLinearConv",
        "MatMulNBits",
        "QLinearMatMul",
    }
)


@dataclass(frozen=True, slots=True)
class Result:
    """What one quantizer made of a model.

    Attributes:
        name: The quantizer and its setting.
        failed: Why there is no model; the rest is None then.
        seconds: What quantizing took.
        peak_rss_bytes: The most memory its process held.
        sqnr_db: SQNR on the evaluation samples, decibels.
        top1_agreement: Share of rows with float's argmax; None where there are no scores.
        smaller: Float file's size over this one's.
        faster: Times float's speed.
        onnxq_faster: Times this one's speed that onnxq's model reaches.
        median_ms: Median latency.
        integer_kernels: Conv, Gemm and MatMul that run in integer kernels or on weights in blocks.
    """

    name: str
    failed: str = ""
    seconds: float | None = None
    peak_rss_bytes: int | None = None
    sqnr_db: float | None = None
    top1_agreement: float | None = None
    smaller: float | None = None
    faster: Ratio | None = None
    onnxq_faster: Ratio | None = None
    median_ms: float | None = None
    integer_kernels: int | None = None


def compare(
    work: Workload, variants: Sequence[Variant], timing: TimingSettings, folder: Path
) -> tuple[Result, ...]:
    """Quantize, compare and time.

    Args:
        work: The float model and its samples.
        variants: Settings of the peer.
        timing: How the models are timed.
        folder: A private folder for the quantized models.

    Returns:
        The float model, onnxq, then the variants in their order; what failed is among them.
    """
    paths = {ONNXQ: folder / "onnxq.onnx"}
    results = [_with_onnxq(work, paths[ONNXQ], folder / "cold")]
    for index, variant in enumerate(variants):
        paths[variant.name] = folder / f"peer_{index}.onnx"
        results.append(with_peer(work, variant, paths[variant.name]))
    results = [measured(work, paths[result.name], result) for result in results]
    return timed(work, paths, results, timing)


def warm_up(work: Workload, folder: Path) -> None:
    """Let onnxq compile what it compiles once on a machine."""
    _with_onnxq(work, folder / "warm.onnx", folder / "warm")


def _with_onnxq(work: Workload, output: Path, cache: Path) -> Result:
    arguments = {
        "model": work.model,
        "output": output,
        "data": work.calibration,
        "evaluation": work.evaluation,
        "method": "auto",
    }
    return quantized(ONNXQ, "onnxq_tasks:quantize", arguments, cache)


def with_peer(work: Workload, variant: Variant, output: Path) -> Result:
    """Quantize with one setting of the peer."""
    arguments = {
        "model": work.model,
        "output": output,
        "data": work.calibration,
        "variant": asdict(variant),
    }
    return quantized(variant.name, "peer_tasks:quantize", arguments, None)


def quantized(name: str, task: str, arguments: dict[str, Any], cache: Path | None) -> Result:
    """Quantize in a process of its own; what fails is a result too."""
    try:
        found = in_own_process(task, arguments, cache)
    except FailedError as error:
        return Result(name, failed=str(error))
    return Result(name, seconds=found["seconds"], peak_rss_bytes=found["peak_rss_bytes"])


def measured(work: Workload, path: Path, result: Result) -> Result:
    """Add accuracy, size and kernels; a model that does not load or run has failed."""
    if result.failed:
        return result
    try:
        found = fidelity(work, path)
    except OnnxqError as error:
        return replace(result, failed=error.message)
    return replace(
        result,
        sqnr_db=found.sqnr_db,
        top1_agreement=found.top1_agreement,
        smaller=file_bytes(work.model) / file_bytes(path),
        integer_kernels=sum(node.op in _WEIGHTED for node in executed(path)),
    )


def timed(
    work: Workload, paths: dict[str, Path], results: Sequence[Result], settings: TimingSettings
) -> tuple[Result, ...]:
    """The float model and all results, with their speed in one run."""
    contenders = [Contender(FLOAT, work.model)]
    contenders += [Contender(r.name, paths[r.name]) for r in results if not r.failed]
    feeds = [sample.feeds for sample in islice(work.evaluation_data(), _TIMED_SAMPLES)]
    timing = measure(contenders, feeds, settings)
    one = Result(FLOAT, smaller=1.0)
    return tuple(
        result
        if result.failed
        else replace(
            result,
            median_ms=timing.results[result.name].median_ms,
            faster=timing.ratio(FLOAT, result.name),
            onnxq_faster=timing.ratio(result.name, ONNXQ) if ONNXQ in timing.results else None,
        )
        for result in (one, *results)
    )


def _row(result: Result) -> tuple[str, ...]:
    return (
        result.name,
        number(result.sqnr_db),
        number(result.top1_agreement, 4),
        number(result.smaller),
        times(result.faster),
        times(result.onnxq_faster),
        number(result.integer_kernels, 0),
        number(result.seconds, 1),
        megabytes(result.peak_rss_bytes),
    )


def report(work: Workload, results: Sequence[Result]) -> None:
    """Print the table, and below it what failed."""
    counts = [len(list(part.glob("*.npz"))) for part in (work.calibration, work.evaluation)]
    floating = next(result for result in results if result.name == FLOAT)
    title = (
        f"{work.name}: {counts[0]} calibration samples, {counts[1]} evaluation samples; "
        f"float {number(floating.median_ms)} ms"
    )
    rows = [_row(result) for result in results if not result.failed]
    failures = [f"{result.name} failed: {result.failed}" for result in results if result.failed]
    show(title, COLUMNS, rows, failures)


def main() -> int:
    """Read the command line, measure and print; the status is 1 if onnxq failed."""
    made = parser(__doc__)
    made.add_argument("names", nargs="*", metavar="NAME", default=["minilm", "efficientnet_lite0"])
    made.add_argument("--samples", type=int, metavar="N", help="calibration samples; default: all")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--runs", type=int, default=50)
    options = made.parse_args()
    timing = TimingSettings(rounds=options.rounds, runs=options.runs, threads=THREADS)
    found: dict[str, tuple[Result, ...]] = {}
    for name in options.names:
        with tempfile.TemporaryDirectory(prefix="onnxq-peers-") as text:
            folder = Path(text)
            work = built(name, options.samples, folder)
            warm_up(replace(work, calibration=built(name, 2, folder / "few").calibration), folder)
            found[name] = compare(work, variants_for(work.model), timing, folder)
        report(work, found[name])
    write_json(options.json, "peers", {"timing": timing, "models": found})
    return int(any(r.failed for results in found.values() for r in results if r.name == ONNXQ))


if __name__ == "__main__":
    sys.exit(main())
