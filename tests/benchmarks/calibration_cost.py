"""What calibrating costs: time against the float model's own, memory for more and more samples.

Run from the repository root::

    python -m tests.benchmarks.calibration_cost [NAME] [--samples N] [--repetitions N]
        [--peer-repetitions N] [--json FILE]

NAME is a model of ``models/`` (default: efficientnet_lite0). Each measurement has a process of its
own and starts from a cold statistics cache; one run of each method goes before, so that the
kernels that numba compiles once on a machine are compiled. Repetitions of all are interleaved.

- *float*: plain onnxruntime with its defaults and two threads; the samples are read before, only
  the runs are counted, and the median of three passes is taken.
- *onnxq METHOD*: the whole call of ``calibrate``: reading and normalizing the model, reading the
  samples, counting every element of every activation, trying the candidates' errors, writing the
  statistics.
- *peer percentile*: onnxruntime.quantization's Percentile calibrator on the same samples, its
  defaults; and once more with 8 samples at a time, which its option for strides allows.

Times float: a repetition's seconds over the float model's in the same repetition, median (least to
greatest). Peer / this: the peer's median seconds over those of each repetition; the peer is run
once unless more is asked for. The second table has each method's peak memory for 64 and 512
samples, one run each; the whole process is counted, with Python and its libraries.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from models.build import CACHE
from tests.benchmarks.common import (
    THREADS,
    FailedError,
    Workload,
    built,
    first_samples,
    in_own_process,
    megabytes,
    number,
    parser,
    show,
    spread,
    times,
    write_json,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxq.recipe import CalibrationMethod
    from onnxq.runtime.timing import Ratio

METHODS: Final[tuple[CalibrationMethod, ...]] = ("percentile", "entropy", "mse")
MEMORY_SAMPLES: Final = (64, 512)
PEER_AT_A_TIME: Final = (0, 8)


@dataclass(slots=True)
class Cost:
    """What one calibrator took, a value a repetition.

    Attributes:
        name: The calibrator.
        seconds: Of the whole call.
        times_float: The same over the float model's seconds in that repetition.
        peak_rss_bytes: The most memory its process held.
        failed: Why there are no values.
    """

    name: str
    seconds: list[float] = field(default_factory=list)
    times_float: list[float] = field(default_factory=list)
    peak_rss_bytes: list[int] = field(default_factory=list)
    failed: str = ""


@dataclass(frozen=True, slots=True)
class Repetitions:
    """How often the float model and onnxq, and how often the peer, are measured."""

    ours: int = 3
    peer: int = 1


class Bench:
    """Measures calibrators of one workload, interleaved."""

    def __init__(self, work: Workload, folder: Path) -> None:
        """Keep cold caches in ``folder``, a private one."""
        self.work = work
        self.folder = folder
        self._caches = 0
        self.float_cost = Cost("float")
        self.costs: dict[str, Cost] = {}

    def calibrate(self, method: CalibrationMethod, data: Path) -> dict[str, Any]:
        """Calibrate once with onnxq on all samples of ``data``, from a cold cache."""
        self._caches += 1
        arguments = {"model": self.work.model, "data": data, "method": method}
        cache = self.folder / f"cache_{self._caches}"
        found = in_own_process("onnxq_tasks:calibrate", arguments, cache)
        if found["reused"]:
            msg = "statistics were reused: the cache was not cold"
            raise FailedError(msg)
        return found

    def repeat(self, methods: Sequence[CalibrationMethod], repetitions: Repetitions) -> None:
        """Measure all, in turn, as often as asked."""
        for repetition in range(max(repetitions.ours, repetitions.peer)):
            arguments = {
                "model": self.work.model,
                "data": self.work.calibration,
                "threads": THREADS,
            }
            one = in_own_process("peer_tasks:run_float", arguments)
            self._add(self.float_cost, one, one["seconds"])
            for method in methods if repetition < repetitions.ours else ():
                found = self.calibrate(method, self.work.calibration)
                self._add(self._cost(f"onnxq {method}"), found, one["seconds"])
            for step in PEER_AT_A_TIME if repetition < repetitions.peer else ():
                self._peer(step, one["seconds"])

    def _peer(self, step: int, float_seconds: float) -> None:
        cost = self._cost(_peer_name(step))
        arguments = {
            "model": self.work.model,
            "data": self.work.calibration,
            "at_a_time": step,
        }
        try:
            found = in_own_process("peer_tasks:calibrate", arguments)
        except FailedError as error:
            cost.failed = str(error)
        else:
            self._add(cost, found, float_seconds)

    def _cost(self, name: str) -> Cost:
        return self.costs.setdefault(name, Cost(name))

    @staticmethod
    def _add(cost: Cost, found: dict[str, Any], float_seconds: float) -> None:
        cost.seconds.append(found["seconds"])
        cost.times_float.append(found["seconds"] / float_seconds)
        cost.peak_rss_bytes.append(found["peak_rss_bytes"])

    def faster_than_peer(self, cost: Cost, step: int) -> Ratio | None:
        """The peer's median seconds, ``step`` samples at a time, over this one's."""
        peer = self.costs.get(_peer_name(step))
        if peer is None or not peer.seconds:
            return None
        median = spread(peer.seconds).median
        return spread([median / value for value in cost.seconds])

    def memory(
        self, methods: Sequence[CalibrationMethod], data: dict[int, Path]
    ) -> dict[CalibrationMethod, dict[int, int]]:
        """Peak memory in bytes of each method for each number of samples."""
        return {
            method: {
                count: self.calibrate(method, path)["peak_rss_bytes"]
                for count, path in data.items()
            }
            for method in methods
        }


def _peer_name(step: int) -> str:
    return f"peer percentile{f', {step} at a time' if step else ''}"


def report(bench: Bench) -> None:
    """Print what each calibrator took."""
    rows = [
        (
            cost.name,
            times(spread(cost.seconds)),
            times(spread(cost.times_float)),
            *(times(bench.faster_than_peer(cost, step), 1) for step in PEER_AT_A_TIME),
            megabytes(max(cost.peak_rss_bytes)),
            str(len(cost.seconds)),
        )
        for cost in (bench.float_cost, *bench.costs.values())
        if cost.seconds
    ]
    failures = [f"{c.name} failed: {c.failed}" for c in bench.costs.values() if c.failed]
    samples = len(list(bench.work.calibration.glob("*.npz")))
    ratios = [f"{_peer_name(step)} / this" for step in PEER_AT_A_TIME]
    columns = ("calibration", "seconds", "times float", *ratios, "peak MB", "repetitions")
    show(f"{bench.work.name}, {samples} samples", columns, rows, failures)


def report_memory(found: dict[CalibrationMethod, dict[int, int]], counts: Sequence[int]) -> None:
    """Print each method's peak memory and how much it grew."""
    rows = []
    for method, peaks in found.items():
        growth = peaks[counts[-1]] / peaks[counts[0]] - 1
        cells = [megabytes(peaks[count]) for count in counts]
        rows.append((f"onnxq {method}", *cells, f"{number(100 * growth, 1)} %"))
    columns = ("calibration", *(f"peak MB, {count} samples" for count in counts), "growth")
    show("memory", columns, rows)


