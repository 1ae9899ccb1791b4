"""Golden graphs of the form on integers: plans from given statistics, executed."""

from __future__ import annotations

from dataclasses import replace
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.graph.edit import constant_array
from onnxq.graph.io import save, to_bytes
from onnxq.numerics.schemes import WEIGHT_INT8
from onnxq.passes.execute import execute
from onnxq.passes.to_qoperator import kept_in_pairs
from onnxq.verify.kernels import report_kernels
from onnxq.verify.structure import check_structure
from tests.given_stats import plan_for
from tests.small_models import graph_text, normal, normalized, run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx_ir as ir

    from onnxq.numerics.schemes import Scheme
    from onnxq.plan import Plan

Ranges = dict[str, tuple[float, float]]

SEVEN_BITS = replace(WEIGHT_INT8, bits=7)
CONVS = """
g (float[N, 3, 8, 8] x) => (float[N, 2, 6, 6] y) {
    c = Conv(x, w1, b1)
    r = Relu(c)
    d = Conv(r, w2)
    y = Sigmoid(d)
}"""
CONV_RANGES: Ranges = {"x": (-1, 1), "r": (0, 4), "d": (-3, 3)}
CONV_SHAPES = {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (2, 4, 1, 1)}


Constants = tuple[int, ...] | np.ndarray[Any, Any]


def both(graph: str, ranges: Ranges, **shapes: Constants) -> tuple[ir.Model, ir.Model, Plan]:
    """The QDQ form, the form on integers and its plan; weights are random in the given shapes."""
    return both_with(WEIGHT_INT8, graph, ranges, shapes)


def both_with(
    weight: Scheme, graph: str, ranges: Ranges, shapes: Mapping[str, Constants]
) -> tuple[ir.Model, ir.Model, Plan]:
    """As :func:`both`, with other integers for weights."""
    constants = {
        name: normal(seed, *shape) if isinstance(shape, tuple) else shape
        for seed, (name, shape) in enumerate(shapes.items())
    }
    model = normalized(graph, **constants)
    plan = plan_for(model, ranges, weight=weight)
    integers = plan.model_copy(update={"format": "qoperator"})
    return execute(plan, model), execute(integers, model), integers


def text(lines: str) -> str:
    return dedent(lines).strip()


def same_bits(qdq: ir.Model, integers: ir.Model, *shape: int) -> None:
    """The QDQ form fully optimized, the form on integers fully and not at all."""
    feeds = {"x": normal(99, *shape)}
    expected = run(qdq, feeds, "all")
    for level in ("all", "none"):
        for found, wanted in zip(run(integers, feeds, level), expected, strict=True):
            assert np.array_equal(found, wanted)


def all_in_integers(model: ir.Model, plan: Plan, folder: Path) -> None:
    path = folder / "m.onnx"
    save(model, path)
    check_structure(path, path)
    found = report_kernels(path, plan, {})
    assert found.planned == len([r for entry in plan.weights for r in entry.readers])
    assert (found.integer, found.missed) == (found.planned, ())


def test_conv_relu_conv(tmp_path: Path) -> None:
    qdq, integers, plan = both(CONVS, CONV_RANGES, **CONV_SHAPES)
    expected = """
        QuantizeLinear(x, x_scale, x_zero_point) -> x_quantized
        QLinearConv(x_quantized, x_scale, x_zero_point, w1_quantized, w1_scale, w1_zero_point, \
r_scale, r_zero_point, b1_quantized) -> r_quantized
        QLinearConv(r_quantized, r_scale, r_zero_point, w2_quantized, w2_scale, w2_zero_point, \
d_scale, d_zero_point) -> d_quantized
        DequantizeLinear(d_quantized, d_scale, d_zero_point) -> d_dequantized
        Sigmoid(d_dequantized) -> y
        """
    assert graph_text(integers) == text(expected)
    # QLinearConv is ONNX's own: nothing else is imported. What nobody reads any more is gone.
    assert dict(integers.opset_imports) == dict(qdq.opset_imports)
    assert {"b1_scale", "b1_zero_point", "w1", "b1"}.isdisjoint(integers.graph.initializers)
    assert kept_in_pairs(integers) == ()
    assert integers.metadata_props["onnxq.format"] == "qoperator"
    same_bits(qdq, integers, 2, 3, 8, 8)
    all_in_integers(integers, plan, tmp_path)


