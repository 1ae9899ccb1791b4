"""What is a site, what is a candidate, and what is said about the rest."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.graph import edit
from onnxq.graph.normalize import normalize
from onnxq.graph.sites import Site, find_already_quantized, find_sites, protected_values

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Parse = Callable[[str], ir.Model]

RNG = np.random.default_rng(0)


class Build:
    """A graph from nodes and arrays, for shapes that are long to write as text."""

    def __init__(self) -> None:
        self.model = ir.Model(
            ir.Graph([], [], nodes=[], opset_imports={"": 17, "com.microsoft": 1}, name="g"),
            ir_version=8,
        )

    def input(
        self, name: str, shape: list[int | str], kind: ir.DataType = ir.DataType.FLOAT
    ) -> ir.Value:
        value = ir.val(name, kind, shape)
        self.model.graph.inputs.append(value)
        return value

    def weight(self, name: str, *shape: int, dtype: type[np.floating] = np.float32) -> ir.Value:
        array: NDArray[np.floating] = RNG.normal(size=shape).astype(dtype)
        return edit.initializer(self.model, name, array)

    def node(
        self,
        op: str,
        *inputs: ir.Value | None,
        domain: str = "",
        **attributes: int | float | str | list[int],
    ) -> ir.Value:
        node = ir.node(op, inputs, attributes=attributes, domain=domain, name=f"{op}_node")
        node.outputs[0].name = f"{op}_out_{len(self.model.graph)}"
        node.name = f"{op}_{len(self.model.graph)}"
        self.model.graph.append(node)
        return node.outputs[0]

    def sites(self, *outputs: ir.Value) -> tuple[Site, ...]:
        # The sites' own outputs are intermediate values, whose shapes are inferred.
        self.model.graph.outputs.extend(self.node("Relu", output) for output in outputs)
        return find_sites(normalize(self.model).model)


def test_matmul() -> None:
    b = Build()
    (site,) = b.sites(b.node("MatMul", b.input("x", [2, 3, 16]), b.weight("w", 16, 8)))
    assert site == Site(
        name="MatMul_0",
        op="MatMul",
        activation="x",
        weight="w",
        weight_axis=1,
        more_weights=(),
        bias=None,
        output="MatMul_out_0",
        macs=2 * 3 * 16 * 8,
        readers=("MatMul_0",),
        place="",
        candidate=True,
        reason="",
        sums=(0,),
    )


@pytest.mark.parametrize(("trans_b", "shape", "axis"), [(0, (16, 8), 1), (1, (8, 16), 0)])
def test_gemm(trans_b: int, shape: tuple[int, int], axis: int) -> None:
    b = Build()
    inputs = (b.input("x", [4, 16]), b.weight("w", *shape), b.weight("c", 8))
    (site,) = b.sites(b.node("Gemm", *inputs, transB=trans_b))
    assert (site.candidate, site.weight_axis, site.bias) == (True, axis, "c")
    assert site.macs == 4 * 16 * 8


@pytest.mark.parametrize("spatial", [1, 2, 3])
@pytest.mark.parametrize("group", [1, 2, 8])
def test_conv(spatial: int, group: int) -> None:
    b = Build()
    weight = b.weight("w", 8, 8 // group, *[3] * spatial)
    x = b.input("x", [1, 8, *[6] * spatial])
    (site,) = b.sites(b.node("Conv", x, weight, b.weight("c", 8), group=group))
    assert (site.candidate, site.weight_axis, site.bias, site.activation) == (True, 0, "c", "x")
    assert site.macs == 8 * 4**spatial * (8 // group) * 3**spatial


def test_embedding() -> None:
    b = Build()
    ids = b.input("ids", ["n"], ir.DataType.INT64)
    (site,) = b.sites(b.node("Gather", b.weight("table", 100, 16), ids))
    assert (site.candidate, site.weight_axis, site.activation, site.macs) == (True, 0, None, 0)


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent(op: str, gates: int) -> None:
    b = Build()
    weights = (b.weight("w", 1, gates * 4, 3), b.weight("r", 1, gates * 4, 4))
    (site,) = b.sites(b.node(op, b.input("x", [7, 2, 3]), *weights, hidden_size=4))
    assert (site.candidate, site.op, site.activation) == (True, op, "x")
    assert (site.weight, site.weight_axis, site.more_weights) == ("w", None, ("r",))
    assert site.macs == 7 * 2 * gates * 4 * (3 + 4)


def test_weight_behind_transpose_is_folded() -> None:
    b = Build()
    turned = b.node("Transpose", b.weight("w", 8, 16), perm=[1, 0])
    (site,) = b.sites(b.node("MatMul", b.input("x", [4, 16]), b.node("Identity", turned)))
    assert (site.candidate, site.weight_axis) == (True, 1)


def test_sites_that_share_a_weight_alike() -> None:
    b = Build()
    weight = b.weight("w", 16, 16)
    hidden = b.node("MatMul", b.input("x", ["n", 16]), weight)
    first, second = b.sites(b.node("MatMul", hidden, weight))
    assert first.candidate
    assert second.candidate
    assert (first.readers, second.readers) == (("MatMul_0", "MatMul_1"),) * 2
    assert first.macs is None


def test_tied_embedding_along_the_same_axis() -> None:
    b = Build()
    table = b.weight("table", 100, 16)
    rows = b.node("Gather", table, b.input("ids", ["n"], ir.DataType.INT64))
    lookup, head = b.sites(b.node("Gemm", rows, table, transB=1))
    assert lookup.candidate
    assert head.candidate


def test_shared_along_different_axes() -> None:
    b = Build()
    weight = b.weight("w", 16, 16)
    hidden = b.node("MatMul", b.input("x", [2, 16]), weight)
    for site in b.sites(b.node("Gemm", hidden, weight, transB=1)):
        assert not site.candidate
        assert "another axis" in site.reason


def _left(b: Build) -> ir.Value:
    return b.node("MatMul", b.weight("w", 4, 16), b.input("x", [16, 3]))


def _two_activations(b: Build) -> ir.Value:
    return b.node("MatMul", b.input("x", [4, 16]), b.input("z", [16, 3]))


def _batched(b: Build) -> ir.Value:
    return b.node("MatMul", b.input("x", [5, 4, 16]), b.weight("w", 5, 16, 3))


def _left_batched(b: Build) -> ir.Value:
    return b.node("MatMul", b.weight("w", 2, 4, 16), b.input("x", [16, 3]))


def _twice_batched(b: Build) -> ir.Value:
    return b.node("MatMul", b.input("x", [2, 5, 4, 16]), b.weight("w", 2, 5, 16, 3))


def _attention(b: Build) -> ir.Value:
    x = b.input("x", [1, 4, 64])
    bias = b.weight("b", 192)
    return b.node("Attention", x, b.weight("w", 64, 192), bias, domain="com.microsoft", num_heads=4)


def _left_and_right(b: Build) -> ir.Value:
    weight = b.weight("w", 16, 16)
    return b.node("MatMul", weight, b.node("Gemm", b.input("x", [16, 16]), weight, transB=1))


def _half(b: Build) -> ir.Value:
    x = b.input("x", [4, 16], ir.DataType.FLOAT16)
    return b.node("MatMul", x, b.weight("w", 16, 8, dtype=np.float16))


def _overridable(b: Build) -> ir.Value:
    weight = b.weight("w", 16, 8)
    b.model.graph.inputs.append(weight)
    return b.node("MatMul", b.input("x", [4, 16]), weight)


def _weight_is_output(b: Build) -> ir.Value:
    weight = b.weight("w", 16, 8)
    b.model.graph.outputs.append(weight)
    return b.node("MatMul", b.input("x", [4, 16]), weight)


def _other_reader(b: Build) -> ir.Value:
    weight = b.weight("w", 16, 8)
    return b.node("Add", b.node("MatMul", b.input("x", [16, 16]), weight), weight)


def _infinite(b: Build) -> ir.Value:
    array = np.ones((16, 8), np.float32)
    array[3, 3:5] = np.nan, -np.inf
    return b.node("MatMul", b.input("x", [4, 16]), edit.initializer(b.model, "w", array))


def _infinite_gemm_bias(b: Build) -> ir.Value:
    bias = edit.initializer(b.model, "c", np.asarray([1, np.nan, np.inf, 2], np.float32))
    return b.node("Gemm", b.input("x", [4, 16]), b.weight("w", 16, 4), bias)


def _infinite_conv_bias(b: Build) -> ir.Value:
    bias = edit.initializer(b.model, "c", np.asarray([1, -np.inf, 3, 2], np.float32))
    return b.node("Conv", b.input("x", [1, 3, 6, 6]), b.weight("w", 4, 3, 1, 1), bias)


def _run_time_kernel(b: Build) -> ir.Value:
    return b.node("Conv", b.input("x", [1, 8, 6, 6]), b.input("w", [8, 8, 3, 3]))


def _transposed(b: Build) -> ir.Value:
    return b.node("ConvTranspose", b.input("x", [1, 8, 6, 6]), b.weight("w", 8, 4, 3, 3), group=2)


def _columns(b: Build) -> ir.Value:
    ids = b.input("ids", ["n"], ir.DataType.INT64)
    return b.node("Gather", b.weight("table", 100, 16), ids, axis=1)


def _contrib(b: Build) -> ir.Value:
    x = b.input("x", [4, 64])
    return b.node("BiasSplitGelu", x, b.weight("w", 64, 64), domain="com.microsoft")


def _quantized(b: Build) -> ir.Value:
    q = edit.initializer(b.model, "q", np.ones((16, 8), np.int8))
    scale = edit.initializer(b.model, "s", np.float32(0.5).reshape(()))
    return b.node("MatMul", b.input("x", [4, 16]), b.node("DequantizeLinear", q, scale))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (_left_batched, "on the left and has 3 dimensions"),
        (_two_activations, "two activations"),
        (_twice_batched, "4 dimensions"),
        (_attention, "which holds the projections of query, key and value in one weight"),
        (_left_and_right, "one of them cannot be quantized with its activations"),
        (_half, "FLOAT16"),
        (_overridable, "also an input of the model"),
        (_weight_is_output, "also an output of the model"),
        (_other_reader, "also read by 'Add_1'"),
        (_infinite, "'w' holds 2 values that are NaN or infinite"),
        (_infinite_gemm_bias, "'c' holds 2 values that are NaN or infinite"),
        (_infinite_conv_bias, "'c' holds 1 values that are NaN or infinite"),
        (_run_time_kernel, "computed at run time"),
        (_transposed, "2 groups share the scales"),
        (_columns, "along axis 1"),
        (_contrib, "does not quantize com.microsoft::BiasSplitGelu"),
        (_quantized, "already quantized"),
    ],
)
def test_reasons(build: Callable[[Build], ir.Value], words: str) -> None:
    b = Build()
    site = b.sites(build(b))[0]
    assert not site.candidate
    assert words in site.reason


@pytest.mark.parametrize(
    ("build", "axis", "sums", "words"),
    [(_left, 0, (1,), "on the left"), (_batched, 2, (1,), "3 dimensions")],
)
def test_weights_that_are_quantized_beside_float_activations_alone(
    build: Callable[[Build], ir.Value], axis: int, sums: tuple[int, ...], words: str
) -> None:
    b = Build()
    (site,) = b.sites(build(b))
    assert site.candidate
    assert (site.weight, site.activation) == ("w", "x")
    assert (site.weight_axis, site.sums) == (axis, sums)
    assert words in site.weight_only


def test_what_is_no_site(parse: Parse) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    agraph (float[N,4] x) => (float[N,4] y) <float[4] s = {1,2,3,4}, int64[1] i = {0}>
    { h = Mul(x, s) d = Shape(h) n = Gather(d, i) z = ReduceSum(n) k = Cast<to=1>(z)
      y = Add(h, k) }"""
    assert find_sites(normalize(parse(text)).model) == ()


