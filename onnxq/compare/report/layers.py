"""The error of each layer: SQNR of its output between two models that run on the same samples.

Errors add up along the graph, so a layer is judged by what it adds. With noise N and signal S of a
tensor its *error share* is ``N / (N + S)``, between 0 and 1; a layer's *step* is its share less the
greatest share among the tensors that it is computed from. Both models run as their graphs are
written, without ONNX Runtime's fusions: what integer kernels do differently is in the fidelity of
the whole model, not here.
"""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from onnxq.calibration.collect import observed_bytes
from onnxq.calibration.probe import ProbeGraph
from onnxq.calibration.session import open_model
from onnxq.data.padding import unpadded
from onnxq.numerics.metrics import ErrorMeter
from onnxq.numerics.rescaling import FactorMeter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from onnxq.compare.report.limits import ReportLimits
    from onnxq.compare.report.matching import Match
    from onnxq.data import DataSource, Sample

    Progress = Callable[[int, int], None]

_LOW_DB: Final = 15.0
"""Below it a tensor may be one that is stored at other scales."""
_SCALED_DB: Final = 3.0
"""It is, where a factor for each channel brings it closer by so much, and the way to every output
leads through tensors that are closer by so much."""


@dataclass(frozen=True, slots=True)
class LayerError:
    """How far one layer's output is from the reference's.

    Attributes:
        layer: The tensor and its place in the graph.
        sqnr_db: SQNR of its output, decibels, pooled over the samples.
        before_db: SQNR of the worst matched tensor that it is computed from; infinite if they are
            all exact or there is none.
        step: The error share that it adds, between -1 and 1.
        rescaled: Whether it is stored at other scales, a factor for each channel, which is no error
            of its own.
    """

    layer: Match
    sqnr_db: float
    before_db: float
    step: float
    rescaled: bool


@dataclass(frozen=True, slots=True)
class LayerErrors:
    """What was measured of a model's layers.

    Attributes:
        layers: In the order of the reference's graph.
        samples: Least and greatest number of samples that a layer was measured on.
        other_shape: Layers that have another shape than the reference's and were not compared.
        graph_nodes: Nodes of the reference's main graph.
    """

    layers: tuple[LayerError, ...]
    samples: tuple[int, int]
    other_shape: int
    graph_nodes: int

    @property
    def worst_first(self) -> tuple[LayerError, ...]:
        """By the error share that they add, those that are only scaled otherwise last."""
        return tuple(sorted(self.layers, key=lambda found: (found.rescaled, -found.step)))


@dataclass(slots=True)
class _Meters:
    """What is known so far, by tensor."""

    errors: dict[str, ErrorMeter] = field(default_factory=lambda: defaultdict(ErrorMeter))
    factors: dict[str, FactorMeter] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    other_shape: set[str] = field(default_factory=set)

    def add(
        self,
        tensor: str,
        expected: NDArray[np.generic],
        found: NDArray[np.generic],
        sample: Sample,
    ) -> None:
        """Compare where the reference is finite, padded positions left out."""
        if expected.dtype.kind != "f" or found.dtype.kind != "f":
            return
        if expected.shape != found.shape:
            self.other_shape.add(tensor)
            return
        real = unpadded(sample.feeds, expected.shape[:-1])
        expected, found = expected[real], found[real]
        finite = np.isfinite(expected)
        with np.errstate(invalid="ignore", over="ignore"):
            if tensor in self.factors:
                self.factors[tensor].add(np.where(finite, expected, 0), np.where(finite, found, 0))
                return
            self.errors[tensor].add(expected[finite], found[finite])
        self.runs[tensor] += 1

    @property
    def suspects(self) -> frozenset[str]:
        """Tensors that are far off."""
        return frozenset(name for name, e in self.errors.items() if e.sqnr_db < _LOW_DB)

    @property
    def mended(self) -> frozenset[str]:
        """Of those that were measured again, the ones that a factor for each channel mends."""
        return frozenset(
            name
            for name, factors in self.factors.items()
            if factors.sqnr_db > self.errors[name].sqnr_db + _SCALED_DB
        )


