"""Every Gemm with a weight becomes a plain one that computes the same; the reference is float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.graph.sites import find_sites
from tests.small_models import normal, normalized, run

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

M, K, N = 3, 5, 4
SHAPES: list[tuple[int, ...] | None] = [None, (), (1,), (1, 1), (N,), (1, N), (M, 1), (M, N)]


def gemm(
    attributes: str, bias: NDArray[Any] | None, *, trans_a: int, trans_b: int, computed: bool
) -> ir.Model:
    """A Gemm whose bias is constant, or computed at run time."""
    weights = {"b": normal(0, *((N, K) if trans_b else (K, N)))}
    c, prelude = "", ""
    if bias is not None:
        c, weights["c"] = ", c", bias
    if computed:
        c, prelude = ", d", "t = ReduceSum<keepdims = 0>(a) z = Sub(t, t) d = Add(z, c)"
    rows = f"{K}, {M}" if trans_a else f"{M}, {K}"
    text = f"""g (float[{rows}] a) => (float[{M}, {N}] y) {{
        {prelude} y = Gemm<transA = {trans_a}, transB = {trans_b}{attributes}>(a, b{c})
    }}"""
    return normalized(text, **weights)


@given(
    shape=st.sampled_from(SHAPES),
    alpha=st.sampled_from([1.0, 0.5, -3.0]),
    beta=st.sampled_from([1.0, 2.0, 0.0]),
    trans_a=st.integers(0, 1),
    trans_b=st.integers(0, 1),
    computed=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_same_and_plain(
    shape: tuple[int, ...] | None,
    alpha: float,
    beta: float,
    trans_a: int,
    trans_b: int,
    computed: bool,
) -> None:
    bias = None if shape is None else np.asarray(normal(1, *shape))
    computed = computed and bias is not None
    attributes = f", alpha = {alpha}, beta = {beta}"
    model = gemm(attributes, bias, trans_a=trans_a, trans_b=trans_b, computed=computed)
    (site,) = find_sites(model)
    assert site.candidate, site.reason
    node = next(node for node in model.graph if node.op_type == "Gemm")
    assert set(node.attributes) <= {"transB"} or node.attributes.get_int("transA", 0) == 0
    x = normal(2, *((K, M) if trans_a else (M, K)))
    weight = normal(0, *((N, K) if trans_b else (K, N))).astype(np.float64)
    product = (x.T if trans_a else x).astype(np.float64) @ (weight.T if trans_b else weight)
    wanted = alpha * product + (0 if bias is None else beta * bias.astype(np.float64))
    np.testing.assert_allclose(run(model, {"a": x})[0], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (N,), (1, N)])
def test_one_row_of_bias_becomes_the_vector(shape: tuple[int, ...]) -> None:
    bias = np.asarray(normal(1, *shape))
    model = gemm(", beta = 2.0", bias, trans_a=0, trans_b=0, computed=False)
    (site,) = find_sites(model)
    assert [node.op_type for node in model.graph] == ["Gemm"]
    value = model.graph.initializers[site.bias or ""].const_value
    assert value is not None
    np.testing.assert_array_equal(value.numpy(), np.broadcast_to(2 * bias, (1, N))[0])


@pytest.mark.parametrize("shape", [(M, 1), (M, N)])
def test_other_bias_is_added_behind(shape: tuple[int, ...]) -> None:
    model = gemm("", normal(1, *shape), trans_a=0, trans_b=1, computed=False)
    assert [node.op_type for node in model.graph] == ["Gemm", "Add"]
    assert model.graph.outputs[0].name == "y"


def test_as_many_rows_as_columns() -> None:
    """A bias of shape [N, 1] has N elements and is no row."""
    text = "g (float[4, 5] a) => (float[4, 4] y) { y = Gemm(a, b, c) }"
    bias, weight, x = normal(1, 4, 1), normal(0, 5, 4), normal(2, 4, 5)
    found = run(normalized(text, b=weight, c=bias), {"a": x})[0]
    np.testing.assert_allclose(found, x.astype(np.float64) @ weight + bias, rtol=1e-5, atol=1e-5)


def test_factor_that_underflows_is_declined() -> None:
    text = "g (float[3, 5] a) => (float[3, 4] y) { y = Gemm<alpha = 1e-38>(a, b) }"
    (site,) = find_sites(normalized(text, b=normal(0, 5, 4)))
    assert "alpha = 1e-38" in site.reason


def test_a_shared_weight_is_scaled_for_one_reader_alone() -> None:
    text = """g (float[3, 5] a) => (float[3, 4] y, float[3, 4] z) {
        r = Relu(a) y = Gemm<alpha = 2.0>(a, b) z = Gemm(r, b)
    }"""
    weight, x = normal(0, 5, 4), normal(2, 3, 5)
    model = normalized(text, b=weight)
    assert [site.candidate for site in find_sites(model)] == [True, True]
    y, z = run(model, {"a": x})
    np.testing.assert_allclose(y, 2 * x @ weight, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(z, np.maximum(x, 0) @ weight, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("perm", "left"), [("[1, 0]", 0), ("[0, 1]", 2)])
def test_a_transposed_activation_of_a_transpose_is_what_that_reads(perm: str, left: int) -> None:
    text = f"""g (float[{M}, {K}] a) => (float[{M if left == 0 else K}, {N}] y) {{
        t = Transpose<perm = {perm}>(a) y = Gemm<transA = 1>(t, b)
    }}"""
    model = normalized(text, b=normal(0, K if left == 0 else M, N))
    assert [node.op_type for node in model.graph].count("Transpose") == left
    assert find_sites(model)[0].activation == ("a" if left == 0 else "t.transpose")
