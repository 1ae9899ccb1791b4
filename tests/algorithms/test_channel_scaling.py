"""Which factors are chosen, from channels and errors that a test gives."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from onnxq.algorithms.channel_scaling import EXPONENTS, ChannelScaling, Scalings
from onnxq.algorithms.selection import QuantizedTensor, select
from onnxq.algorithms.static_int8 import Int8Config
from onnxq.calibration.requests import HALVES
from onnxq.calibration.stats import ChannelStats, SiteError, Stats, TensorStats
from onnxq.graph.sites import find_sites
from onnxq.numerics.schemes import WEIGHT_INT8
from onnxq.recipe import CalibrationSettings, RuleOutcome
from onnxq.recipe.schema import WeightOverride
from onnxq.targets import load_target
from tests.small_models import normal, normalized

if TYPE_CHECKING:
    import onnx_ir as ir

PEAKS = np.geomspace(0.1, 10, 8).astype(np.float32)
TWO = """g (float[N, 8] x) => (float[N, 4] y, float[N, 4] z) {
    y = MatMul(x, w)
    z = MatMul(x, v)
}"""


def scaling_of(model: ir.Model) -> ChannelScaling:
    target = load_target("cpu")
    selection = select(model, find_sites(model), target, {})
    settings = CalibrationSettings()
    config = Int8Config(selection, target.activation, WEIGHT_INT8, settings, {})
    return ChannelScaling(model, config)


def two_sites() -> ir.Model:
    return normalized(TWO, w=normal(0, 8, 4), v=normal(1, 8, 4))


def channels(tensor: str) -> Stats:
    stats = Stats("m", "d", 1)
    zeros = np.zeros(8)
    found = stats.tensors[tensor] = TensorStats()
    # Both halves together have the peaks.
    for half, share in ((0, np.float32(0.5)), (1, np.float32(1))):
        low, high = -PEAKS * share, PEAKS * np.float32(0.5) * share
        found.add_channels(-1, HALVES[half], ChannelStats(low, high, zeros.copy(), 4))
    return stats


def measured(scaling: ChannelScaling, stats: Stats, noise: dict[float | None, float]) -> Stats:
    """Every site gets the noise of its exponent, in the order of the requests."""
    exponents = [e for _ in HALVES for e in (None, *EXPONENTS) for _ in scaling.groups[0].sites]
    requests = scaling.error_requests(stats)
    for exponent, request in zip(exponents, requests, strict=True):
        site = stats.errors(request.half).setdefault(request.site, SiteError(1.0))
        site.noise[request.label] = noise.get(exponent, 1.0)
    return stats


def test_readers_of_one_tensor_are_one_group() -> None:
    scaling = scaling_of(two_sites())
    (group,) = scaling.groups
    assert [site.output for site in group.sites] == ["y", "z"]
    assert group.scaling.fold.parameters == ()


def test_all_candidates_are_measured_and_labels_differ() -> None:
    scaling = scaling_of(two_sites())
    requests = scaling.error_requests(channels("x"))
    assert len(requests) == 2 * 2 * (1 + len(EXPONENTS))
    assert len({(r.site, r.label, r.half) for r in requests}) == len(requests)
    assert {request.label for request in requests}.isdisjoint(
        request.label
        for request in ChannelScaling(
            two_sites(), replace(scaling.config, weight=replace(WEIGHT_INT8, bits=7))
        ).error_requests(channels("x"))
    )


def test_what_is_judged_on_a_half_was_fitted_to_the_other() -> None:
    """Factors and range where channels are scaled; else the range is that of all samples."""
    scaling = scaling_of(two_sites())
    stats = channels("x")
    stats.tensors["x"].halves[-1][0].low[3] = -100
    ranges: dict[int | None, set[float]] = {0: set(), 1: set()}
    scaled: dict[int | None, set[float]] = {0: set(), 1: set()}
    factors: dict[int | None, set[bytes]] = {0: set(), 1: set()}
    for request in scaling.error_requests(stats):
        found = request.activation
        assert found is not None
        assert found.params is not None
        assert found.factor is not None
        kind = ranges if request.label.startswith("unscaled") else scaled
        kind[request.half].add(255 * float(found.params.scale))
        factors[request.half].add(found.factor.tobytes())
    # A least value of -10 and a greatest of 5 in all samples; -100 in one half alone.
    assert sorted(ranges[0]) == sorted(ranges[1]) == pytest.approx([15.0], rel=1e-5)
    assert len(scaled[0]) == len(scaled[1]) == len(EXPONENTS)
    assert all(a < b for a, b in zip(sorted(scaled[0]), sorted(scaled[1]), strict=True))
    assert len(factors[0] & factors[1]) == 1  # that of not scaling


def test_the_errors_of_both_halves_count() -> None:
    scaling = scaling_of(two_sites())
    stats = measured(scaling, channels("x"), {0.5: 0.1})
    assert scaling.choose(stats).entries
    for site in stats.halves[1].values():
        for label in site.noise:
            site.noise[label] = 1.0
    # 0.1 and 1 of 1 and 1: 0.55 of the error is left, more than a half.
    assert scaling.choose(stats) == Scalings()


def test_a_single_sample_judges_nothing_and_the_reason_is_told() -> None:
    scaling = scaling_of(two_sites())
    stats = channels("x")
    del stats.tensors["x"].halves[-1][1]
    assert scaling.error_requests(stats) == []
    found = scaling.choose(stats)
    assert (found.entries, dict(found.arrays)) == ((), {})
    (warning,) = found.warnings
    assert "a single one" in warning


def test_many_readers_cost_no_more_each() -> None:
    """Their number is in no label, and a weight that they share is searched once an exponent."""
    count = 40
    outputs = ", ".join(f"float[N, 4] y{i}" for i in range(count))
    nodes = "\n".join(f"y{i} = Gemm(x, w, b{i})" for i in range(count))
    biases = {f"b{i}": normal(i + 1, 4) for i in range(count)}
    text = f"g (float[N, 8] x) => ({outputs}) {{ {nodes} }}"
    scaling = scaling_of(normalized(text, w=normal(0, 8, 4), **biases))
    requests = scaling.error_requests(channels("x"))
    assert len(requests) == 2 * count * (1 + len(EXPONENTS))
    assert max(len(request.label) for request in requests) < 100
    weights = {id(request.weight.params) for request in requests if request.weight}
    assert len(weights) == 2 * (1 + len(EXPONENTS))


def test_the_factor_is_the_formula() -> None:
    model = two_sites()
    scaling = scaling_of(model)
    stats = measured(scaling, channels("x"), {0.5: 0.1})
    found = scaling.choose(stats)
    (entry,), arrays = found.entries, found.arrays
    assert (entry.tensor, entry.folds, entry.axes) == ("x", (), (0, 0))
    w = np.maximum(np.abs(normal(0, 8, 4)).max(axis=1), np.abs(normal(1, 8, 4)).max(axis=1))
    expected = np.sqrt(PEAKS.astype(float) / w)
    expected /= np.exp(np.log(expected).mean())
    np.testing.assert_allclose(arrays["scaling/x/factor"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("noise", "chosen"),
    [
        ({}, False),
        ({0.4: 0.79}, False),
        ({0.4: 0.51}, False),
        ({0.4: 0.49}, True),
        ({0.9: 0.49}, True),
        ({None: 0.1}, False),
    ],
)
def test_the_only_group_must_lose_half_its_error(
    noise: dict[float | None, float], chosen: bool
) -> None:
    """It has all the elements, so its share of what is saved must be a half."""
    scaling = scaling_of(two_sites())
    found = scaling.choose(measured(scaling, channels("x"), noise))
    assert bool(found.entries) == bool(found.arrays) == chosen
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("rows", "unscaled", "scaled", "chosen"),
    [
        # A tenth of the elements: a fifth of the group's own error is the greater hurdle.
        ((8, 72), (1.0, 1.0), (0.81, 1.0), []),
        ((8, 72), (1.0, 1.0), (0.79, 1.0), ["x"]),
        # Half of the elements: a quarter of the error of both, 0.275, is.
        ((8, 8), (1.0, 0.1), (0.73, 1.0), []),
        ((8, 8), (1.0, 0.1), (0.72, 1.0), ["x"]),
        # Nine tenths of the elements, a tenth of the error: no gain is great enough.
        ((72, 8), (0.1, 0.9), (0.0, 0.9), []),
        ((72, 8), (0.1, 0.9), (0.0, 0.7), ["h"]),
        ((8, 8), (1.0, 1.0), (0.4, 0.4), ["x", "h"]),
    ],
)
def test_a_mul_must_take_a_fifth_and_half_its_share_of_elements(
    rows: tuple[int, int],
    unscaled: tuple[float, float],
    scaled: tuple[float, float],
    chosen: list[str],
) -> None:
    text = """g (float[N, 8] x) => (float[N, 4] y, float[N, 4] z) {
        y = MatMul(x, w)
        h = Tanh(x)
        z = MatMul(h, v)
    }"""
    scaling = scaling_of(normalized(text, w=normal(0, 8, 4), v=normal(1, 8, 4)))
    assert [group.tensor.name for group in scaling.groups] == ["x", "h"]
    assert not any(group.scaling.fold.parameters for group in scaling.groups)
    stats = Stats("m", "d", 1)
    for tensor, count in zip(("x", "h"), rows, strict=True):
        stats.tensors[tensor] = channels(tensor).tensors[tensor]
        stats.tensors[tensor].channels[-1].rows = count
    sites = [group.sites[0].name for group in scaling.groups]
    requests = scaling.error_requests(stats)
    for site, before, after in zip(sites, unscaled, scaled, strict=True):
        labels = [request.label for request in requests if request.site == site]
        unscaled_label, *others = dict.fromkeys(labels)
        noise = {unscaled_label: before, **dict.fromkeys(others, 1.0), others[0]: after}
        for half in HALVES:
            stats.halves[half][site] = SiteError(1.0, noise)
    found = scaling.choose(stats)
    assert [entry.tensor for entry in found.entries] == chosen
    assert list(found.arrays) == [f"scaling/{name}/factor" for name in chosen]


FOLDED = """g (float[N, 8] x) => (float[N, 4] y) {
    h = LayerNormalization(x, g, b)
    y = MatMul(h, w)
}"""


def test_a_fold_costs_nothing_so_any_gain_counts() -> None:
    model = normalized(FOLDED, g=normal(0, 8), b=normal(1, 8), w=normal(2, 8, 4))
    scaling = scaling_of(model)
    (entry,) = scaling.choose(measured(scaling, channels("h"), {0.4: 0.999})).entries
    assert [(fold.input, fold.axis, fold.source) for fold in entry.folds] == [
        (1, -1, None),
        (2, -1, None),
    ]


@pytest.mark.parametrize("noise", [{}, {None: 0.999}])
def test_a_fold_that_gains_nothing_is_left_out(noise: dict[float | None, float]) -> None:
    model = normalized(FOLDED, g=normal(0, 8), b=normal(1, 8), w=normal(2, 8, 4))
    scaling = scaling_of(model)
    assert scaling.choose(measured(scaling, channels("h"), noise)) == Scalings()


@pytest.mark.parametrize(
    ("outputs", "more"),
    [("float[N, 8] h", ""), ("float[N, 8] t", "t = Tanh(h)")],
)
def test_no_fold_where_somebody_else_reads(outputs: str, more: str) -> None:
    text = FOLDED.replace("(float[N, 4] y)", f"(float[N, 4] y, {outputs})").replace(
        "}", f"{more} }}"
    )
    model = normalized(text, g=normal(0, 8), b=normal(1, 8), w=normal(2, 8, 4))
    (group,) = scaling_of(model).groups
    assert group.scaling.fold.parameters == ()


def test_a_channel_that_is_always_zero_is_left_alone() -> None:
    scaling = scaling_of(two_sites())
    stats = channels("x")
    found = stats.tensors["x"].channels[-1]
    found.low[3] = found.high[3] = 0
    factor = scaling.choose(measured(scaling, stats, {0.5: 0.1})).arrays["scaling/x/factor"]
    assert factor[3] == 1
    assert np.isfinite(factor).all()
    assert (factor > 0).all()


def test_a_weight_that_an_outsider_reads_is_not_scaled() -> None:
    text = """g (float[N, 8] x) => (float[N, 8] y) {
        h = MatMul(x, w)
        t = Tanh(h)
        y = MatMul(t, w)
    }"""
    assert scaling_of(normalized(text, w=normal(0, 8, 8))).groups == ()


def test_nan_and_infinite_channels_are_not_scaled() -> None:
    scaling = scaling_of(two_sites())
    for bad in (np.nan, np.inf):
        stats = channels("x")
        stats.tensors["x"].channels[-1].high[2] = bad
        assert scaling.error_requests(stats) == []
        assert scaling.choose(stats) == Scalings()


BEHIND_A_PRODUCT = """g (float[N, 6] x) => (float[N, 4] y) {
    a = MatMul(x, v)
    h = Abs(a)
    y = MatMul(h, w)
}"""


def folds_of(model: ir.Model, tensor: str, **changed: Any) -> tuple[tuple[int, int], ...]:
    """Input and axis of each constant that takes the division, with another configuration."""
    config = replace(scaling_of(model).config, **changed)
    (group,) = [g for g in ChannelScaling(model, config).groups if g.tensor.name == tensor]
    return tuple((p.input, p.axis) for p in group.scaling.fold.parameters)


def test_a_division_goes_into_the_product_in_front() -> None:
    model = normalized(BEHIND_A_PRODUCT, v=normal(0, 6, 8), w=normal(1, 8, 4))
    assert folds_of(model, "h") == ((1, -1),)


def test_not_where_all_its_columns_share_one_scale() -> None:
    model = normalized(BEHIND_A_PRODUCT, v=normal(0, 6, 8), w=normal(1, 8, 4))
    (first,) = [site.name for site in find_sites(model) if site.output == "a"]
    outcome = RuleOutcome(weight=WeightOverride(granularity="tensor"))
    assert folds_of(model, "h", outcomes={first: outcome}) == ()


def test_not_where_a_tensor_on_the_way_is_quantized() -> None:
    """Its channels, alike before, would share a scale when they are not any more."""
    text = """g (float[N, 6] x, float[8, N] q) => (float[8, 4] y) {
        a = MatMul(x, v)
        h = MatMul(q, a)
        y = MatMul(h, w)
    }"""
    model = normalized(text, v=normal(0, 6, 8), w=normal(1, 8, 4))
    selection = scaling_of(model).config.selection
    assert folds_of(model, "h") == ((1, -1),)
    more = replace(selection, tensors=(*selection.tensors, QuantizedTensor("a", "a")))
    assert folds_of(model, "h", selection=more) == ()


def test_channels_that_are_divided_by_the_same_have_one_factor() -> None:
    """Two heads of queries read one head of values."""
    text = """g (float[B, S, 6] x, float[B, 2, S, S] p) => (float[B, S, 4] y) {
        v0 = MatMul(x, v)
        v1 = Reshape(v0, heads)
        v2 = Transpose<perm = [0, 2, 1, 3]>(v1)
        o = MatMul(p, v2)
        t = Transpose<perm = [0, 2, 1, 3]>(o)
        h = Reshape(t, joined)
        y = MatMul(h, w)
    }"""
    shapes = {"heads": np.asarray([0, 0, 1, 4]), "joined": np.asarray([0, 0, 8])}
    model = normalized(text, v=normal(0, 6, 4), w=normal(1, 8, 4), **shapes)
    scaling = scaling_of(model)
    (group,) = [g for g in scaling.groups if g.tensor.name == "h"]
    assert group.scaling.fold.classes.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    factor = scaling._factor(group, 0.5, channels("h").tensors["h"].channels[-1])
    np.testing.assert_array_equal(factor[:4], factor[4:])
    w = np.abs(normal(1, 8, 4)).max(axis=1)
    expected = np.sqrt(np.maximum(PEAKS[:4], PEAKS[4:]) / np.maximum(w[:4], w[4:]))
    np.testing.assert_allclose(factor[:4] / factor[0], expected / expected[0], rtol=1e-5)
