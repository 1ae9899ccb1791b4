"""How many rows a second models compute, by batch size and number of threads."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from onnxq.compare.alike import distinct_providers
from onnxq.compare.engines import digests
from onnxq.data import open_data
from onnxq.data.batches import batch_of
from onnxq.errors import DataError, UsageError
from onnxq.graph.io import load
from onnxq.graph.structure import signature
from onnxq.runtime.engine_cache import of_models
from onnxq.runtime.provider_options import default_options
from onnxq.runtime.timing import Contender, TimingSettings, measure
from onnxq.stages.shape_profile import shape_profile
from onnxq.stages.with_past import with_past

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from onnxq.data import DataLike, DataSource, Signature
    from onnxq.verify.verification import Report

TIMING: Final = TimingSettings(rounds=3, runs=20, warmup=5, seconds=0.2)


@dataclass(frozen=True, slots=True)
class Loads:
    """The batch sizes, and the numbers of threads at each of them."""

    batches: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = (2,)


@dataclass(frozen=True, slots=True)
class Throughput:
    """One model on one provider, at one batch size and number of threads.

    Attributes:
        model: The model's file.
        provider: The provider, as given.
        batch: Rows of a run.
        threads: Threads within an operator.
        median_ms: Median of a run.
        per_second: Rows a second, of the median of the rounds' medians.
        low: The same of the slowest round.
        high: Of the fastest.
    """

    model: Path
    provider: str
    batch: int
    threads: int
    median_ms: float
    per_second: float
    low: float
    high: float


def throughput(
    models: Sequence[str | Path],
    data: DataLike,
    *,
    providers: Sequence[str] = ("cpu",),
    loads: Loads = Loads(),
    timing: TimingSettings = TIMING,
    report: Report = lambda step, done, total: None,
) -> tuple[Throughput, ...]:
    """Time models at each batch size with each number of threads.

    Models and providers alternate, each alone in its process.

    Args:
        models: Files of models with the same inputs.
        data: Samples, which are put together along the batch axis and repeated where too few.
        providers: Short or full names of execution providers.
        loads: Rows of a run, and threads within an operator.
        timing: How to time; the threads are those of ``loads``.
        report: Told of progress.

    Returns:
        Runs in the order of :func:`onnxq.compare` within threads within batches.

    Raises:
        UsageError: A batch or a number of threads is below 1.
        DataError: A model has a fixed batch axis of another length, or a sample does not fit.
        ModelError: A model does not load or run.
        ProviderError: A provider is not there.
    """
    if min([*loads.batches, *loads.threads], default=0) < 1:
        code, text = "compare.throughput", "batches and threads are numbers from 1 on"
        raise UsageError(code, text, remedy="as in --batches 1,8,32 --threads 1,2")
    pairs = [(Path(m), p) for p in distinct_providers(providers) for m in models]
    loaded = {path: load(path) for path, _ in pairs}
    signatures = {path: signature(model) for path, model in loaded.items()}
    first = pairs[0][0]
    source = with_past(open_data(data, signatures[first]), first, "cpu")
    feeds = {rows: _feed(rows, source, signatures) for rows in loads.batches}
    kept = digests(loaded)
    # One engine for all batches, as it would be deployed.
    profile = shape_profile(list(loaded.values()), feeds.values(), providers)
    settings = [(rows, count) for rows in feeds for count in dict.fromkeys(loads.threads)]
    per_setting = timing.rounds * len(pairs)
    found: list[Throughput] = []
    for index, (rows, count) in enumerate(settings):
        with default_options(profile.provider_options), of_models(kept):
            taken = measure(
                [Contender(str(place), *pair) for place, pair in enumerate(pairs)],
                [feeds[rows]],
                replace(timing, threads=count),
                _shifted(report, index * per_setting, len(settings) * per_setting),
            )
        for place, (path, provider) in enumerate(pairs):
            result = taken.results[str(place)]
            rates = [rows / ms * 1000 for ms in result.per_round_median_ms]
            spread = (statistics.median(rates), min(rates), max(rates))
            found.append(Throughput(path, provider, rows, count, result.median_ms, *spread))
    return tuple(found)


def _feed(
    rows: int, source: DataSource, signatures: Mapping[Path, Signature]
) -> dict[str, NDArray[Any]]:
    """A batch that every model takes; that of the first."""
    found = {}
    for path, inputs in signatures.items():
        try:
            found[path] = batch_of(source, inputs, rows)
        except DataError as error:
            code, text = error.code, error.message
            raise DataError(code, text, where=str(path), remedy=error.remedy) from error
    return next(iter(found.values()))


def _shifted(report: Report, before: int, total: int) -> Callable[[int, int], None]:
    """Progress of one setting as part of that of all."""
    return lambda done, _: report("throughput", before + done, total)
