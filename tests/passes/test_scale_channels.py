"""Scaling channels leaves a float model what it is, but for float32's rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.errors import PlanError
from onnxq.graph.edit import node_by_name
from onnxq.passes.scale_channels import ScaleChannels
from onnxq.plan import FoldedEntry, Reader, ScalingEntry
from tests.small_models import graph_text, normal, normalized, run

if TYPE_CHECKING:
    from numpy.typing import NDArray

FACTOR = np.geomspace(0.01, 100, 8, dtype=np.float32)


def scaled(model: ir.Model, tensor: str, folds: tuple[FoldedEntry, ...] = ()) -> ir.Model:
    """``tensor`` divided by FACTOR for every MatMul and Gemm that reads it."""
    sites = [
        node
        for node in model.graph
        if node.op_type in ("MatMul", "Gemm") and node.inputs[0].name == tensor  # type: ignore[union-attr]
    ]
    readers = tuple(Reader(node=node.name or "", input=0) for node in sites)
    weights = tuple(Reader(node=node.name or "", input=1) for node in sites)
    axes = tuple(node.attributes.get_int("transB", 0) for node in sites)
    entry = ScalingEntry(tensor=tensor, folds=folds, readers=readers, weights=weights, axes=axes)
    before = graph_text(model)
    result = ScaleChannels((entry,), {f"scaling/{tensor}/factor": FACTOR})(model.clone()).model
    assert graph_text(model) == before
    return result


def assert_same_outputs(left: ir.Model, right: ir.Model, feeds: dict[str, NDArray[Any]]) -> None:
    for mine, other in zip(run(left, feeds), run(right, feeds), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-4)


def test_a_mul_in_front_of_the_sites_alone() -> None:
    model = normalized(
        """g (float[N, 8] x) => (float[N, 3] y, float[N, 4] z, float[N, 8] t) {
            h = Tanh(x)
            y = MatMul(h, w)
            z = Gemm<transB = 1>(h, v)
            t = Neg(h)
        }""",
        w=normal(0, 8, 3),
        v=normal(1, 4, 8),
    )
    result = scaled(model, "h")
    assert graph_text(result).splitlines() == [
        "Tanh(x) -> h",
        "Mul(h, h_channel_scale) -> h_scaled",
        "MatMul(h_scaled, w_channel_scaled) -> y",
        "Gemm(h_scaled, v_channel_scaled) -> z",
        "Neg(h) -> t",
    ]
    assert not {"w", "v"} & set(result.graph.initializers)
    assert_same_outputs(model, result, {"x": normal(2, 5, 8)})


def test_an_input_of_the_model_is_scaled_at_the_head() -> None:
    model = normalized(
        "g (float[N, 8] x) => (float[N, 3] y) { y = MatMul(x, w) }", w=normal(0, 8, 3)
    )
    result = scaled(model, "x")
    assert graph_text(result).splitlines()[0] == "Mul(x, x_channel_scale) -> x_scaled"
    assert_same_outputs(model, result, {"x": normal(2, 5, 8)})


def test_a_weight_that_two_sites_share_is_scaled_once() -> None:
    model = normalized(
        """g (float[N, 8] x) => (float[N, 3] y, float[N, 3] z) {
            y = Gemm(x, w, a)
            z = Gemm(x, w, b)
        }""",
        w=normal(0, 8, 3),
        a=normal(1, 3),
        b=normal(2, 3),
    )
    result = scaled(model, "x")
    assert [name for name in result.graph.initializers if name.startswith("w")] == [
        "w_channel_scaled"
    ]
    assert_same_outputs(model, result, {"x": normal(2, 5, 8)})


NORMALIZED = """g (float[N, 8] x) => (float[N, 8] y, float[N, 8] z) {
    h = LayerNormalization(x, g, b)
    a = MatMul(h, w)
    k = LayerNormalization(a, g, b)
    y = MatMul(k, v)
    z = Neg(k)
}"""


@pytest.mark.parametrize("scale", ["vector", "scalar"])
def test_a_fold_into_the_normalization(scale: str) -> None:
    """The scale and bias that another normalization reads too are left to it."""
    gamma = normal(0, 8) + 2 if scale == "vector" else np.asarray([1.5], np.float32)
    model = normalized(NORMALIZED, g=gamma, b=normal(1, 8), w=normal(2, 8, 8), v=normal(3, 8, 8))
    first = next(
        name for name, node in node_by_name(model.graph).items() if "h" in str(node.outputs[0].name)
    )
    folds = tuple(FoldedEntry(node=first, input=index, axis=-1) for index in (1, 2))
    result = scaled(model, "h", folds)
    assert len(result.graph) == len(model.graph)
    assert graph_text(result).splitlines()[0] == (
        "LayerNormalization(x, g_channel_scaled, b_channel_scaled) -> h"
    )
    assert "LayerNormalization(a, g, b) -> k" in graph_text(result)
    assert_same_outputs(model, result, {"x": normal(4, 5, 8)})


CHAINED = """g (float[N, 6] x) => (float[N, 4] y) {
    n = LayerNormalization(x, g)
    a = MatMul(n, v)
    h = Relu(a)
    y = MatMul(h, w)
}"""


def chained() -> tuple[ir.Model, tuple[ScalingEntry, ...], dict[str, NDArray[Any]]]:
    """A product between two activations that both are divided, the second in another order."""
    model = normalized(CHAINED, g=normal(0, 6), v=normal(1, 6, 8), w=normal(2, 8, 4))
    nodes = {node.outputs[0].name: node.name or "" for node in model.graph}

    def entry(tensor: str, product: str, fold: FoldedEntry) -> ScalingEntry:
        reader, weight = (Reader(node=nodes[product], input=i) for i in (0, 1))
        return ScalingEntry(
            tensor=tensor, folds=(fold,), readers=(reader,), weights=(weight,), axes=(0,)
        )

    entries = (
        entry("n", "a", FoldedEntry(node=nodes["n"], input=1, axis=-1)),
        entry("h", "y", FoldedEntry(node=nodes["a"], input=1, axis=-1, source=0)),
    )
    arrays = {
        "scaling/n/factor": np.geomspace(0.5, 2, 6, dtype=np.float32),
        "scaling/h/factor": FACTOR,
        "scaling/h/source/0": np.arange(8, dtype=np.int32),
    }
    return model, entries, arrays


def test_a_weight_between_two_activations_is_written_once_in_any_order() -> None:
    model, entries, arrays = chained()
    results = [
        ScaleChannels(order, arrays)(model.clone()).model for order in (entries, entries[::-1])
    ]
    for result in results:
        assert sorted(result.graph.initializers) == [
            "g_channel_scaled",
            "v_channel_scaled",
            "w_channel_scaled",
        ]
        assert_same_outputs(model, result, {"x": normal(3, 5, 6)})
    first, second = (result.graph.initializers["v_channel_scaled"] for result in results)
    assert first.const_value is not None
    assert second.const_value is not None
    np.testing.assert_array_equal(first.const_value.numpy(), second.const_value.numpy())
    exact = normal(1, 6, 8).astype(float)
    exact *= np.geomspace(0.5, 2, 6)[:, None] / FACTOR.astype(float)
    np.testing.assert_allclose(first.const_value.numpy(), exact, rtol=1e-6)


def test_a_plan_that_does_not_fit_is_refused() -> None:
    model, entries, arrays = chained()
    wrong: list[tuple[str, dict[str, NDArray[Any]]]] = [
        ("plan.incomplete", {k: a for k, a in arrays.items() if k != "scaling/n/factor"}),
        ("plan.incomplete", {k: a for k, a in arrays.items() if k != "scaling/h/source/0"}),
        ("plan.axis", {**arrays, "scaling/n/factor": FACTOR}),
        ("plan.axis", {**arrays, "scaling/h/source/0": np.arange(1, 9, dtype=np.int32)}),
        ("plan.axis", {**arrays, "scaling/h/source/0": np.arange(-2, 6, dtype=np.int32)}),
        ("plan.axis", {**arrays, "scaling/h/source/0": np.arange(7, dtype=np.int32)}),
    ]
    for code, given in wrong:
        with pytest.raises(ir.passes.PassError) as caught:
            ir.passes.Sequential(ScaleChannels(entries, given))(model.clone())
        cause = caught.value.__cause__
        assert isinstance(cause, PlanError)
        assert cause.code == code


def test_a_fold_into_what_is_no_constant_is_refused() -> None:
    model, entries, arrays = chained()
    folds = (FoldedEntry(node=entries[0].folds[0].node, input=0, axis=-1),)
    with pytest.raises(PlanError, match="is no constant"):
        ScaleChannels((entries[0].model_copy(update={"folds": folds}),), arrays).call(model)


def test_half_precision_stays_half_precision() -> None:
    model = normalized(
        """g (float16[N, 8] x) => (float16[N, 3] y) {
            n = LayerNormalization(x, g)
            y = MatMul(n, w)
        }""",
        g=normal(0, 8).astype(np.float16),
        w=normal(1, 8, 3).astype(np.float16),
    )
    (first,) = [node.name or "" for node in model.graph if node.op_type == "LayerNormalization"]
    folds = (FoldedEntry(node=first, input=1, axis=-1),)
    for chosen in (folds, ()):
        result = scaled(model, "n", chosen)
        assert {v.dtype for v in result.graph.initializers.values()} == {ir.DataType.FLOAT16}
        feeds = {"x": normal(2, 5, 8).astype(np.float16)}
        before, after = run(model, feeds)[0], run(result, feeds)[0]
        # Each of the three roundings is within 2^-11.
        np.testing.assert_allclose(after, before, rtol=0.01, atol=0.01)
