"""Distributions before and after: the weight and the output of the layers that add most error.

Every element is counted in a histogram of fixed relative resolution
(:mod:`onnxq.numerics.histogram`) and laid into equal bins at the end, so that no tensor of an
earlier sample is held.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from onnxq.calibration.probe import ProbeGraph
from onnxq.calibration.session import open_model
from onnxq.compare.report.weights import stored_weight, takes_integers
from onnxq.data.padding import unpadded
from onnxq.graph.edit import constant_array, node_by_name, value_by_name
from onnxq.graph.sites import find_sites
from onnxq.graph.weighted import form_of
from onnxq.numerics.histogram import FloatHistogram

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from onnxq.compare.report.layers import LayerError, LayerErrors
    from onnxq.data import DataSource, Sample

BINS: Final = 64
"""Equal bins from the least to the greatest value of both models."""
QUANTILES: Final = (0.001, 0.5, 0.999)
_MARGIN: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Spread:
    """How the values of one tensor are spread.

    Attributes:
        counts: Values in each of the equal bins.
        total: How many there are.
        low: The least.
        high: The greatest.
        quantiles: Those of :data:`QUANTILES`.
        mean: Their mean, to the resolution of the histogram.
        deviation: Their standard deviation, to the same.
    """

    counts: NDArray[np.float64]
    total: int
    low: float
    high: float
    quantiles: tuple[float, ...]
    mean: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Pair:
    """A tensor of the reference and of the other model.

    Attributes:
        edges: Of the bins of both.
        before: The reference's.
        after: The other's.
    """

    edges: NDArray[np.float64]
    before: Spread
    after: Spread


@dataclass(frozen=True, slots=True)
class LayerSpread:
    """Distributions of one layer.

    Attributes:
        layer: The layer.
        weight: Of its weight; None where there is none or it cannot be read.
        why_no_weight: Why ``weight`` is None.
        output: Of its output, over the samples; None if it has no ordinary value.
    """

    layer: LayerError
    weight: Pair | None
    why_no_weight: str
    output: Pair | None


@dataclass(slots=True)
class _Counting:
    before: FloatHistogram = field(default_factory=FloatHistogram)
    after: FloatHistogram = field(default_factory=FloatHistogram)

    def pair(self) -> Pair | None:
        if not (self.before.total and self.after.total):
            return None
        low = min(self.before.minimum, self.after.minimum)
        high = max(self.before.maximum, self.after.maximum)
        room = max(high - low, abs(high), 1e-30) * _MARGIN
        edges = np.linspace(low - room, high + room, BINS + 1)
        return Pair(edges, spread(self.before, edges), spread(self.after, edges))


def most_telling(reference: ir.Model, found: LayerErrors, most: int) -> tuple[LayerError, ...]:
    """The layers that add most error, those with weights first; none that is exact."""
    weighted = {site.output for site in find_sites(reference) if site.weight is not None}
    worst = [e for e in found.worst_first if e.layer.place and e.sqnr_db != np.inf]
    return tuple(sorted(worst, key=lambda error: error.layer.tensor not in weighted)[:most])


def measure_spreads(
    reference: ir.Model,
    other: ir.Model,
    layers: Sequence[LayerError],
    data: DataSource,
) -> tuple[LayerSpread, ...]:
    """Count the weights and the outputs of these layers in both models.

    Args:
        reference: The model before.
        other: The model after.
        layers: Which layers; all their outputs of one sample are held at a time.
        data: A few checked samples.
    """
    if not layers:
        return ()
    outputs = {layer.layer.tensor: _Counting() for layer in layers}
    _count_outputs(reference, other, layers, data, outputs)
    found = []
    for layer in layers:
        weight, why = _weights(reference, other, layer, data)
        output = outputs[layer.layer.tensor].pair()
        found.append(LayerSpread(layer, None if weight is None else weight.pair(), why, output))
    return tuple(found)


def spread(histogram: FloatHistogram, edges: NDArray[np.float64]) -> Spread:
    """What is shown of a histogram that is not empty.

    Args:
        histogram: Counted values.
        edges: Of equal bins that cover them.
    """
    bins = histogram.bins()
    reached = np.cumsum(bins.count)
    total = reached[-1]
    mean = float(np.dot(bins.centre, bins.count) / total)
    variance = float(np.dot((bins.centre - mean) ** 2, bins.count) / total)
    places = np.searchsorted(reached, np.asarray(QUANTILES) * total)
    return Spread(
        counts=bins.spread_over(edges),
        total=int(total),
        low=histogram.minimum,
        high=histogram.maximum,
        quantiles=tuple(float(bins.centre[place]) for place in places),
        mean=mean,
        deviation=float(np.sqrt(variance)),
    )


def _count_outputs(
    reference: ir.Model,
    other: ir.Model,
    layers: Sequence[LayerError],
    data: DataSource,
    outputs: dict[str, _Counting],
) -> None:
    expected, found = ProbeGraph(reference), ProbeGraph(other)
    names = [expected.fetch(layer.layer.tensor) for layer in layers]
    reads = [found.fetch(layer.layer.read) for layer in layers]
    with ExitStack() as stack:
        right = stack.enter_context(open_model(expected.pruned(), "basic"))
        result = stack.enter_context(open_model(found.pruned(), "basic"))
        for sample in data:
            before, after = right.run(sample.feeds, names), result.run(sample.feeds, reads)
            for name, a, b in zip(names, before, after, strict=True):
                outputs[name].before.add(_real(a, sample))
                outputs[name].after.add(_real(b, sample))


def _real(values: NDArray[np.generic], sample: Sample) -> NDArray[np.float32]:
    array = np.asarray(values, np.float32)
    kept: NDArray[np.float32] = array[unpadded(sample.feeds, array.shape[:-1])]
    return kept


def _weights(
    reference: ir.Model, other: ir.Model, layer: LayerError, data: DataSource
) -> tuple[_Counting | None, str]:
    """The weight of a layer in both models, or why not."""
    name = layer.layer.node
    node, twin = node_by_name(reference.graph).get(name), node_by_name(other.graph).get(name)
    form = None if node is None else form_of(node)
    if node is None or form is None or form.weight is None:
        return None, "this layer has no weight"
    before = constant_array(node.inputs[form.weight])
    if before is None:
        return None, "its weight is no constant"
    if twin is None:
        return None, "the other model has no node of this name"
    after = stored_weight(twin)
    if after is None:
        value = twin.inputs[form.weight] if form.weight < len(twin.inputs) else None
        if value is None or takes_integers(twin):
            return None, f"its weight cannot be read from {twin.op_type}"
        after = _computed(other, value.name or "", data)
    if after is None:
        return None, "its weight in the other model is no constant"
    counting = _Counting()
    counting.before.add(np.asarray(before, np.float32))
    counting.after.add(after)
    return counting, ""


def _computed(model: ir.Model, name: str, data: DataSource) -> NDArray[np.float32] | None:
    """A value that is computed from constants alone."""
    value = value_by_name(model.graph).get(name)
    known = None if value is None else constant_array(value)
    if known is not None:
        return np.asarray(known, np.float32)
    probe = ProbeGraph(model)
    probe.fetch(name)
    pruned = probe.pruned()
    with open_model(pruned, "none") as session:
        (found,) = session.run(next(iter(data)).feeds, [name])
    return np.asarray(found, np.float32)
