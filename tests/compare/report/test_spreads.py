"""Distributions before and after: counts add up, and integers are read as what they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.compare.report import ReportLimits
from onnxq.compare.report.layers import measure_layers
from onnxq.compare.report.matching import match
from onnxq.compare.report.spreads import measure_spreads, most_telling, spread
from onnxq.compare.report.weights import stored_weight
from onnxq.graph.normalize import normalize
from onnxq.numerics.float8 import to_e4m3
from onnxq.numerics.histogram import FloatHistogram
from onnxq.numerics.packing import pack_blocks, pack_zero_points
from tests.small_models import normalized, proto, run, source

RANDOM = np.random.default_rng(3)
LINEAR = "g (float[n, 32] x) => (float[n, 6] y) { y = MatMul(x, w) }"
WEIGHT = RANDOM.standard_normal((32, 6)).astype(np.float32)
SAMPLES = [{"x": RANDOM.standard_normal((5, 32)).astype(np.float32)} for _ in range(3)]
SCALE = (np.abs(WEIGHT).max(axis=0) / 127).astype(np.float32)
INTEGERS = np.clip(np.round(WEIGHT / SCALE), -127, 127).astype(np.int8)


def test_counts_in_equal_bins_add_up() -> None:
    values = np.concatenate([RANDOM.standard_normal(1000), [0, 0, -7.5, 9.25]]).astype(np.float32)
    histogram = FloatHistogram()
    histogram.add(values)
    edges = np.linspace(-7.6, 9.3, 41)
    found = spread(histogram, edges)
    assert found.counts.sum() == pytest.approx(values.size)
    assert found.total == values.size
    # A value lies in another bin only where its own bin, 1/512 of it wide, meets an edge.
    assert np.abs(found.counts - np.histogram(values, edges)[0]).max() < 3
    assert (found.low, found.high) == (-7.5, 9.25)
    assert found.mean == pytest.approx(values.mean(), abs=2e-3)
    assert found.deviation == pytest.approx(values.std(), rel=2e-3)
    assert found.quantiles[1] == pytest.approx(np.median(values), abs=5e-3)


@pytest.mark.parametrize("value", [0.0, -2.0, 3e-40])
def test_one_value_is_counted(value: float) -> None:
    histogram = FloatHistogram()
    histogram.add(np.full(5, value, np.float32))
    edges = np.linspace(value - 1e-6, value + 1e-6, 9)
    assert spread(histogram, edges).counts.sum() == 5


def _both(other: ir.Model) -> Any:
    one = normalized(LINEAR, w=WEIGHT)
    data = source(one, SAMPLES)
    found = measure_layers(one, other, match(one, other, 9), data, ReportLimits())
    (pair,) = measure_spreads(one, other, most_telling(one, found, 4), data)
    return pair


def test_weight_and_output_before_and_after() -> None:
    text = (
        "g (float[n, 32] x) => (float[n, 6] y) {"
        " d = DequantizeLinear<axis=1>(i, s, z) y = MatMul(x, d) }"
    )
    other = normalized(text, i=INTEGERS, s=SCALE, z=np.zeros(6, np.int8))
    other.graph.node(1).name = normalized(LINEAR, w=WEIGHT).graph.node(0).name
    pair = _both(other)
    assert pair.why_no_weight == ""
    assert pair.weight.before.total == pair.weight.after.total == WEIGHT.size
    assert pair.weight.before.counts.sum() == pytest.approx(WEIGHT.size)
    assert pair.weight.after.high == pytest.approx((INTEGERS * SCALE).max())
    assert pair.output.before.total == sum(5 * 6 for _ in SAMPLES)
    expected = np.concatenate([run(other, sample)[0] for sample in SAMPLES])
    assert pair.output.after.low == pytest.approx(expected.min(), rel=1e-5)
    assert pair.output.after.deviation == pytest.approx(expected.std(), rel=1e-2)


def test_a_weight_in_float8_is_read_as_what_it_stands_for() -> None:
    text = LINEAR.replace("y = MatMul(x, w)", "d = DequantizeLinear<axis=1>(i, s) y = MatMul(x, d)")
    scale = (np.abs(WEIGHT).max(axis=0) / 448).astype(np.float32)
    stored = to_e4m3(WEIGHT / scale)
    model = proto(text, i=stored, s=scale)
    model.ir_version, model.opset_import[0].version = 10, 21
    other = normalize(ir.serde.deserialize_model(model)).model
    other.graph.node(1).name = normalized(LINEAR, w=WEIGHT).graph.node(0).name
    pair = _both(other)
    assert pair.why_no_weight == ""
    assert pair.weight.after.total == WEIGHT.size
    exact = stored.astype(np.float32) * scale
    assert (pair.weight.after.low, pair.weight.after.high) == (exact.min(), exact.max())


def test_a_layer_without_a_weight_says_so() -> None:
    one = normalized("g (float[n, 32] x) => (float[n, 32] y) { y = Neg(x) }")
    other = normalized("g (float[n, 32] x) => (float[n, 32] y) { a = Neg(x) y = Floor(a) }")
    data = source(one, SAMPLES)
    found = measure_layers(one, other, match(one, other, 9), data, ReportLimits())
    (pair,) = measure_spreads(one, other, most_telling(one, found, 4), data)
    assert pair.weight is None
    assert pair.why_no_weight == "this layer has no weight"


def _node(op: str, domain: str, inputs: list[Any], attributes: Any = None) -> ir.Node:
    values = [ir.val("x"), *(None if a is None else _constant(a) for a in inputs)]
    return ir.node(op, values, attributes or {}, domain=domain)


def _constant(array: np.ndarray[Any, Any]) -> ir.Value:
    value = ir.val("c", const_value=ir.tensor(array))
    ir.Graph([], [], nodes=[], initializers=[value])
    return value


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("with_zero", [True, False])
def test_blocks_are_unpacked(bits: int, with_zero: bool) -> None:
    rows, length, size = 5, 40, 16
    integers = RANDOM.integers(0, 1 << bits, (rows, length)).astype(np.uint8)
    scale = RANDOM.random((rows, 3)).astype(np.float32)
    zero = RANDOM.integers(0, 1 << bits, (rows, 3)).astype(np.uint8)
    middle = zero if with_zero else np.full_like(zero, 1 << (bits - 1))
    expected = [
        [
            (int(integers[n, k]) - int(middle[n, k // size])) * scale[n, k // size]
            for n in range(rows)
        ]
        for k in range(length)
    ]
    packed = [pack_blocks(integers, bits, size), scale.reshape(-1)]
    if with_zero:
        packed.append(pack_zero_points(zero, bits).reshape(-1))
    attributes = {"K": length, "N": rows, "bits": bits, "block_size": size}
    found = stored_weight(_node("MatMulNBits", "com.microsoft", packed, attributes))
    assert found is not None
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_integers_beside_their_scale_are_multiplied_out() -> None:
    zero = np.full(6, 3, np.int8)
    expected = (INTEGERS.astype(np.float32) - 3) * SCALE
    inputs = [None, None, INTEGERS, SCALE, zero, None, None]
    found = stored_weight(_node("QLinearMatMul", "", inputs))
    assert found is not None
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    kernel = INTEGERS.T.reshape(6, 32, 1, 1)
    found = stored_weight(_node("QLinearConv", "", [None, None, kernel, SCALE, zero, None, None]))
    assert found is not None
    np.testing.assert_allclose(found, expected.T.reshape(6, 32, 1, 1), rtol=1e-6)


def test_the_scale_of_a_product_of_integers_is_found_behind_it() -> None:
    text = (
        "g (float[n, 32] x) => (float[n, 6] y) { q, qs, qz = DynamicQuantizeLinear(x)"
        " p = MatMulInteger(q, i, qz) c = Cast<to=1>(p) f = Mul(qs, s) y = Mul(c, f) }"
    )
    model = normalized(text, i=INTEGERS, s=SCALE)
    node = next(node for node in model.graph if node.op_type == "MatMulInteger")
    found = stored_weight(node)
    assert found is not None
    np.testing.assert_allclose(found, INTEGERS * SCALE, rtol=1e-6)
    assert stored_weight(next(n for n in model.graph if n.op_type == "Cast")) is None