def test_one_weight_with_many_readers_costs_linear_time() -> None:
    """Two thousand readers of one weight: a cubic comparison of them would take hours."""
    b = Build()
    x, weight = b.input("x", ["n", 16]), b.weight("w", 16, 16)
    for _ in range(2000):
        x = b.node("MatMul", x, weight)
    b.model.graph.outputs.append(x)
    start = time.monotonic()
    sites = find_sites(b.model)
    assert time.monotonic() - start < 20
    assert len(sites) == 2000
    assert all(site.candidate and site.readers is sites[0].readers for site in sites)


SUBGRAPH = """<ir_version: 8, opset_import: ["" : 17]>
agraph (float[N,2] x, bool c) => (float[N,2] y) <float[2,2] w = {1,2,3,4}> {
  h = MatMul(x, w)
  k = Relu(h)
  [choice] y = If(c) <
    then_branch = tb () => (float[N,2] o) { o = MatMul(h, w) },
    else_branch = eb () => (float[N,2] p) { p = Neg(k) } >
}"""


def test_inside_a_subgraph(parse: Parse) -> None:
    outer, inner = find_sites(normalize(parse(SUBGRAPH)).model)
    assert (outer.candidate, outer.place) == (True, "")
    assert (inner.candidate, inner.place) == (True, "the body of If 'choice'")
    assert inner.weight == outer.weight == "w"


