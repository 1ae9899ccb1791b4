"""The error of each layer: against numpy, and with a planted error that must be named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.compare.report import ReportLimits
from onnxq.compare.report.layers import measure_layers
from onnxq.compare.report.matching import as_read, match, nearest
from onnxq.graph.edit import value_by_name
from tests.small_models import normalized, proto, run, source

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxq.compare.report.layers import LayerErrors

RANDOM = np.random.default_rng(7)
CHAIN = (
    "g (float[n, 8] x) => (float[n, 8] y) {"
    " a = MatMul(x, w0) b = Relu(a) c = MatMul(b, w1) d = Relu(c) e = MatMul(d, w2) y = Relu(e) }"
)
WEIGHTS = {f"w{i}": RANDOM.standard_normal((8, 8)).astype(np.float32) for i in range(3)}
SAMPLES = [{"x": RANDOM.standard_normal((24, 8)).astype(np.float32)} for _ in range(4)]
EVERYTHING = ReportLimits()


def _measure(
    reference: ir.Model, other: ir.Model, limits: ReportLimits = EVERYTHING, **more: Any
) -> LayerErrors:
    samples = more.get("samples", SAMPLES)
    matches = match(reference, other, limits.layers)
    return measure_layers(reference, other, matches, source(reference, samples), limits)


def _changed(name: str, factor: NDArray[np.float32] | float) -> dict[str, NDArray[np.float32]]:
    return {**WEIGHTS, name: (WEIGHTS[name] * factor).astype(np.float32)}


@pytest.mark.parametrize("planted", ["w0", "w1", "w2"])
def test_the_layer_with_a_planted_error_is_named_worst(planted: str) -> None:
    noise = 1 + 0.3 * RANDOM.standard_normal((8, 8))
    found = _measure(
        normalized(CHAIN, **WEIGHTS),
        normalized(CHAIN, **_changed(planted, noise.astype(np.float32))),
    )
    worst = found.worst_first[0]
    assert worst.layer.tensor == {"w0": "a", "w1": "c", "w2": "e"}[planted]
    assert worst.layer.op == "MatMul"
    assert worst.before_db == np.inf
    assert [e.layer.place for e in found.layers] == [1, 2, 3, 4, 5, 6]


def test_errors_are_those_of_the_definition() -> None:
    small = _changed("w1", 1.01)
    one, other = normalized(CHAIN, **WEIGHTS), normalized(CHAIN, **small)
    found = {error.layer.tensor: error for error in _measure(one, other).layers}
    x = np.concatenate([sample["x"] for sample in SAMPLES]).astype(np.float64)
    hidden = np.maximum(x @ WEIGHTS["w0"].astype(np.float64), 0)
    right, wrong = (hidden @ w["w1"].astype(np.float64) for w in (WEIGHTS, small))
    noise, signal = np.sum((right - wrong) ** 2), np.sum(right**2)
    assert found["c"].sqnr_db == pytest.approx(10 * np.log10(signal / noise), abs=1e-2)
    assert found["c"].step == pytest.approx(noise / (noise + signal), rel=1e-2)
    assert found["a"].sqnr_db == np.inf
    assert found["a"].step == 0


def test_passes_within_a_small_memory_find_the_same() -> None:
    one, other = normalized(CHAIN, **WEIGHTS), normalized(CHAIN, **_changed("w1", 1.1))
    whole = _measure(one, other)
    parts = _measure(one, other, ReportLimits(memory=1))
    assert parts == whole


def test_every_layer_gets_a_sample_when_the_time_is_up() -> None:
    one, other = normalized(CHAIN, **WEIGHTS), normalized(CHAIN, **_changed("w1", 1.1))
    found = _measure(one, other, ReportLimits(seconds=0.0))
    assert found.samples == (1, 1)
    assert len(found.layers) == 6


def test_a_tensor_stored_at_other_scales_is_told_from_a_wrong_one() -> None:
    factor = np.exp(2 * RANDOM.standard_normal(8)).astype(np.float32)
    scaled = {**WEIGHTS, "w0": WEIGHTS["w0"] * factor, "w1": WEIGHTS["w1"] / factor[:, None]}
    wrong = {**scaled, "w1": scaled["w1"] * np.float32(1.02)}
    found = _measure(normalized(CHAIN, **WEIGHTS), normalized(CHAIN, **wrong))
    assert [e.layer.tensor for e in found.layers if e.rescaled] == ["a", "b"]
    assert found.worst_first[0].layer.tensor == "c"
    assert found.worst_first[0].before_db == np.inf


def test_factors_that_nothing_takes_back_are_an_error() -> None:
    factor = np.exp(2 * RANDOM.standard_normal(8)).astype(np.float32)
    found = _measure(normalized(CHAIN, **WEIGHTS), normalized(CHAIN, **_changed("w0", factor)))
    assert not any(error.rescaled for error in found.layers)
    assert found.worst_first[0].layer.tensor == "a"


def test_a_layer_that_gives_nan_is_worst() -> None:
    broken = WEIGHTS["w1"].copy()
    broken[0, 0] = np.nan
    found = _measure(normalized(CHAIN, **WEIGHTS), normalized(CHAIN, **{**WEIGHTS, "w1": broken}))
    worst = found.worst_first[0]
    assert worst.layer.tensor == "c"
    assert np.isnan(worst.sqnr_db)
    assert worst.step == 1


def test_what_readers_read_is_compared() -> None:
    plain = "g (float[n, 8] x) => (float[n, 8] y) { a = MatMul(x, w0) b = Relu(a) y = Neg(b) }"
    # The Relu is in the quantizer: before it, b still holds what is below zero.
    pair = (
        "g (float[n, 8] x) => (float[n, 8] y) { b = MatMul(x, w0) q = QuantizeLinear(b, s, z)"
        " r = DequantizeLinear(q, s, z) y = Neg(r) }"
    )
    scale, zero = np.float32(0.05), np.uint8(0)
    one = normalized(plain, w0=WEIGHTS["w0"])
    other = normalized(pair, w0=WEIGHTS["w0"], s=np.asarray(scale), z=np.asarray(zero))
    assert as_read(value_by_name(other.graph)["b"]) == "r"
    found = {error.layer.tensor: error for error in _measure(one, other).layers}
    right = np.concatenate([run(one, sample)[0] for sample in SAMPLES])
    wrong = np.concatenate([run(other, sample)[0] for sample in SAMPLES])
    expected = 10 * np.log10(np.sum(right**2) / np.sum((right - wrong) ** 2))
    assert found["b"].sqnr_db == pytest.approx(expected, abs=1e-2)
    assert expected > 20


def test_a_quantized_input_is_a_layer_of_its_own() -> None:
    pair = (
        "g (float[n, 8] x) => (float[n, 8] y) { q = QuantizeLinear(x, s, z)"
        " r = DequantizeLinear(q, s, z) y = MatMul(r, w0) }"
    )
    plain = "g (float[n, 8] x) => (float[n, 8] y) { y = MatMul(x, w0) }"
    constants: dict[str, NDArray[Any]] = {
        "s": np.asarray(np.float32(0.5)),
        "z": np.asarray(np.uint8(128)),
    }
    one = normalized(plain, w0=WEIGHTS["w0"])
    found = _measure(one, normalized(pair, w0=WEIGHTS["w0"], **constants))
    image, product = found.layers
    assert (image.layer.tensor, image.layer.op, image.layer.place) == ("x", "input", 0)
    assert product.layer.sources == ("x",)
    assert image.step > abs(product.step)


def test_padded_positions_are_left_out() -> None:
    text = "g (float[1, s, 4] x, int64[1, s] attention_mask) => (float[1, s, 4] y) {"
    mask = " m = Cast<to=1>(attention_mask) u = Unsqueeze(m, two) k = Mul(u, zero) v = Add(x, k)"
    one = normalized(f"{text}{mask} y = Add(v, c) }}", **_constants(0.0))
    other = normalized(f"{text}{mask} y = Add(v, c) }}", **_constants(0.0))
    x = np.ones((1, 3, 4), np.float32)
    feeds = {"x": x, "attention_mask": np.asarray([[1, 1, 0]], np.int64)}
    found = _measure(one, other, samples=[feeds])
    assert all(error.sqnr_db == np.inf for error in found.layers)
    worse = normalized(f"{text}{mask} y = Add(v, c) }}", **_constants(1.0))
    # Only the last position differs, and it is padding.
    assert _measure(one, worse, samples=[feeds]).layers[-1].sqnr_db == np.inf


def _constants(last: float) -> dict[str, NDArray[Any]]:
    added = np.zeros((1, 3, 4), np.float32)
    added[:, -1] = last
    two, zero = np.asarray([2], np.int64), np.zeros((1, 1, 1), np.float32)
    return {"c": added, "two": two, "zero": zero}


def test_of_many_layers_those_with_weights_and_outputs_are_kept() -> None:
    nodes = " ".join(f"r{i + 1} = Relu(r{i})" for i in range(40))
    text = f"g (float[n, 8] x) => (float[n, 8] y) {{ r0 = MatMul(x, w0) {nodes} y = Neg(r40) }}"
    model = normalized(text, w0=WEIGHTS["w0"])
    kept = match(model, model, 8)
    assert len(kept) == 8
    assert {"r0", "y"} <= {found.tensor for found in kept}
    assert kept[1].sources == ("r0",)


def test_a_model_that_was_made_of_the_given_one_is_compared_with_that() -> None:
    """Normalizing folds the normalization: the Conv then gives other values under its name."""
    text = """g (float[1, 2, 4, 4] x) => (float[1, 2, 2, 2] y) {
        one = Constant<value_float = 1.0>() two = Constant<value_float = 2.0>()
        p = Add(one, two) q = Mul(p, two) c = Conv(x, w) b = BatchNormalization(c, s, t, m, v)
        y = Mul(b, q)
    }"""
    constants = {
        "w": RANDOM.standard_normal((2, 2, 3, 3)).astype(np.float32),
        **{
            name: np.full(2, value, np.float32)
            for name, value in zip("stmv", (9, 1, 0, 4), strict=True)
        },
    }
    given = ir.serde.deserialize_model(proto(text, **constants))
    folded = normalized(text, **constants)
    assert "BatchNormalization" not in {node.op_type for node in folded.graph}
    sample = [{"x": RANDOM.standard_normal((1, 2, 4, 4)).astype(np.float32)}]
    for other, right in ((given, given), (folded, folded)):
        reference, matches = nearest((folded, given), other, 3)
        assert reference is right
        assert "y" in {found.tensor for found in matches}
        data = source(reference, sample)
        found = measure_layers(reference, other, matches, data, ReportLimits())
        assert {error.sqnr_db for error in found.layers} == {np.inf}
    assert {found.tensor for found in match(given, given, 3)} == {"c", "b", "y"}
