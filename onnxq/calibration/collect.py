"""One streaming pass over the data for everything that was asked for.

What is held at a time: one sample, the probed tensors of that sample, and the statistics. Where the
probed tensors of the largest sample would not fit into the memory budget, they are divided among
several passes over the data. The budget is for the probed tensors and the quantized weights of the
candidates; the running model itself comes on top.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from onnxq.calibration.probe import ProbeGraph
from onnxq.calibration.requests import (
    Channels,
    Distribution,
    Extrema,
    Moments,
    OutputError,
    Request,
)
from onnxq.calibration.session import open_model
from onnxq.calibration.stats import ChannelStats, SiteError, Stats, TensorStats
from onnxq.data.padding import unpadded
from onnxq.errors import DataError
from onnxq.graph.edit import value_by_name
from onnxq.numerics.histogram import FloatHistogram
from onnxq.numerics.moments import SplitMoments

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from onnxq.calibration.requests import Half
    from onnxq.data.sample import Sample
    from onnxq.data.source import DataSource
    from onnxq.numerics.windows import Window
    from onnxq.runtime.session import Session

DEFAULT_BUDGET = 2 << 30
"""Bytes of probed tensors that one pass may hold."""

_HELD_OUT = 5
"""One in so many samples, or tokens, is held out from moments."""
MOST_PATCHES = 512
"""So many patches of each sample tell of a convolution's input: neighbours are nearly alike."""


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of the model: its sample, the how manieth, of how many."""

    sample: Sample
    number: int
    samples: int

    @property
    def half(self) -> Half:
        """In which half of the samples it is; of an odd number the first has one more."""
        return 0 if self.number < (self.samples + 1) // 2 else 1


class _Observer(Protocol):
    """Takes its outputs of one run and adds them to the statistics."""

    @property
    def outputs(self) -> tuple[str, ...]: ...

    def __call__(self, arrays: Sequence[NDArray[np.generic]], run: _Run) -> None: ...


@dataclass(frozen=True, slots=True)
class _DistributionObserver:
    outputs: tuple[str, ...]
    stats: TensorStats

    def __call__(self, arrays: Sequence[NDArray[np.generic]], run: _Run) -> None:
        values = np.asarray(arrays[0])
        if self.stats.histogram is None:
            self.stats.histogram = FloatHistogram()
        seen = self.stats.histogram.add(values)
        _extend(self.stats, values.size, seen.low, seen.high)
        self.stats.masked += seen.masked
        self.stats.nan += seen.nan


@dataclass(frozen=True, slots=True)
class _ExtremaObserver:
    outputs: tuple[str, ...]
    stats: TensorStats

    def __call__(self, arrays: Sequence[NDArray[np.generic]], run: _Run) -> None:
        low, high, ordinary, nan, shape = arrays
        size = int(np.prod(np.asarray(shape, np.int64)))
        _extend(self.stats, size, float(low), float(high))
        self.stats.masked += size - int(ordinary) - int(nan)
        self.stats.nan += int(nan)


@dataclass(frozen=True, slots=True)
class _ChannelObserver:
    outputs: tuple[str, ...]
    stats: TensorStats
    axis: int

    def __call__(self, arrays: Sequence[NDArray[np.generic]], run: _Run) -> None:
        low, high, total, shape = (np.asarray(array) for array in arrays)
        rows = int(np.prod(shape)) // max(low.size, 1)
        found = ChannelStats(low.copy(), high.copy(), total.astype(np.float64), rows)
        self.stats.add_channels(self.axis, run.half, found)


@dataclass(frozen=True, slots=True)
class _MomentObserver:
    outputs: tuple[str, ...]
    stats: TensorStats
    window: Window | None

    def __call__(self, arrays: Sequence[NDArray[np.generic]], run: _Run) -> None:
        rows = self._rows(np.asarray(arrays[0], np.float32), run)
        if self.window not in self.stats.moments:
            self.stats.moments[self.window] = SplitMoments(rows.shape[1])
        moments = self.stats.moments[self.window]
        if run.samples >= _HELD_OUT:
            held_out = run.number % _HELD_OUT == _HELD_OUT - 1
            moments.add(rows, held_out=held_out)
            return
        end = len(rows) - len(rows) // _HELD_OUT
        moments.add(rows[:end], held_out=False)
        moments.add(rows[end:], held_out=True)

    def _rows(self, values: NDArray[np.float32], run: _Run) -> NDArray[np.float32]:
        if self.window is not None:
            return self.window.patches(values, MOST_PATCHES, run.number)
        tokens: NDArray[np.float32] = values[unpadded(run.sample.feeds, values.shape[:-1])]
        return tokens.reshape(-1, values.shape[-1])


@dataclass(frozen=True, slots=True)
class _ErrorObserver:
    outputs: tuple[str, ...]
    error: SiteError
    label: str
    first: bool

    def __call__(self, arrays: Sequence[NDArray[np.generic]], run: _Run) -> None:
        signal, noise = (float(np.asarray(array)) for array in arrays)
        if self.first:
            self.error.signal += signal
        self.error.noise[self.label] = self.error.noise.get(self.label, 0.0) + noise


def collect(
    model: ir.Model,
    requests: Sequence[Request],
    data: DataSource,
    stats: Stats,
    *,
    budget: int = DEFAULT_BUDGET,
    progress: Callable[[int, int], None] | None = None,
) -> Stats:
    """Observe what ``requests`` ask for while ``data`` streams through ``model``.

    Args:
        model: A normalized model of opset 13 or later; it is not changed.
        requests: What to observe. A tensor that ``stats`` knows already is not asked for again.
        data: Checked samples.
        stats: What is already known; it is added to, and returned.
        budget: Bytes of probed tensors to hold at a time, see :data:`DEFAULT_BUDGET`.
        progress: Called with the samples done and the samples in all passes.

    Returns:
        ``stats`` with the findings.

    Raises:
        DataError: There is no sample.
    """
    requests = unknown(requests, stats)
    passes = divide(model, requests, data, budget)
    samples = len(data)
    if samples == 0:
        code, text = "data.empty", "there is no sample to calibrate with"
        raise DataError(code, text, where=data.name, remedy="give at least one sample")
    for number, part in enumerate(passes):

        def report(done: int, *, base: int = number * samples) -> None:
            if progress is not None:
                progress(base + done, len(passes) * samples)

        _run_pass(model, part, data, stats, report)
    stats.samples = max(stats.samples, samples)
    return stats


def unknown(requests: Sequence[Request], stats: Stats) -> list[Request]:
    """Those of ``requests`` that ``stats`` cannot answer, each once.

    A distribution answers for the extrema too, so extrema are dropped where both are asked for.
    """
    distributions = {r.tensor for r in requests if isinstance(r, Distribution)}
    missing: dict[object, Request] = {}
    for request in requests:
        match request:
            case Distribution(tensor):
                known = tensor in stats.tensors and stats.tensors[tensor].histogram is not None
                if not known and tensor in stats.tensors:
                    # Extrema alone were known; the distribution counts the samples anew.
                    seen = stats.tensors[tensor]
                    stats.tensors[tensor] = TensorStats(channels=seen.channels, halves=seen.halves)
                key: object = ("tensor", tensor)
            case Extrema(tensor):
                known = tensor in distributions or (
                    tensor in stats.tensors and stats.tensors[tensor].elements > 0
                )
                key = ("tensor", tensor)
            case Channels(tensor, axis):
                known = tensor in stats.tensors and axis in stats.tensors[tensor].channels
                key = ("channels", tensor, axis)
            case Moments(tensor, window):
                known = tensor in stats.tensors and window in stats.tensors[tensor].moments
                key = ("moments", tensor, window)
            case OutputError(site, _, _, label, half):
                errors = stats.errors(half)
                known = site in errors and label in errors[site].noise
                key = ("error", site, label, half)
        if not known:
            missing.setdefault(key, request)
    return list(missing.values())


def divide(
    model: ir.Model, requests: Sequence[Request], data: DataSource, budget: int
) -> list[list[Request]]:
    """Divide ``requests`` among passes, so that each holds at most ``budget`` bytes at a time.

    A single request above the budget gets a pass of its own. Integers of a weight that several
    requests of a pass share are held once.
    """
    fetched = [r.tensor for r in requests if isinstance(r, Distribution | Moments)]
    sizes = observed_bytes(model, fetched, _largest(data)) if fetched else {}
    passes: list[list[Request]] = []
    room = 0
    held: set[object] = set()
    for request in requests:
        weight, cost = _weight_key(request), _cost(model, request, sizes)
        if not passes or (cost > max(room, 0) and weight not in held):
            passes.append([])
            room = budget
            held.clear()
        passes[-1].append(request)
        if weight not in held:
            room -= cost
        if weight is not None:
            held.add(weight)
    return passes


def observed_bytes(model: ir.Model, tensors: Sequence[str], sample: Sample) -> dict[str, int]:
    """Bytes of each tensor, as float32, in a run of ``sample``.

    Where the declared shapes follow from those of the inputs, nothing is run.
    """
    shapes = _declared_shapes(model, tensors, sample)
    rest = [name for name in tensors if name not in shapes]
    if rest:
        shapes |= observed_shapes(model, rest, sample)
    return {name: 4 * int(np.prod(shape)) for name, shape in shapes.items()}


def _declared_shapes(
    model: ir.Model, tensors: Sequence[str], sample: Sample
) -> dict[str, tuple[int, ...]]:
    """The declared shapes in which every symbol is a dimension of some input."""
    lengths: dict[str, int] = {}
    for value in model.graph.inputs:
        array = sample.feeds.get(value.name or "")
        if value.shape is not None and array is not None:
            dims = zip(value.shape, array.shape, strict=True)
            lengths |= {str(d.value): n for d, n in dims if not isinstance(d, int) and d.value}
    values = value_by_name(model.graph)
    found = {}
    for name in tensors:
        shape = values[name].shape
        dims_or_none = [
            dim if isinstance(dim, int) else lengths.get(str(dim.value)) for dim in shape or ()
        ]
        known = [dim for dim in dims_or_none if dim is not None]
        if shape is not None and len(known) == len(dims_or_none):
            found[name] = tuple(known)
    return found


def observed_dtypes(
    model: ir.Model, tensors: Sequence[str]
) -> dict[str, np.dtype[np.generic] | None]:
    """The element type of each value as ONNX Runtime infers it; None of one that is no tensor."""
    probe = ProbeGraph(model)
    for name in tensors:
        probe.fetch(name)
    with open_model(probe.pruned(), "none") as session:
        return {spec.name: spec.dtype for spec in session.outputs}


def observed_shapes(
    model: ir.Model, tensors: Sequence[str], sample: Sample
) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor in a real run of ``sample``."""
    # ONNX Runtime refuses a graph without outputs.
    if not tensors:
        return {}
    probe = ProbeGraph(model)
    outputs = [probe.shape(name) for name in tensors]
    with open_model(probe.pruned(), "none") as session:
        shapes = session.run(sample.feeds, outputs)
    return {
        name: tuple(int(dim) for dim in shape) for name, shape in zip(tensors, shapes, strict=True)
    }


