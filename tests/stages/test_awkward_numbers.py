"""Numbers that break quantization: each is handled, or its site stays float and says why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from onnxq.algorithms.guard import LEAST_SITE_DB
from onnxq.pipeline import QuantizeResult, RunOptions, inspect, quantize
from onnxq.recipe import Recipe
from tests.small_models import Feeds, normal, run, write

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxq.recipe import Scheme

LAYERS = """g (float[N, 8] x) => (float[N, 4] y) {
    h = MatMul(x, w)
    r = Relu(h)
    y = MatMul(r, v)
}"""
PLAIN = Recipe(channel_scaling="off")


def batches(factor: float = 1.0, rows: int = 20) -> list[Feeds]:
    return [{"x": normal(seed, rows, 8) * np.float32(factor)} for seed in range(6)]


def quantized(
    folder: Path, text: str, samples: list[Feeds], **weights: NDArray[Any]
) -> QuantizeResult:
    model = write(folder / "m.onnx", text, **weights)
    options = RunOptions(timing=None)
    return quantize(model, samples, folder / "o.onnx", recipe=PLAIN, options=options)


SCHEMES: tuple[Scheme, ...] = ("int8", "int8-dynamic", "int8-weights")
EACH_SCHEME = pytest.mark.parametrize("scheme", SCHEMES)


def layers_in(
    scheme: Scheme, folder: Path, samples: list[Feeds] | None, w: NDArray[Any]
) -> QuantizeResult:
    model = write(folder / "m.onnx", LAYERS, w=w, v=normal(2, 8, 4))
    recipe = Recipe(scheme=scheme, channel_scaling="off")
    options = RunOptions(timing=None)
    return quantize(model, samples, folder / "o.onnx", recipe=recipe, options=options)


def layers(folder: Path, samples: list[Feeds], w: NDArray[Any]) -> QuantizeResult:
    return quantized(folder, LAYERS, samples, w=w, v=normal(2, 8, 4))


def reasons(result: QuantizeResult) -> list[str]:
    return [site.reason for site in result.plan.sites]


def sqnr(result: QuantizeResult) -> float:
    assert result.verification is not None
    found = result.verification.fidelity.sqnr_db
    assert found is not None
    return found


def _zero_channels() -> NDArray[np.float32]:
    w = normal(1, 8, 8)
    w[:, 2] = 0
    w[3, :] = 0
    return w


@pytest.mark.parametrize(
    "w", [_zero_channels(), np.abs(normal(1, 8, 8)), normal(1, 8, 8) * np.float32(1e-30)]
)
def test_weights_that_are_zero_positive_or_tiny(tmp_path: Path, w: NDArray[np.float32]) -> None:
    result = layers(tmp_path, batches(), w)
    assert reasons(result) == ["", ""]
    assert sqnr(result) > 24


@pytest.mark.parametrize(
    ("samples", "weight"),
    [
        ([{"x": np.zeros((5, 8), np.float32)}] * 6, normal(1, 8, 8)),
        (batches(), np.zeros((8, 8), np.float32)),
        ([{"x": np.full((5, 8), 3, np.float32)}] * 6, np.eye(8, dtype=np.float32)),
        (batches(1e-20), normal(1, 8, 8)),
    ],
    ids=["activation zero", "weight zero", "activation of one value", "tiny activation"],
)
def test_signals_without_a_range(
    tmp_path: Path, samples: list[Feeds], weight: NDArray[np.float32]
) -> None:
    result = layers(tmp_path, samples, weight)
    assert reasons(result) == ["", ""]
    assert sqnr(result) > 25


@pytest.mark.parametrize(
    ("samples", "factor", "why"),
    [
        (batches(), 1e-40, "its weights are too small for any scale"),
        (batches(1e-40), 1.0, "only values too small for any scale were seen in its input 'x'"),
    ],
)
def test_numbers_below_every_scale(
    tmp_path: Path, samples: list[Feeds], factor: float, why: str
) -> None:
    result = layers(tmp_path, samples, (normal(1, 8, 8) * factor).astype(np.float32))
    assert why in reasons(result)[0]


def ruinous() -> tuple[NDArray[np.float32], list[Feeds]]:
    """A huge weight makes its channel round to 0, and the input that it multiplies is silent."""
    w = normal(1, 8, 8)
    w[3, 0] = 1e6
    w[:, 1:] *= 0.01
    samples = batches()
    for sample in samples:
        sample["x"][:, 3] = 0
    return w, samples


@EACH_SCHEME
def test_a_site_that_would_be_ruined_stays_float_and_says_so(
    tmp_path: Path, scheme: Scheme
) -> None:
    w, samples = ruinous()
    result = layers_in(scheme, tmp_path, samples, w)
    first, second = result.plan.sites
    assert (first.decision, second.decision) == ("float", scheme)
    assert "would ruin it" in first.reason
    assert any(text == f"{first.name} stays float: {first.reason}" for text in result.warnings)
    assert sqnr(result) > 20
    recipe = Recipe(scheme=scheme, channel_scaling="off")
    seen = inspect(tmp_path / "m.onnx", samples, recipe=recipe).sites
    assert [site.decision for site in seen] == ["float", scheme]
    assert seen[0].reason == first.reason
    assert seen[0].sqnr_db is not None
    assert seen[0].sqnr_db < LEAST_SITE_DB < (seen[1].sqnr_db or 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("scheme", "data"), [*((scheme, True) for scheme in SCHEMES), ("int8-dynamic", False)]
)
def test_weights_that_are_not_finite_are_named_and_stay(
    tmp_path: Path, scheme: Scheme, data: bool, bad: float
) -> None:
    """What comes out of them is no more finite behind a site that rounds its input at run time."""
    w = normal(1, 8, 8)
    w[2, 3] = bad
    result = layers_in(scheme, tmp_path, batches() if data else None, w)
    first = result.plan.sites[0]
    assert first.decision == "float"
    assert "'w' holds 1 values that are NaN or infinite" in first.reason
    model = inspect(tmp_path / "m.onnx", recipe=Recipe(scheme=scheme))
    assert model.sites[0].reason == first.reason
    feeds = batches()[0]
    (wanted,), (found,) = run(tmp_path / "m.onnx", feeds), run(tmp_path / "o.onnx", feeds, "all")
    assert not np.isfinite(wanted).all()
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(wanted))


@pytest.mark.parametrize("scheme", ["int8-dynamic", "int8-weights"])
def test_weights_below_every_scale_stay_float_without_calibration(
    tmp_path: Path, scheme: Scheme
) -> None:
    w = (normal(1, 8, 8) * 1e-40).astype(np.float32)
    result = layers_in(scheme, tmp_path, None, w)
    assert "its weights are too small for any scale" in result.plan.sites[0].reason


@pytest.mark.parametrize(
    ("inner", "what"),
    [
        ("h = Log(x)", "NaN was seen in its input 'h'"),
        ("a = Abs(x) b = Relu(x) c = Log(b) h = Add(c, a)", "infinite values or mask constants"),
    ],
)
def test_nan_and_inf_in_activations_of_dynamic_int8(tmp_path: Path, inner: str, what: str) -> None:
    text = f"""g (float[N, 8] x) => (float[N, 4] y, float[N, 4] z) {{
        {inner} g1 = MatMul(h, w) y = Relu(g1) z = MatMul(x, w)
    }}"""
    model = write(tmp_path / "m.onnx", text, w=normal(1, 8, 4))
    recipe, options = Recipe(scheme="int8-dynamic"), RunOptions(timing=None)
    result = quantize(model, batches(), tmp_path / "o.onnx", recipe=recipe, options=options)
    assert [site.decision for site in result.plan.sites] == ["float", "int8-dynamic"]
    assert what in reasons(result)[0]
    assert any(f"stays float: {reasons(result)[0]}" in text for text in result.warnings)
    seen = inspect(model, batches(), recipe=recipe).sites
    assert [site.reason for site in seen] == reasons(result)


def test_a_second_run_on_a_ruined_site_says_the_same(tmp_path: Path) -> None:
    w, samples = ruinous()
    first, second = layers(tmp_path, samples, w), layers(tmp_path, samples, w)
    assert second.calibration is not None
    assert second.calibration.reused
    assert first.plan.model_dump() == second.plan.model_dump()
    assert first.warnings == second.warnings


def test_a_huge_weight_whose_channel_is_huge_is_no_ruin(tmp_path: Path) -> None:
    w = normal(1, 8, 8)
    w[3, 0] = 1e3
    assert reasons(layers(tmp_path, batches(), w)) == ["", ""]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_constants_that_are_not_finite_stay_as_they_are(tmp_path: Path, bad: float) -> None:
    text = """g (float[N, 8] x) => (float[N, 8] y, float[N, 8] z) {
        h = MatMul(x, w) z = Add(h, k) a = MatMul(x, v) s = Mul(a, k) y = Gemm(a, v, k)
    }"""
    k = np.asarray([1, bad, 2, 3, 4, 5, 6, 7], np.float32)
    w, v = normal(1, 8, 8), normal(2, 8, 8)
    result = quantized(tmp_path, text, batches(), w=w, v=v, k=k)
    last = result.plan.sites[-1]
    assert last.decision == "float"
    assert "'k'" in last.reason
    y, z = run(tmp_path / "o.onnx", batches()[0])
    for output in (y, z):
        assert not np.isfinite(output[:, 1]).any()
        assert np.isfinite(np.delete(output, 1, axis=1)).all()


@pytest.mark.parametrize(
    ("inner", "what"),
    [
        ("h = Log(x)", "NaN was seen in its input 'h'"),
        ("a = Abs(x) b = Relu(x) c = Log(b) h = Add(c, a)", "infinite values or mask constants"),
    ],
)
def test_nan_and_inf_in_activations(tmp_path: Path, inner: str, what: str) -> None:
    text = f"g (float[N, 8] x) => (float[N, 4] y) {{ {inner} g1 = MatMul(h, w) y = Relu(g1) }}"
    result = quantized(tmp_path, text, batches(), w=normal(1, 8, 4))
    assert what in reasons(result)[0]


INFINITE = """g (float[N, 8] x) => (float[N, 4] y, float[N, 4] z) {
    a = Abs(x) b = Relu(x) c = Log(b) h = Add(c, a) m = MatMul(h, w) y = Tanh(m) z = MatMul(x, w)
}"""


@pytest.mark.parametrize("form", ["blocks", "folded", "dq"])
def test_infinite_activations_beside_integer_weights(tmp_path: Path, form: str) -> None:
    """In float an Inf is behind its Tanh a finite number; times a rounded weight it may be NaN."""
    model = write(tmp_path / "m.onnx", INFINITE, w=normal(1, 8, 4))
    recipe = Recipe.model_validate({"scheme": "int8-weights", "weights": {"form": form}})
    options = RunOptions(timing=None)
    result = quantize(model, batches(), tmp_path / "o.onnx", recipe=recipe, options=options)
    assert [site.decision for site in result.plan.sites] == ["float", "int8-weights"]
    assert "NaN or infinite values were seen in its output" in reasons(result)[0]
    assert any(f"stays float: {reasons(result)[0]}" in text for text in result.warnings)
    for feeds in batches():
        expected, found = run(model, feeds)[0], run(tmp_path / "o.onnx", feeds)[0]
        assert np.isfinite(found[np.isfinite(expected)]).all()


@pytest.mark.parametrize("scheme", ["int8-dynamic", "int8-weights"])
@pytest.mark.parametrize("bad", [np.inf, 1.0])
def test_infinite_weights_in_front_of_a_body(tmp_path: Path, scheme: Scheme, bad: float) -> None:
    """What reaches a body is not observed: beside damaged weights it stays as it is."""
    text = """g (float[N, 8] x, int64 n) => (float[N, 4] y) {
        h = MatMul(x, w)
        z = Loop (n, , h) <
            body = b (int64 i, bool k, float[N, 8] a) => (bool kk, float[N, 8] r) {
                kk = Identity(k) m = MatMul(a, s) r = Tanh(m) }
        >
        y = MatMul(z, v)
    }"""
    w = normal(1, 8, 8)
    w[3, 2] = bad
    weights = {"w": w, "s": normal(2, 8, 8), "v": normal(3, 8, 4)}
    model = write(tmp_path / "m.onnx", text, **weights)
    samples = [{**feeds, "n": np.asarray(2)} for feeds in batches()]
    recipe = Recipe(scheme=scheme)
    options = RunOptions(timing=None)
    result = quantize(model, samples, tmp_path / "o.onnx", recipe=recipe, options=options)
    inside = result.plan.sites[1]
    if np.isfinite(bad):
        assert inside.decision == scheme
        return
    assert inside.decision == "float"
    assert inside.reason.startswith("weights of the model hold NaN or Inf, and what reaches the")
    for feeds in samples:
        expected, found = run(model, feeds)[0], run(tmp_path / "o.onnx", feeds)[0]
        np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))


def test_nan_in_one_sample_alone(tmp_path: Path) -> None:
    text = """g (float[N, 8] x) => (float[N, 4] y) {
        s = Sqrt(x) a = MatMul(s, w) b = MatMul(x, w) c = Add(a, b) y = MatMul(c, v)
    }"""
    samples = [{"x": np.abs(normal(seed, 20, 8))} for seed in range(10)]
    samples[4]["x"][0, 0] = -1
    options = RunOptions(timing=None, eval_data=[{"x": np.abs(normal(99, 20, 8))}])
    weights = {"w": normal(1, 8, 8), "v": normal(2, 8, 4)}
    model = write(tmp_path / "m.onnx", text, **weights)
    result = quantize(model, samples, tmp_path / "o.onnx", recipe=PLAIN, options=options)
    decisions = [site.decision for site in result.plan.sites]
    assert decisions == ["float", "int8", "float"]
    assert sum("stays float: NaN was seen" in text for text in result.warnings) == 2


def test_a_conv_that_makes_infinite_values_stays_float(tmp_path: Path) -> None:
    """Its output is quantized for all readers, so integers would have made them finite."""
    text = """g (float[N, 2, 6, 6] x) => (float[N, 2, 6, 6] y) {
        c = Conv(x, w) d = Conv(c, w) y = Tanh(d)
    }"""
    samples = [{"x": normal(seed, 1, 2, 6, 6)} for seed in range(6)]
    samples[1]["x"][0, 0, 0, 0] = 1e4
    w = np.asarray([[1e34, 0], [0, 1]], np.float32).reshape(2, 2, 1, 1)
    result = quantized(tmp_path, text, samples, w=w)
    first, second = result.plan.sites
    assert "in its output 'c'" in first.reason
    assert "in its input 'c'" in second.reason


@pytest.mark.parametrize("mask", [-1e9, float(np.finfo(np.float32).min)])
def test_attention_masks(tmp_path: Path, mask: float) -> None:
    text = """g (float[N, 6, 8] x, float[N, 6, 6] mask) => (float[N, 6, 8] y) {
        q = MatMul(x, w) k = MatMul(x, v) t = Transpose<perm = [0, 2, 1]>(k) s = MatMul(q, t)
        a = Add(s, mask) p = Softmax<axis = -1>(a) o = MatMul(p, x) y = MatMul(o, u)
    }"""
    above = np.triu(np.full((2, 6, 6), mask, np.float32), 1)
    samples = [{"x": normal(seed, 2, 6, 8), "mask": above} for seed in range(6)]
    weights = {name: normal(seed, 8, 8) for seed, name in enumerate("wvu")}
    result = quantized(tmp_path, text, samples, **weights)
    assert [site.decision for site in result.plan.sites].count("int8") == 3
    assert sqnr(result) > 15


def test_a_causal_mask_as_a_constant_does_not_hide_the_scores(tmp_path: Path) -> None:
    """Two values have exact integers, but what they are added to would be lost."""
    text = """g (float[N, 2, 6, 6] x) => (float[N, 2, 6, 6] y) {
        a = Conv(x, w) b = Conv(a, w) s = Add(b, mask) d = Conv(s, w) y = Softmax<axis = -1>(d)
    }"""
    above = np.triu(np.full((1, 1, 6, 6), -1e9, np.float32), 1)
    samples = [{"x": normal(seed, 1, 2, 6, 6)} for seed in range(6)]
    w = np.asarray([[1, 0], [0, 1]], np.float32).reshape(2, 2, 1, 1)
    result = quantized(tmp_path, text, samples, w=w, mask=above)
    assert result.plan.constants == ()
    assert "a constant that hides all other values" in reasons(result)[2]
    assert sqnr(result) > 20


def test_the_padding_in_front_of_a_maxpool(tmp_path: Path) -> None:
    text = """g (float[N, 3, 8, 8] x) => (float[N, 4, 1, 1] y) {
        c = Conv(x, w) r = Relu(c) p = Pad(r, pads, low)
        m = MaxPool<kernel_shape = [2, 2]>(p) d = Conv(m, v) y = GlobalAveragePool(d)
    }"""
    weights = {"w": normal(1, 4, 3, 3, 3), "v": normal(2, 4, 4, 1, 1)}
    pads = np.asarray([0, 0, 1, 1, 0, 0, 1, 1], np.int64)
    samples = [{"x": normal(seed, 1, 3, 8, 8)} for seed in range(6)]
    low = np.asarray(-3.4e38, np.float32)
    result = quantized(tmp_path, text, samples, pads=pads, low=low, **weights)
    assert reasons(result) == ["", ""]
    assert sqnr(result) > 25


def test_a_bias_beyond_int32(tmp_path: Path) -> None:
    """Beside such a bias, in units of the scales, products of this size are rounding errors."""
    text = "g (float[N, 8] x) => (float[N, 4] y) { y = Gemm(x, w, b) }"
    b = np.asarray([1e3, 1, 0, -1e6], np.float32)
    w = normal(1, 8, 4) * np.float32(1e-6)
    result = quantized(tmp_path, text, batches(1e-6), w=w, b=b)
    assert any("would not fit into int32" in text for text in result.warnings)
    np.testing.assert_allclose(run(tmp_path / "o.onnx", batches(1e-6)[0])[0][0], b, atol=1e-5)


def test_biases_beyond_int32_are_one_warning(tmp_path: Path) -> None:
    text = """g (float[N, 8] x) => (float[N, 4] y, float[N, 4] z) {
        y = Gemm(x, w, b)
        z = Gemm(x, v, b)
    }"""
    b = np.asarray([1e3, 1, 0, -1e6], np.float32)
    weights = {"w": normal(1, 8, 4) * np.float32(1e-6), "v": normal(2, 8, 4) * np.float32(1e-7)}
    result = quantized(tmp_path, text, batches(1e-6), b=b, **weights)
    (said,) = [text for text in result.warnings if "would not fit into int32" in text]
    assert said.startswith("v: ")
    assert said.endswith("; 1 more of the weights likewise, by less")


def test_a_bias_that_leaves_nothing_of_the_weights(tmp_path: Path) -> None:
    """The bias cancels against a second one behind, so the products are what counts."""
    text = """g (float[N, 8] x) => (float[N, 4] y) {
        h = Gemm(x, w, b) n = Neg(b2) c = Add(h, n) y = Tanh(c)
    }"""
    b = np.full(4, 2.0**20, np.float32)
    result = quantized(tmp_path, text, batches(1e-5), w=normal(1, 8, 4), b=b, b2=b)
    assert reasons(result) == [""]
    assert any("would not fit into int32" in text for text in result.warnings)


def test_lengths_that_differ_and_empty_activations(tmp_path: Path) -> None:
    """One sample has no row that passes the filter: its activation is empty."""
    text = """g (float[N, 8] x) => (float[M, 4] y) {
        s = ReduceSum<keepdims = 0>(x, axes) c = Greater(s, zero) k = Compress<axis = 0>(x, c)
        y = MatMul(k, w)
    }"""
    rows = [1, 1, 300, 3, 700, 2]
    samples = [{"x": np.abs(normal(seed, count, 8))} for seed, count in enumerate(rows)]
    samples[1]["x"] *= -1
    constants: dict[str, Any] = {"axes": np.asarray([1], np.int64), "zero": np.float32(0)}
    result = quantized(tmp_path, text, samples, w=normal(1, 8, 4), **constants)
    assert reasons(result) == [""]
    assert sqnr(result) > 20
    for scheme in SCHEMES[1:]:
        recipe, options = Recipe(scheme=scheme), RunOptions(timing=None)
        output = tmp_path / f"{scheme}.onnx"
        result = quantize(tmp_path / "m.onnx", samples, output, recipe=recipe, options=options)
        assert reasons(result) == [""]
        assert sqnr(result) > 20


@pytest.mark.parametrize("k", [np.zeros((1, 4, 1, 1), np.float32), normal(3, 1, 4, 6, 6)])
def test_a_constant_in_a_residual_add(tmp_path: Path, k: NDArray[np.float32]) -> None:
    """It becomes integers, so that the region around it stays whole."""
    text = """g (float[N, 4, 6, 6] x) => (float[N, 4, 6, 6] y) {
        c = Conv(x, w) r = Relu(c) s = Add(r, k) d = Conv(s, v) t = Add(d, s) e = Conv(t, w)
        y = Tanh(e)
    }"""
    samples = [{"x": normal(seed, 1, 4, 6, 6)} for seed in range(6)]
    weights = {"w": normal(1, 4, 4, 1, 1) / 2, "v": normal(2, 4, 4, 1, 1) / 2}
    result = quantized(tmp_path, text, samples, k=k, **weights)
    assert reasons(result) == [""] * 3
    assert [entry.initializer for entry in result.plan.constants] == ["k"]
    assert sqnr(result) > 20
