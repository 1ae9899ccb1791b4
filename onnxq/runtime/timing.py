"""Latency of models side by side, each alone in its own fresh process, in alternation.

The spinning threads of another live session falsify a timing up to fivefold, so no two models share
a process. A round starts one process for each contender, in order; the ratio of two contenders is
taken round by round, so that what slows the machine for a while slows both.
"""

from __future__ import annotations

import signal
import statistics
import subprocess
from dataclasses import asdict, dataclass
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq import errors
from onnxq.runtime.tuning import Tuning
from onnxq.runtime.worker import ask, raise_error
from onnxq.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxq.runtime.worker import Asked


@dataclass(frozen=True, slots=True)
class Contender:
    """A model to be timed.

    Attributes:
        name: Its name in the results.
        model: Its path.
        provider: Its execution provider.
        tuning: Its session; None for ONNX Runtime's defaults with the threads of the settings.
    """

    name: str
    model: Path
    provider: str = "cpu"
    tuning: Tuning | None = None


@dataclass(frozen=True, slots=True)
class TimingSettings:
    """How models are timed.

    Attributes:
        rounds: Fresh processes for each contender.
        runs: Timed runs in each process.
        warmup: Runs before them, not counting the first.
        seconds: How long the timed runs of each process take at least: fifty runs of a tiny model
            are over before the processor has settled. The warm-up takes a third of it.
        threads: Threads within an operator; all else is ONNX Runtime's default.
        limit_seconds: The longest that one process may take.
    """

    rounds: int = 3
    runs: int = 50
    warmup: int = 10
    seconds: float = 0.3
    threads: int = 2
    limit_seconds: float = 1800.0


@dataclass(frozen=True, slots=True)
class LatencyResult:
    """What one contender took.

    Attributes:
        median_ms: Median of all timed runs.
        p90_ms: Their 90th percentile.
        p99_ms: Their 99th percentile.
        first_ms: The first run after loading, median of the rounds.
        per_round_median_ms: The median of each round's timed runs.
        load_seconds: Opening the session, median of the rounds.
        peak_rss_bytes: The most memory that a process held, Python and the feeds included.
        quantiles_ms: 101 quantiles of all timed runs, from the least to the greatest.
        device_bytes: The most memory of the GPU that a process held; None where none is measured.
        joules: Energy of a timed run, the idle machine's included: of the GPU where it runs on one
            that tells, else of the processors; None where the machine does not tell.
    """

    median_ms: float
    p90_ms: float
    p99_ms: float
    first_ms: float
    per_round_median_ms: tuple[float, ...]
    load_seconds: float
    peak_rss_bytes: int
    quantiles_ms: tuple[float, ...] = ()
    device_bytes: int | None = None
    joules: float | None = None


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times faster, taken round by round: the median, the least and the greatest."""

    median: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether all rounds agree on which is faster."""
        return self.low > 1 or self.high < 1


@dataclass(frozen=True, slots=True)
class Timing:
    """The results by contender's name, and how they were taken."""

    results: Mapping[str, LatencyResult]
    settings: TimingSettings

    def ratio(self, base: str, other: str) -> Ratio:
        """How many times faster ``other`` is than ``base``.

        Args:
            base: Name of the contender that counts as 1, the float model say.
            other: Name of the one compared with it.
        """
        pairs = zip(
            self.results[base].per_round_median_ms,
            self.results[other].per_round_median_ms,
            strict=True,
        )
        ratios = [slow / fast for slow, fast in pairs]
        return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def measure(
    contenders: Sequence[Contender],
    feeds: Sequence[Mapping[str, NDArray[Any]]],
    settings: TimingSettings = TimingSettings(),
    progress: Callable[[int, int], None] | None = None,
) -> Timing:
    """Time models against each other on the same feeds.

    Args:
        contenders: The models; their names differ.
        feeds: Inputs that the runs cycle through, in this order for every contender.
        settings: Rounds, runs and threads.
        progress: Called after each process with how many are done and how many there are.

    Raises:
        UsageError: No contender, two of one name, no feeds, or fewer than one round or run.
        ModelError: A model does not load or run, or its process died or took too long.
        ProviderError: A provider is not there.
    """
    _check(contenders, feeds, settings)
    answers: dict[str, list[dict[str, Any]]] = {contender.name: [] for contender in contenders}
    total = settings.rounds * len(contenders)
    with Scratch() as folder:
        paths = _write_feeds(feeds, settings, folder)
        for done in range(total):
            contender = contenders[done % len(contenders)]
            spec = {
                "model": str(contender.model.resolve()),
                "provider": contender.provider,
                "tuning": asdict(contender.tuning or Tuning(settings.threads)),
                "runs": settings.runs,
                "warmup": settings.warmup,
                "seconds": settings.seconds,
                "feeds": paths,
            }
            answers[contender.name].append(_run_worker(spec, folder, settings.limit_seconds))
            if progress is not None:
                progress(done + 1, total)
    results = {name: _summarize(rounds) for name, rounds in answers.items()}
    return Timing(MappingProxyType(results), settings)