def _largest(data: DataSource) -> Sample:
    best: Sample | None = None
    size = -1
    for sample in data:
        here = sum(array.nbytes for array in sample.feeds.values())
        if here > size:
            best, size = sample, here
    if best is None:
        code, text = "data.empty", "there is no sample to calibrate with"
        raise DataError(code, text, where=data.name, remedy="give at least one sample")
    return best


def _cost(model: ir.Model, request: Request, sizes: Mapping[str, int]) -> int:
    if isinstance(request, Distribution | Moments):
        return sizes[request.tensor]
    if isinstance(request, OutputError) and request.weight is not None:
        # The graph's own copy, the message, and ONNX Runtime's before and after packing.
        weight = model.graph.initializers[request.weight.name].const_value
        return 0 if weight is None else 4 * int(weight.nbytes)
    return 0


def _weight_key(request: Request) -> object | None:
    """What tells the integers of one request's weight from another's; None without a weight."""
    if not isinstance(request, OutputError) or request.weight is None:
        return None
    params = request.weight.params
    return request.weight.name, None if params is None else params.key


def _run_pass(
    model: ir.Model,
    requests: Sequence[Request],
    data: DataSource,
    stats: Stats,
    report: Callable[[int], None],
) -> None:
    probe = ProbeGraph(model)
    observers = [_observer(probe, request, stats) for request in requests]
    names = list(dict.fromkeys(name for observer in observers for name in observer.outputs))
    workers = min(os.cpu_count() or 1, 8)
    with ThreadPoolExecutor(workers) as pool, ExitStack() as stack:
        # The compiled counting is loaded while ONNX Runtime opens the model.
        pool.submit(FloatHistogram().add, np.zeros(1, np.float32))
        session = stack.enter_context(open_model(probe.pruned()))
        for done, sample in enumerate(data, start=1):
            # In a function of its own, so that one sample's tensors are gone before the next run.
            _observe(session, _Run(sample, done - 1, len(data)), names, observers, pool)
            report(done)