def measure_layers(
    reference: ir.Model,
    other: ir.Model,
    matches: Sequence[Match],
    data: DataSource,
    limits: ReportLimits,
    progress: Progress = lambda done, total: None,
) -> LayerErrors:
    """Run both models on a few samples and compare what they have in common.

    Memory: the probed tensors of one sample at a time, divided among several passes where they are
    more than ``limits.memory``.

    Args:
        reference: The model that counts as right.
        other: The model compared with it.
        matches: The tensors to compare, in the reference's order.
        data: A few checked samples.
        limits: How many seconds and bytes.
        progress: Called with the passes done and all of them.
    """
    meters = _Meters()
    pair = (reference, other)
    _run(pair, matches, data, limits, meters, progress)
    suspects = [match for match in matches if match.tensor in meters.suspects]
    meters.factors = {match.tensor: FactorMeter() for match in suspects}
    _run(pair, suspects, data, limits, meters, progress)
    measured = [m for m in matches if meters.runs[m.tensor] and meters.errors[m.tensor].elements]
    runs = [meters.runs[m.tensor] for m in measured] or [0]
    return LayerErrors(
        layers=_judge(measured, meters.errors, meters.mended),
        samples=(min(runs), max(runs)),
        other_shape=len(meters.other_shape),
        graph_nodes=len(reference.graph),
    )


def _run(
    pair: tuple[ir.Model, ir.Model],
    matches: Sequence[Match],
    data: DataSource,
    limits: ReportLimits,
    meters: _Meters,
    progress: Progress,
) -> None:
    parts = list(_divide(pair[0], matches, data, limits.memory))
    for done, part in enumerate(parts, start=1):
        _run_part(pair, part, data, meters, limits.seconds / len(parts))
        progress(done, len(parts))


def _divide(
    model: ir.Model, matches: Sequence[Match], data: DataSource, memory: int
) -> Iterator[list[Match]]:
    """Parts whose tensors, of both models, fit into memory in a run of the first sample."""
    computed = [match.tensor for match in matches if match.place]
    sizes = observed_bytes(model, computed, next(iter(data)))
    part: list[Match] = []
    held = 0
    for match in matches:
        size = 2 * sizes.get(match.tensor, 0)
        if part and held + size > memory:
            yield part
            part, held = [], 0
        part.append(match)
        held += size
    if part:
        yield part


def _run_part(
    pair: tuple[ir.Model, ir.Model],
    part: Sequence[Match],
    data: DataSource,
    meters: _Meters,
    seconds: float,
) -> None:
    # An input of the model is given; an output must be computed.
    expected = ProbeGraph(pair[0])
    names = [expected.fetch(match.tensor) for match in part if match.place]
    found = ProbeGraph(pair[1])
    reads = {match.tensor: found.fetch(match.read) for match in part}
    with ExitStack() as stack:
        right = stack.enter_context(open_model(expected.pruned(), "basic")) if names else None
        result = stack.enter_context(open_model(found.pruned(), "basic"))
        stop = time.monotonic() + seconds
        for sample in data:
            arrays: dict[str, NDArray[np.generic]] = dict(sample.feeds)
            if right is not None:
                arrays |= zip(names, right.run(sample.feeds, names), strict=True)
            distinct = list(dict.fromkeys(reads.values()))
            values = dict(zip(distinct, result.run(sample.feeds, distinct), strict=True))
            for tensor, read in reads.items():
                meters.add(tensor, arrays[tensor], values[read], sample)
            if time.monotonic() > stop:
                break


def _judge(
    measured: Sequence[Match], errors: Mapping[str, ErrorMeter], mended: frozenset[str]
) -> tuple[LayerError, ...]:
    reached = _reached(measured, errors)
    rescaled = {name for name in mended if reached[name] > errors[name].sqnr_db + _SCALED_DB}
    # What reads a tensor at another scale is judged by what that is computed from.
    sources: dict[str, tuple[str, ...]] = {}
    for match in measured:
        near = [(sources[s] if s in rescaled else (s,)) for s in match.sources if s in sources]
        sources[match.tensor] = tuple(dict.fromkeys(name for names in near for name in names))
    return tuple(
        LayerError(
            layer=match,
            sqnr_db=errors[match.tensor].sqnr_db,
            before_db=min((errors[s].sqnr_db for s in sources[match.tensor]), default=np.inf),
            step=_share(errors[match.tensor])
            - max((_share(errors[s]) for s in sources[match.tensor]), default=0.0),
            rescaled=match.tensor in rescaled,
        )
        for match in measured
    )


def _reached(measured: Sequence[Match], errors: Mapping[str, ErrorMeter]) -> dict[str, float]:
    """For each tensor the SQNR that every way from it to an output leads through, in decibels."""
    reached: dict[str, float] = {}
    for match in reversed(measured):
        here = reached.setdefault(match.tensor, -np.inf)
        best = max(here, errors[match.tensor].sqnr_db)
        for source in match.sources:
            reached[source] = min(reached.get(source, np.inf), best)
    return reached


def _share(error: ErrorMeter) -> float:
    """Noise over noise and signal; 1 where it is not finite, 0 where there is neither."""
    total = error.noise + error.signal
    if not np.isfinite(total):
        return 1.0
    return error.noise / total if total else 0.0