def test_protected_values(parse: Parse) -> None:
    model = normalize(parse(SUBGRAPH)).model
    assert protected_values(model) >= {"y", "h", "k"}
    assert "x" not in protected_values(model)


def test_shape_arithmetic_is_protected(parse: Parse) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    agraph (float[N,4] x, float size) => (float[A,B] y, float[N,4] z)
    <int64[1] two = {2}, float half = {0.5}, int64[1] axis = {0}> {
      steps = Mul(size, half)
      whole = Cast<to=7>(steps)
      length = Unsqueeze(whole, axis)
      shape = Concat<axis=0>(length, two)
      t = Tanh(x)
      y = Reshape(t, shape)
      z = Relu(t)
    }"""
    names = protected_values(normalize(parse(text)).model)
    assert {"size", "steps", "whole", "length", "shape", "y", "z"} <= names
    assert not {"t", "x"} & names


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            "q = QuantizeLinear(x, s) d = DequantizeLinear(q, s) y = Relu(d)",
            "QDQ: 1 QuantizeLinear, 1 DequantizeLinear",
        ),
        ("q, s2, z = DynamicQuantizeLinear(x) y = DequantizeLinear(q, s2, z)", "dynamic: 1 Dyn"),
        ("y = Relu(x)", None),
    ],
)
def test_already_quantized(parse: Parse, body: str, words: str | None) -> None:
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    agraph (float[2] x) => (float[2] y) <float s = {{0.5}}> {{ {body} }}"""
    found = find_already_quantized(parse(text))
    assert found is None if words is None else words in (found or "")


@pytest.mark.parametrize(
    ("op", "domain", "family"),
    [
        ("MatMulNBits", "com.microsoft", "weight-only"),
        ("QLinearConv", "", "QOperator"),
        ("ConvInteger", "", "QOperator"),
        ("QGemm", "com.microsoft", "QOperator"),
    ],
)
def test_already_quantized_operators(op: str, domain: str, family: str) -> None:
    b = Build()
    b.node(op, b.input("x", [1]), domain=domain)
    assert find_already_quantized(b.model) == f"{family}: 1 {op}"