def _observe(
    session: Session,
    run: _Run,
    names: Sequence[str],
    observers: Sequence[_Observer],
    pool: ThreadPoolExecutor,
) -> None:
    arrays = dict(zip(names, session.run(run.sample.feeds, names), strict=True))
    jobs = [
        pool.submit(observer, [arrays[name] for name in observer.outputs], run)
        for observer in observers
    ]
    for job in jobs:
        job.result()


def _observer(probe: ProbeGraph, request: Request, stats: Stats) -> _Observer:
    match request:
        case Distribution(tensor):
            return _DistributionObserver((probe.fetch(tensor),), _tensor(stats, tensor))
        case Extrema(tensor):
            extrema = (*probe.extrema(tensor), probe.shape(tensor))
            return _ExtremaObserver(extrema, _tensor(stats, tensor))
        case Channels(tensor, axis):
            outputs = (*probe.channels(tensor, axis), probe.shape(tensor))
            return _ChannelObserver(outputs, _tensor(stats, tensor), axis)
        case Moments(tensor, window):
            return _MomentObserver((probe.fetch(tensor),), _tensor(stats, tensor), window)
        case OutputError(site, _, _, label, half):
            errors = stats.errors(half)
            first = site not in errors
            error = errors.setdefault(site, SiteError())
            return _ErrorObserver(probe.output_error(request), error, label, first)


def _tensor(stats: Stats, tensor: str) -> TensorStats:
    return stats.tensors.setdefault(tensor, TensorStats())


def _extend(stats: TensorStats, size: int, low: float, high: float) -> None:
    stats.elements += size
    stats.lows.append(low if np.isfinite(low) else 0.0)
    stats.highs.append(high if np.isfinite(high) else 0.0)