def test_residual_pool_and_gemm(tmp_path: Path) -> None:
    qdq, integers, plan = both(
        """
        g (float[N, 4, 8, 8] x) => (float[N, 5] y) {
            a = Conv(x, w1)
            b = Conv(a, w2)
            s = Add(a, b)
            p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(s)
            q = Reshape(p, to)
            y = Gemm(q, w3, b3)
        }
        """,
        {"x": (-1, 1), "a": (-2, 2), "b": (-3, 3), "s": (-5, 5)},
        w1=(4, 4, 1, 1),
        w2=(4, 4, 1, 1),
        w3=(64, 5),
        b3=(5,),
        to=np.asarray([0, 64]),
    )
    expected = """
        QuantizeLinear(x, x_scale, x_zero_point) -> x_quantized
        QLinearConv(x_quantized, x_scale, x_zero_point, w1_quantized, w1_scale, w1_zero_point, \
a_scale, a_zero_point) -> a_quantized
        QLinearConv(a_quantized, a_scale, a_zero_point, w2_quantized, w2_scale, w2_zero_point, \
b_scale, b_zero_point) -> b_quantized
        QLinearAdd(a_quantized, a_scale, a_zero_point, b_quantized, b_scale, b_zero_point, \
s_scale, s_zero_point) -> s_quantized
        MaxPool(s_quantized) -> p_quantized
        Reshape(p_quantized, to) -> q_quantized
        QGemm(q_quantized, q_scale, q_zero_point, w3_quantized, w3_scale, w3_zero_point, \
b3_quantized) -> y
        """
    assert graph_text(integers) == text(expected)
    assert integers.opset_imports["com.microsoft"] == 1
    assert {node.domain for node in integers.graph} == {"", "com.microsoft"}
    same_bits(qdq, integers, 2, 4, 8, 8)
    all_in_integers(integers, plan, tmp_path)


def test_products_and_their_biases(tmp_path: Path) -> None:
    """A matrix becomes QGemm with its bias; a batch of matrices takes the bias in float."""
    qdq, integers, plan = both(
        """
        g (float[N, 8] x) => (float[N, 1, 3] y) {
            m = MatMul(x, w1)
            a = Add(m, b1)
            r = Relu(a)
            n = MatMul(r, w2)
            u = Unsqueeze(n, one)
            y = MatMul(u, w3)
        }
        """,
        {"x": (-2, 2), "r": (0, 6), "u": (-20, 20)},
        w1=(8, 6),
        b1=(6,),
        w2=(6, 4),
        w3=(4, 3),
        one=np.asarray([1]),
    )
    expected = """
        QuantizeLinear(x, x_scale, x_zero_point) -> x_quantized
        QGemm(x_quantized, x_scale, x_zero_point, w1_quantized, w1_scale, w1_zero_point, \
b1_quantized) -> a
        Relu(a) -> r
        QuantizeLinear(r, r_scale, r_zero_point) -> r_quantized
        QLinearMatMul(r_quantized, r_scale, r_zero_point, w2_quantized, w2_scale, w2_zero_point, \
u_scale, u_zero_point) -> n_quantized
        Unsqueeze(n_quantized, one) -> u_quantized
        MatMulIntegerToFloat(u_quantized, w3_quantized, u_scale, w3_scale, u_zero_point, \
w3_zero_point) -> y
        """
    assert graph_text(integers) == text(expected)
    same_bits(qdq, integers, 5, 8)
    all_in_integers(integers, plan, tmp_path)


def test_the_bias_of_a_batch_of_matrices(tmp_path: Path) -> None:
    """ONNX Runtime merges the QDQ form into a QGemm, which adds the bias in integers."""
    qdq, integers, plan = both(
        "g (float[2, 5, 8] x) => (float[2, 5, 6] y) { m = MatMul(x, w)  y = Add(m, b) }",
        {"x": (-3, 3)},
        w=(8, 6),
        b=(6,),
    )
    expected = """
        QuantizeLinear(x, x_scale, x_zero_point) -> x_quantized
        MatMulIntegerToFloat(x_quantized, w_quantized, x_scale, w_scale, x_zero_point, \
w_zero_point, b) -> y
        """
    assert graph_text(integers) == text(expected)
    feeds = {"x": normal(99, 2, 5, 8)}
    expected_y = run(qdq, feeds, "all")[0]
    for level in ("all", "none"):
        found = run(integers, feeds, level)[0]
        assert np.abs(found - expected_y).max() <= 2e-6 * np.abs(expected_y).max()
    all_in_integers(integers, plan, tmp_path)


def test_two_sites_share_a_weight(tmp_path: Path) -> None:
    qdq, integers, plan = both(
        "g (float[N, 8] x) => (float[N, 8] y) { a = MatMul(x, w)  t = Tanh(a)  y = MatMul(t, w) }",
        {"x": (-2, 2), "t": (-1, 1)},
        w=(8, 8),
    )
    assert [node.inputs[1].name for node in integers.graph if "MatMul" in node.op_type] == [  # type: ignore[union-attr]
        "w_quantized",
        "w_quantized",
    ]
    assert list(integers.graph.initializers).count("w_quantized") == 1
    same_bits(qdq, integers, 5, 8)
    all_in_integers(integers, plan, tmp_path)


