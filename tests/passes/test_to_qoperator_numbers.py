"""Operators on integers against the QDQ form: the same kernels, hence the same bits.

uint8 activations. With int8 ones ONNX Runtime turns the QDQ form into uint8 first, whose
kernels round a few halves the other way: one step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxq.graph.io import to_bytes
from onnxq.passes.to_qoperator import kept_in_pairs
from onnxq.runtime.kernels import count_kernels
from tests.passes.qdq_text import SCALES, pair, qdq, written
from tests.small_models import normal, run

if TYPE_CHECKING:
    from numpy.typing import NDArray

INDICES: dict[str, NDArray[Any]] = {
    "to": np.asarray([2, -1]),
    "one": np.asarray([1]),
    "three": np.asarray([3]),
    "bigger": np.asarray([1, 2, 4, 6, 6]),
    "times": np.asarray([1, 2, 1, 1]),
    "axes": np.asarray([2, 3]),
    "twice": np.asarray([1, 1, 2, 2], np.float32),
    "zero": np.asarray(0, np.float32),
}
OTHER = "o = Mul(x_d, x_d)\n" + pair("o", 3)
ELEMENTWISE = {
    "Add": f"{OTHER} t = Add(x_d, o_d)",
    "Mul": f"{OTHER} t = Mul(x_d, o_d)",
    "Sigmoid": "t = Sigmoid(x_d)",
    "LeakyRelu": "t = LeakyRelu<alpha = 0.2>(x_d)",
    "AveragePool": "t = AveragePool<kernel_shape = [2, 2], pads = [1, 1, 0, 0]>(x_d)",
    "AveragePool, padding": "t = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], "
    "count_include_pad = 1>(x_d)",
    "AveragePool, ceil": "t = AveragePool<kernel_shape = [4, 4], strides = [4, 4], "
    "ceil_mode = 1>(x_d)",
    "GlobalAveragePool": "t = GlobalAveragePool(x_d)",
    "Softmax": "t = Softmax(x_d)",
    "Softmax, axis": "t = Softmax<axis = 1>(x_d)",
    "Concat": f"{OTHER} t = Concat<axis = 1>(x_d, o_d)",
    "Where": f"{OTHER} k = Less(x, zero) \n t = Where(k, x_d, o_d)",
    "MatMul": "t = MatMul(x_d, x_d)",
}
MOVEMENT = {
    "MaxPool": "t = MaxPool<kernel_shape = [2, 2], strides = [2, 2], pads = [1, 1, 1, 1]>(x_d)",
    "Transpose": "t = Transpose<perm = [0, 2, 3, 1]>(x_d)",
    "Flatten": "t = Flatten(x_d)",
    "Reshape": "t = Reshape(x_d, to)",
    "Slice": "t = Slice(x_d, one, three, one)",
    "Gather": "t = Gather<axis = 1>(x_d, one)",
    "Expand": "t = Expand(x_d, bigger)",
    "Tile": "t = Tile(x_d, times)",
    "Resize": 't = Resize<mode = "nearest">(x_d, , twice)',
    "DepthToSpace": "t = DepthToSpace<blocksize = 2>(x_d)",
    "ReduceMax": "t = ReduceMax<axes = [2, 3]>(x_d)",
    "Unsqueeze": "t = Unsqueeze(x_d, one)",
    "Squeeze": "u = Unsqueeze(x_d, one)\n" + pair("u", 1) + "t = Squeeze(u_d, one)",
    "Split": "t, b = Split<axis = 1>(x_d)\n" + pair("b", 1) + "b_o = Add(b_d, b_d)",
}
STAYING = {
    "Transpose": ("t = Transpose(x_d)", 2, "does not have the scale of its input"),
    "Resize": ('t = Resize<mode = "linear">(x_d, , twice)', 1, "it interpolates"),
}
FEEDS = {"x": 2 * normal(5, 2, 4, 6, 6)}


def model_of(body: str, output: int = 2, **more: Any) -> ir.Model:
    return qdq(body, output, {k: v for k, v in INDICES.items() if f" {k}" in body}, **more)


def same_bits(model: ir.Model) -> ir.Model:
    """Both forms fully optimized, and the one on integers as it is written."""
    result = written(model)
    onnx.checker.check_model(ir.serde.serialize_model(result), full_check=True)
    expected = run(model, FEEDS, "all")[0]
    assert np.array_equal(run(result, FEEDS, "all")[0], expected)
    assert np.array_equal(run(result, FEEDS, "none")[0], expected)
    assert count_kernels(to_bytes(result)) == count_kernels(to_bytes(model))
    return result


def ops(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize("opset", [13, 21])
@pytest.mark.parametrize("body", ELEMENTWISE.values(), ids=ELEMENTWISE)
def test_nodes_that_calculate(body: str, opset: int) -> None:
    result = same_bits(model_of(body, opset=opset))
    assert ops(result).count("DequantizeLinear") == 1
    assert ops(result).count("QuantizeLinear") == 1
    assert count_kernels(to_bytes(result)).integer >= 1
    assert kept_in_pairs(result) == ()


@pytest.mark.parametrize("body", MOVEMENT.values(), ids=MOVEMENT)
def test_nodes_that_move_data(body: str) -> None:
    result = same_bits(model_of(body, output=1))
    assert "QuantizeLinear" not in ops(result)[1:]
    assert kept_in_pairs(result) == ()


@pytest.mark.parametrize(("body", "output", "reason"), STAYING.values(), ids=STAYING)
def test_what_stays_between_pairs_says_why(body: str, output: int, reason: str) -> None:
    model = model_of(body, output, opset=19)
    result = same_bits(model)
    assert ops(result) == ops(model)
    (said,) = kept_in_pairs(result)
    assert reason in said
    assert said.startswith(f"1 {body.split('= ')[1].split('(')[0].split('<')[0]} (")


def test_what_no_plan_meant_to_run_in_integers_stays_without_a_word() -> None:
    model = model_of("t = Sub(x_d, x_d)", 2)
    result = same_bits(model)
    assert ops(result) == ops(model)
    assert kept_in_pairs(result) == ()


def test_an_average_over_dilated_windows_stays() -> None:
    """ONNX Runtime makes of the QDQ form, fully optimized, what it does not load itself."""
    model = model_of("t = AveragePool<kernel_shape = [2, 2], dilations = [2, 2]>(x_d)", opset=19)
    assert "it has dilations" in kept_in_pairs(written(model))[0]
    model = model_of("t = AveragePool<kernel_shape = [2, 2], dilations = [1, 1]>(x_d)", opset=19)
    found = run(written(model), FEEDS, "all")[0]
    assert np.abs(found - run(model, FEEDS, "none")[0]).max() <= 1.001 * SCALES["s2"]


@pytest.mark.parametrize("body", ELEMENTWISE.values(), ids=ELEMENTWISE)
def test_int8_within_a_step(body: str) -> None:
    model = model_of(body, dtype=np.int8)
    result = written(model)
    found, expected = run(result, FEEDS, "all")[0], run(model, FEEDS, "all")[0]
    assert np.abs(found - expected).max() <= 1.001 * SCALES["s2"]
    assert count_kernels(to_bytes(result)).integer >= 1


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_gemm_with_a_factor(factor: float) -> None:
    """alpha goes along; the bias is in units of all three factors."""
    scale = normal(0, 5).clip(0.01, 1).astype(np.float32)
    model = qdq(
        f"""
        w_d = DequantizeLinear<axis = 0>(w, sw, zw)
        b_d = DequantizeLinear<axis = 0>(b, sb, zb)
        t = Gemm<alpha = {factor}, transA = 1, transB = 1>(x_d, w_d, b_d)
        """,
        constants={
            "w": np.arange(-15, 15, dtype=np.int8).reshape(5, 6),
            "sw": scale,
            "zw": np.zeros(5, np.int8),
            "b": np.asarray([9, -7, 100, 0, 3], np.int32),
            "sb": np.float32(factor * 0.03) * scale,
            "zb": np.zeros(5, np.int32),
        },
        shape="6, 4",
    )
    feeds = {"x": normal(2, 6, 4)}
    result = written(model)
    assert ops(result) == ["QuantizeLinear", "QGemm", "DequantizeLinear"]
    plain = run(model, feeds, "none")[0]
    assert np.abs(run(result, feeds, "none")[0] - plain).max() <= 1.001 * SCALES["s2"]


def test_mixed_types_stay() -> None:
    """A uint8 and an int8 activation have no common operator."""
    model = qdq(
        "o_q = QuantizeLinear(x, so, zo)\no_d = DequantizeLinear(o_q, so, zo)\nt = Add(x_d, o_d)",
        constants={"so": np.asarray(0.03, np.float32), "zo": np.asarray(3, np.int8)},
    )
    result = same_bits(model)
    assert "it mixes int8 and uint8" in kept_in_pairs(result)[0]


def test_a_channel_of_next_to_nothing_has_a_bias_in_its_units() -> None:
    """The product of its scales is subnormal, and its last bit more than a millionth of it."""
    scales = np.asarray([0.01, 1.2e-38], np.float32)
    model = qdq(
        """
        w_d = DequantizeLinear<axis = 0>(w, sw, zw)
        b_d = DequantizeLinear<axis = 0>(b, sb, zb)
        t = Conv(x_d, w_d, b_d)
        """,
        constants={
            "w": np.ones((2, 4, 1, 1), np.int8),
            "sw": scales,
            "zw": np.zeros(2, np.int8),
            "b": np.asarray([1, -312], np.int32),
            "sb": scales * np.float32(SCALES["s1"]),
            "zb": np.zeros(2, np.int32),
        },
    )
    assert "QLinearConv" in ops(same_bits(model))


def test_a_bias_in_other_units_keeps_its_site_float() -> None:
    model = qdq(
        """
        w_d = DequantizeLinear(w, s3, zw)
        b_d = DequantizeLinear(b, s3, zb)
        t = Conv(x_d, w_d, b_d)
        """,
        constants={
            "w": np.ones((2, 4, 1, 1), np.int8),
            "zw": np.asarray(0, np.int8),
            "b": np.asarray([1, 2], np.int32),
            "zb": np.asarray(0, np.int32),
        },
    )
    assert "in units of" in kept_in_pairs(written(model))[0]