def main() -> int:
    """Read the command line, measure and print."""
    made = parser(__doc__)
    made.add_argument("name", nargs="?", metavar="NAME", default="efficientnet_lite0")
    made.add_argument("--samples", type=int, default=128, metavar="N")
    made.add_argument("--repetitions", type=int, default=3, metavar="N")
    made.add_argument("--peer-repetitions", type=int, default=1, metavar="N")
    options = made.parse_args()
    with tempfile.TemporaryDirectory(prefix="onnxq-cost-") as text:
        folder = Path(text)
        work = built(options.name, options.samples, folder)
        bench = Bench(work, folder)
        few = first_samples(work.calibration, 2, folder / "few")
        for method in METHODS:
            bench.calibrate(method, few)
        bench.repeat(METHODS, Repetitions(options.repetitions, options.peer_repetitions))
        report(bench)
        many = CACHE / options.name / f"calibration_{MEMORY_SAMPLES[-1]}"
        memory: dict[CalibrationMethod, dict[int, int]] = {}
        if many.is_dir():
            data = {n: first_samples(many, n, folder / f"memory_{n}") for n in MEMORY_SAMPLES}
            memory = bench.memory(METHODS, data)
            report_memory(memory, MEMORY_SAMPLES)
    figures = {
        "samples": options.samples,
        "float": bench.float_cost,
        "calibrators": list(bench.costs.values()),
        "memory": memory,
    }
    write_json(options.json, "calibration_cost", figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