def test_who_reads_floats_keeps_reading_them(tmp_path: Path) -> None:
    """``a`` is an output of the model, ``m`` captured by a body: both keep their float value.

    ONNX Runtime runs the QDQ form of these two in float.
    """
    qdq, integers, plan = both_with(
        SEVEN_BITS,
        """
        g (float[N, 8] x, bool k) => (float[N, 8] y, float[N, 8] a) {
            a = MatMul(x, w1)
            m = MatMul(a, w2)
            n = MatMul(m, w3)
            o = If (k) <
                then_branch = then () => (float[N, 8] p) { p = Tanh(m) },
                else_branch = otherwise () => (float[N, 8] q) { q = Sigmoid(m) }
            >
            y = Add(n, o)
        }
        """,
        {"x": (-2, 2), "a": (-6, 6), "m": (-20, 20)},
        {"w1": (8, 8), "w2": (8, 8), "w3": (8, 8)},
    )
    names = [node.op_type for node in integers.graph]
    assert names.count("MatMulIntegerToFloat") == 3
    assert names.count("QuantizeLinear") == 3
    assert "DequantizeLinear" not in names
    for branch in (True, False):
        feeds = {"x": normal(7, 5, 8), "k": np.asarray(branch)}
        y, a = run(qdq, feeds, "none")
        for level in ("all", "none"):
            found = run(integers, feeds, level)
            assert np.abs(found[1] - a).max() < 1e-5
            # Where sums differ in the last bit, a quantizer behind may round the other way.
            assert np.abs(found[0] - y).max() < 0.5
            assert np.mean(np.abs(found[0] - y) > 1e-4) < 0.1
    all_in_integers(integers, plan, tmp_path)


def test_a_tensor_with_integer_and_float_readers() -> None:
    """The output of a Conv is quantized for all its readers; the float one has it dequantized."""
    qdq, integers, _ = both(
        """
        g (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y) {
            a = Conv(x, w1)
            b = Conv(a, w2)
            t = Tanh(a)
            y = Add(b, t)
        }
        """,
        {"x": (-2, 2), "a": (-4, 4), "b": (-9, 9)},
        w1=(4, 3, 1, 1),
        w2=(4, 4, 1, 1),
    )
    found = graph_text(integers)
    assert "DequantizeLinear(a_quantized, a_scale, a_zero_point) -> a_dequantized" in found
    assert "Tanh(a_dequantized) -> t" in found
    assert found.count("QLinearConv(") == 2
    same_bits(qdq, integers, 1, 3, 8, 8)


def test_sites_keep_their_names() -> None:
    _, integers, plan = both(CONVS, CONV_RANGES, **CONV_SHAPES)
    sites = {reader.node for entry in plan.weights for reader in entry.readers}
    assert {node.name for node in integers.graph if node.op_type == "QLinearConv"} == sites


def test_it_is_a_function_of_model_and_plan() -> None:
    _, first, _ = both(CONVS, CONV_RANGES, **CONV_SHAPES)
    _, second, _ = both(CONVS, CONV_RANGES, **CONV_SHAPES)
    assert to_bytes(first) == to_bytes(second)


def test_against_integer_arithmetic() -> None:
    """QLinearConv as its specification says, in float64 from the integers of the graph.

    Weights of 7 bits, because processors without VNNI saturate on 8.
    """
    graph = "g (float[N, 3, 4, 4] x) => (float[N, 4, 4, 4] y) { c = Conv(x, w, b)  y = Tanh(c) }"
    ranges: Ranges = {"x": (-3, 3), "c": (-12, 12)}
    _, integers, _ = both_with(SEVEN_BITS, graph, ranges, {"w": (4, 3, 1, 1), "b": (4,)})
    x = np.clip(normal(5, 2, 3, 4, 4), -3, 3)
    inits = {
        name: np.asarray(constant_array(value), float)
        for name, value in integers.graph.initializers.items()
    }
    sx, zx = float(inits["x_scale"]), int(inits["x_zero_point"])
    sc, zc = float(inits["c_scale"]), int(inits["c_zero_point"])
    coded = np.clip(np.rint(x / np.float32(sx)) + zx, 0, 255).astype(np.int64) - zx
    sums = np.einsum("nchw,mc->nmhw", coded, inits["w_quantized"][:, :, 0, 0])
    sums += inits["b_quantized"].reshape(1, 4, 1, 1)
    real = sums * (sx * inits["w_scale"].astype(float).reshape(1, 4, 1, 1))
    expected = np.tanh((np.clip(np.rint(real / sc) + zc, 0, 255) - zc) * sc)
    found = run(integers, {"x": x}, "none")[0]
    wrong = np.abs(found - expected) > 1e-6
    assert wrong.mean() < 0.01  # halves, which float32 rounds the other way
    assert np.abs(np.arctanh(found[wrong]) - np.arctanh(expected[wrong])).max(initial=0) < 1.01 * sc