def _check(
    contenders: Sequence[Contender],
    feeds: Sequence[Mapping[str, NDArray[Any]]],
    settings: TimingSettings,
) -> None:
    names = [contender.name for contender in contenders]
    problems = {
        "there is no model to time": not names,
        "two models to time have the same name": len(set(names)) < len(names),
        "there is no sample to time on": not feeds,
        "timing takes at least one round, one run and one thread": min(
            settings.rounds, settings.runs, settings.threads
        )
        < 1,
    }
    for msg, holds in problems.items():
        if holds:
            code = "runtime.timing_usage"
            raise errors.UsageError(code, msg)


def _write_feeds(
    feeds: Sequence[Mapping[str, NDArray[Any]]], settings: TimingSettings, folder: Path
) -> list[dict[str, Any]]:
    """Write each feed that a run can reach; return each file's path and its arrays' names."""
    written = []
    for index, feed in enumerate(islice(feeds, max(settings.runs, settings.warmup + 1))):
        path = folder / f"feed_{index:06d}.npz"
        # Strings come as objects; an array of unicode text needs no pickle.
        arrays = [
            array.astype(np.str_) if array.dtype == np.object_ else array for array in feed.values()
        ]
        np.savez(path, *arrays)
        written.append({"path": str(path), "names": list(feed)})
    return written


def _run_worker(spec: dict[str, Any], folder: Path, limit_seconds: float) -> dict[str, Any]:
    """Time one model in a fresh process and return its answer."""
    where = spec["model"]
    try:
        found = ask("onnxq.runtime.timing_worker", spec, folder, limit_seconds)
    except subprocess.TimeoutExpired as error:
        code, msg = "runtime.timing_limit", f"timing took longer than {limit_seconds:g} seconds"
        remedy = "time fewer runs, or a smaller sample"
        raise errors.ModelError(code, msg, where=where, remedy=remedy) from error
    if found.answer is None:
        raise _died(found, where)
    raise_error(found.answer, where)
    return found.answer


def _died(found: Asked, where: str) -> errors.OnnxqError:
    """The error for a worker that ended without an answer."""
    if found.status < 0:
        reason = signal.strsignal(-found.status) or f"signal {-found.status}"
        msg = f"the process that timed the model was ended: {reason}"
        remedy = "it most likely ran out of memory; free some, or time smaller samples"
        return errors.ModelError("runtime.timing_died", msg, where=where, remedy=remedy)
    last = (found.log.strip().splitlines() or ["it said nothing"])[-1]
    msg = f"the process that timed the model failed with status {found.status}: {last}"
    return errors.InternalError("runtime.timing_died", msg, where=where)


def _summarize(rounds: Sequence[Mapping[str, Any]]) -> LatencyResult:
    runs = np.concatenate([entry["runs_ms"] for entry in rounds])
    return LatencyResult(
        median_ms=float(np.median(runs)),
        p90_ms=float(np.percentile(runs, 90)),
        p99_ms=float(np.percentile(runs, 99)),
        first_ms=statistics.median(entry["first_ms"] for entry in rounds),
        per_round_median_ms=tuple(float(np.median(entry["runs_ms"])) for entry in rounds),
        load_seconds=statistics.median(entry["load_seconds"] for entry in rounds),
        peak_rss_bytes=max(entry["peak_rss_bytes"] for entry in rounds),
        quantiles_ms=tuple(float(value) for value in np.percentile(runs, np.arange(101))),
        device_bytes=_known(max, [entry["device_bytes"] for entry in rounds]),
        joules=_known(statistics.median, [entry["joules"] for entry in rounds]),
    )


def _known(
    summary: Callable[[Sequence[float]], float], values: Sequence[float | None]
) -> Any:  # an int stays one
    """A summary of what was measured; None if a round measured nothing."""
    known = [value for value in values if value is not None]
    return summary(known) if len(known) == len(values) else None
