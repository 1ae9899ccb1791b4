"""Statistics against numpy on the activations themselves, which elementwise nodes give exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.calibration.collect import collect, divide, observed_bytes, observed_shapes, unknown
from onnxq.calibration.requests import (
    Channels,
    Distribution,
    Extrema,
    Moments,
    OutputError,
    QuantizedInput,
    Request,
)
from onnxq.calibration.stats import Stats, TensorStats
from onnxq.numerics.affine import qparams_from_range
from onnxq.numerics.schemes import ACTIVATION_UINT8, WEIGHT_INT8
from tests.small_models import Feeds, normal, normalized, source

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from onnxq.data import DataSource

GRAPH = """g (float[N, L, 4] x) => (float[N, L, 3] y) {
    h = Mul(x, k)
    r = Relu(h)
    y = MatMul(r, w)
}"""
K = np.asarray([0.5, -3.0, 2.0, 0.25], np.float32)
W = normal(1, 4, 3)
SHAPES = [(2, 5), (1, 1), (3, 7), (2, 5), (4, 2), (1, 9)]


@pytest.fixture
def model() -> ir.Model:
    return normalized(GRAPH, k=K, w=W)


@pytest.fixture
def samples() -> list[Feeds]:
    return [{"x": normal(i, *shape, 4)} for i, shape in enumerate(SHAPES)]


def empty() -> Stats:
    return Stats("sha256:model", "sha256:data")


def activations(samples: list[Feeds]) -> dict[str, list[NDArray[Any]]]:
    inputs = [feeds["x"] for feeds in samples]
    products = [x * K for x in inputs]
    return {"x": inputs, "h": products, "r": [np.maximum(h, 0) for h in products]}


def everything() -> list[Request]:
    names = ("x", "h", "r")
    distributions: list[Request] = [Distribution(name) for name in names]
    return [*distributions, *(Channels(name, axis) for name in names for axis in (-1, 2))]


def assert_same(left: Stats, right: Stats) -> None:
    """Equal bit for bit, but for sums in another order."""
    assert left.samples == right.samples
    assert left.tensors.keys() == right.tensors.keys()
    for name, mine in left.tensors.items():
        assert_same_tensor(mine, right.tensors[name])
    assert left.sites.keys() == right.sites.keys()
    for name, error in left.sites.items():
        assert error.signal == pytest.approx(right.sites[name].signal, rel=1e-12)
        assert error.noise == pytest.approx(right.sites[name].noise, rel=1e-12)


def assert_same_tensor(mine: TensorStats, other: TensorStats) -> None:
    assert (mine.elements, mine.masked, mine.nan) == (other.elements, other.masked, other.nan)
    assert (mine.lows, mine.highs) == (other.lows, other.highs)
    assert (mine.histogram is None) == (other.histogram is None)
    if mine.histogram is not None and other.histogram is not None:
        for part in ("low", "high", "count"):
            left, right = (getattr(h.bins(), part) for h in (mine.histogram, other.histogram))
            np.testing.assert_array_equal(left, right)
    assert mine.channels.keys() == other.channels.keys()
    for axis, channel in mine.channels.items():
        np.testing.assert_array_equal(channel.low, other.channels[axis].low)
        np.testing.assert_array_equal(channel.high, other.channels[axis].high)
        np.testing.assert_allclose(channel.magnitude, other.channels[axis].magnitude, rtol=1e-12)
        assert channel.rows == other.channels[axis].rows


@pytest.mark.parametrize("kind", [Extrema, Distribution])
@pytest.mark.parametrize("tensor", ["x", "h", "r"])
def test_the_extrema_of_each_sample_are_exact(
    model: ir.Model, samples: list[Feeds], kind: type[Extrema], tensor: str
) -> None:
    found = collect(model, [kind(tensor)], source(model, samples), empty()).tensors[tensor]
    values = activations(samples)[tensor]
    assert found.lows == [float(v.min()) for v in values]
    assert found.highs == [float(v.max()) for v in values]
    assert (found.low, found.high) == (min(found.lows), max(found.highs))
    assert found.elements == sum(v.size for v in values)
    assert (found.masked, found.nan) == (0, 0)


@pytest.mark.parametrize("tensor", ["x", "h", "r"])
def test_a_distribution_counts_every_element(
    model: ir.Model, samples: list[Feeds], tensor: str
) -> None:
    found = collect(model, [Distribution(tensor)], source(model, samples), empty())
    histogram = found.tensors[tensor].histogram
    assert histogram is not None
    values = np.concatenate([v.ravel() for v in activations(samples)[tensor]]).astype(np.float64)
    bins = histogram.bins()
    assert bins.count.sum() == values.size
    for low, high, count in zip(bins.low, bins.high, bins.count, strict=True):
        # Edges belong to the bin that is further from 0, and the last edges are the extrema.
        inside = (values >= low) & (values <= high)
        edges = int((values == low).sum() + (values == high).sum())
        assert inside.sum() - edges <= count <= inside.sum()


@pytest.mark.parametrize("axis", [-1, 2])
def test_channel_statistics_are_those_of_numpy(
    model: ir.Model, samples: list[Feeds], axis: int
) -> None:
    found = collect(model, [Channels("h", axis)], source(model, samples), empty())
    channel = found.tensors["h"].channels[axis]
    rows = np.concatenate([v.reshape(-1, 4) for v in activations(samples)["h"]])
    np.testing.assert_array_equal(channel.low, rows.min(axis=0))
    np.testing.assert_array_equal(channel.high, rows.max(axis=0))
    expected = np.abs(rows.astype(np.float64)).mean(axis=0)
    np.testing.assert_allclose(channel.mean_magnitude, expected, rtol=1e-6)
    assert channel.rows == len(rows)


@pytest.mark.parametrize(("count", "first"), [(1, 1), (2, 1), (3, 2), (4, 2)])
def test_each_half_of_the_samples_has_its_own_channels(
    model: ir.Model, samples: list[Feeds], count: int, first: int
) -> None:
    samples = [*samples, *samples][:count]
    data = source(model, samples)
    halves = collect(model, [Channels("h", -1)], data, empty()).tensors["h"].halves[-1]
    parts = {0: samples[:first], 1: samples[first:]}
    assert set(halves) == {half for half, part in parts.items() if part}
    for half, channel in halves.items():
        alone = collect(model, [Channels("h", -1)], source(model, parts[half]), empty())
        expected = alone.tensors["h"].channels[-1]
        np.testing.assert_array_equal(channel.low, expected.low)
        np.testing.assert_array_equal(channel.high, expected.high)
        np.testing.assert_allclose(channel.magnitude, expected.magnitude)
        assert channel.rows == expected.rows


def reference_quantized(values: NDArray[Any], low: float, high: float) -> NDArray[np.float64]:
    """The formulas of uint8, literally; the range holds 0."""
    scale = np.float32((high - low) / 255)
    zero_point = np.rint(-low / np.float64(scale))
    integers = np.clip(np.rint(values / scale) + zero_point, 0, 255)
    return np.asarray((integers.astype(np.float64) - zero_point) * np.float64(scale))


def test_output_errors_are_those_of_numpy(model: ir.Model, samples: list[Feeds]) -> None:
    factor = np.asarray([0.5, 2.0, 1.0, 4.0], np.float32)
    ranges = {"wide": (0.0, 9.0), "narrow": (0.0, 1.5)}
    weight_params = qparams_from_range(-np.abs(W).max(), np.abs(W).max(), WEIGHT_INT8)
    weight = QuantizedInput(1, "w", weight_params)

    def of(label: str) -> QuantizedInput:
        return QuantizedInput(0, "r", qparams_from_range(*ranges[label], ACTIVATION_UINT8))

    scaled = QuantizedInput(0, "r", of("wide").params, factor)
    back = QuantizedInput(1, "w", weight_params, np.reciprocal(factor).reshape(-1, 1))
    site = next(node.name or "" for node in model.graph if node.op_type == "MatMul")
    requests = [
        OutputError(site, of("wide"), None, "wide"),
        OutputError(site, of("narrow"), None, "narrow"),
        OutputError(site, of("narrow"), weight, "both"),
        OutputError(site, scaled, back, "scaled"),
    ]
    found = collect(model, requests, source(model, samples), empty()).sites[site]

    rows = np.concatenate([v.reshape(-1, 4) for v in activations(samples)["r"]])
    expected = rows.astype(np.float64) @ W.astype(np.float64)
    scale = np.float64(weight_params.scale)

    def rounded(w: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(np.clip(np.rint(w / scale), -127, 127) * scale)

    outputs = {
        "wide": reference_quantized(rows, 0.0, 9.0) @ W,
        "narrow": reference_quantized(rows, 0.0, 1.5) @ W,
        "both": reference_quantized(rows, 0.0, 1.5) @ rounded(W),
        "scaled": reference_quantized(rows * factor, 0.0, 9.0) @ rounded(W / factor[:, None]),
    }
    assert found.signal == pytest.approx(np.square(expected).sum(), rel=1e-5)
    for label, output in outputs.items():
        noise = np.square(output - expected).sum()
        assert found.noise[label] == pytest.approx(noise, rel=1e-4)


def test_output_errors_take_all_calibrated_samples_once(
    model: ir.Model, samples: list[Feeds]
) -> None:
    """The signal is not counted again in a later pass, nor for a later candidate."""
    site = next(node.name or "" for node in model.graph if node.op_type == "MatMul")
    params = qparams_from_range(0.0, 3.0, ACTIVATION_UINT8)
    stats = empty()
    data = source(model, samples)
    for label in ("first", "second"):
        request = OutputError(site, QuantizedInput(0, "r", params), None, label)
        collect(model, [request], data, stats)
    error = stats.sites[site]
    assert error.noise["first"] == error.noise["second"]
    again = collect(
        model, [OutputError(site, QuantizedInput(0, "r", params), None, "x")], data, empty()
    )
    assert error.signal == again.sites[site].signal


@pytest.mark.parametrize("budget", [1, 900, 10_000])
def test_splitting_changes_nothing(model: ir.Model, samples: list[Feeds], budget: int) -> None:
    data = source(model, samples)
    site = next(node.name or "" for node in model.graph if node.op_type == "MatMul")
    params = qparams_from_range(0.0, 3.0, ACTIVATION_UINT8)
    weight = QuantizedInput(1, "w", qparams_from_range(-2.0, 2.0, WEIGHT_INT8))
    errors = [OutputError(site, QuantizedInput(0, "r", params), weight, label) for label in "abcd"]
    requests = [*everything(), *errors]
    whole = collect(model, requests, data, empty())
    assert_same(collect(model, requests, data, empty(), budget=budget), whole)


def test_a_small_budget_needs_several_passes(model: ir.Model, samples: list[Feeds]) -> None:
    data = source(model, samples)
    steps: list[tuple[int, int]] = []
    collect(
        model,
        everything(),
        data,
        empty(),
        budget=1,
        progress=lambda done, total: steps.append((done, total)),
    )
    passes, rest = divmod(steps[-1][1], len(samples))
    assert passes >= 3
    assert rest == 0
    assert [done for done, _ in steps] == list(range(1, steps[-1][1] + 1))


@settings(max_examples=25, deadline=None)
@given(
    budget=st.integers(1, 4000),
    names=st.lists(st.sampled_from(["x", "h", "r", "y"]), min_size=1, unique=True),
)
def test_no_pass_is_above_the_budget(budget: int, names: list[str]) -> None:
    model = normalized(GRAPH, k=K, w=W)
    samples = [{"x": normal(0, 2, 3, 4)}, {"x": normal(0, 4, 5, 4)}]
    sizes = {"x": 320, "h": 320, "r": 320, "y": 240}
    kinds = (Distribution, Moments)
    requests: list[Request] = [kinds[place % 2](name) for place, name in enumerate(names)]
    passes = divide(model, requests, source(model, samples), budget)
    assert [request for part in passes for request in part] == requests
    for part in passes:
        held = [sizes[request.tensor] for request in part if isinstance(request, kinds)]
        assert len(held) == 1 or sum(held) <= budget
    if sum(sizes[name] for name in names) <= budget:
        assert len(passes) == 1


def test_sizes_are_those_of_a_real_run(model: ir.Model) -> None:
    data = source(model, [{"x": normal(0, 2, 3, 4)}])
    sample = next(iter(data))
    assert observed_shapes(model, ["x", "r", "y"], sample) == {
        "x": (2, 3, 4),
        "r": (2, 3, 4),
        "y": (2, 3, 3),
    }
    assert observed_bytes(model, ["y"], sample) == {"y": 2 * 3 * 3 * 4}


MASKED = """g (float[N, 4] x) => (float[N, 3] y) {
    m = Log(x)
    y = MatMul(m, w)
}"""
SPECIAL = np.asarray([[1.0, 0.0, np.e, 2.0], [-1.0, 0.0, 0.5, -2.0]], np.float32)


def masked_data() -> tuple[ir.Model, DataSource]:
    """Log gives -inf of 0 (twice) and NaN of a negative value (twice)."""
    model = normalized(MASKED, w=W)
    return model, source(model, [{"x": SPECIAL}, {"x": np.full((1, 4), 2, np.float32)}])


@pytest.mark.parametrize("kind", [Extrema, Distribution])
def test_nan_and_infinity_are_counted_and_kept_out(kind: type[Extrema]) -> None:
    model, data = masked_data()
    found = collect(model, [kind("m")], data, empty()).tensors["m"]
    assert found.elements == 12
    assert found.nan == 2
    assert found.masked == 2
    assert found.low == pytest.approx(np.log(0.5), rel=1e-6)
    assert found.high == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("kind", [Extrema, Distribution])
@pytest.mark.parametrize("constant", [-3.4e38, -3.4028235e38, -1e38])
def test_mask_constants_are_kept_out(kind: type[Extrema], constant: float) -> None:
    model = normalized(GRAPH, k=np.ones(4, np.float32), w=W)
    values = np.asarray([[[1.0, constant, 2.0, -0.5]]], np.float32)
    found = collect(model, [kind("h")], source(model, [{"x": values}]), empty()).tensors["h"]
    assert (found.low, found.high, found.masked, found.nan) == (-0.5, 2.0, 1, 0)


def test_a_sample_of_masks_alone_adds_nothing() -> None:
    model = normalized(GRAPH, k=np.ones(4, np.float32), w=W)
    samples = [{"x": np.full((1, 1, 4), v, np.float32)} for v in (-3.4e38, 2.0)]
    found = collect(model, [Distribution("h")], source(model, samples), empty()).tensors["h"]
    assert found.histogram is not None
    assert (found.masked, found.histogram.total) == (4, 4)
    assert (found.histogram.minimum, found.histogram.maximum) == (2.0, 2.0)


def test_what_is_known_is_not_asked_again(model: ir.Model, samples: list[Feeds]) -> None:
    stats = collect(model, everything(), source(model, samples), empty())
    assert unknown(everything(), stats) == []
    assert unknown([Extrema("h")], stats) == []
    assert unknown([Extrema("y"), Extrema("y")], stats) == [Extrema("y")]
    assert unknown([Extrema("y"), Distribution("y")], stats) == [Distribution("y")]


def test_a_distribution_after_extrema_counts_each_sample_once(
    model: ir.Model, samples: list[Feeds]
) -> None:
    data = source(model, samples)
    stats = collect(model, [Extrema("h"), Channels("h", -1)], data, empty())
    collect(model, [Distribution("h")], data, stats)
    at_once = collect(model, [Distribution("h"), Channels("h", -1)], data, empty())
    assert_same(stats, at_once)


def test_halves_merge_to_the_whole(model: ir.Model, samples: list[Feeds]) -> None:
    site = next(node.name or "" for node in model.graph if node.op_type == "MatMul")
    params = qparams_from_range(0.0, 3.0, ACTIVATION_UINT8)
    requests = [*everything(), OutputError(site, QuantizedInput(0, "r", params), None, "a")]
    whole = collect(model, requests, source(model, samples), empty())
    first = collect(model, requests, source(model, samples[:2]), empty())
    second = collect(model, requests, source(model, samples[2:]), empty())
    first.merge(second)
    assert_same(first, whole)


def test_the_model_is_not_changed(model: ir.Model, samples: list[Feeds]) -> None:
    before = [output.name for output in model.graph.outputs], len(model.graph)
    collect(model, everything(), source(model, samples), empty())
    assert ([output.name for output in model.graph.outputs], len(model.graph)) == before
