"""The graph that 16 bits make of a model: its text, its numbers, its interface, its bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxq.errors import PlanError
from onnxq.graph.edit import all_nodes
from onnxq.graph.io import to_bytes
from onnxq.passes.execute import execute
from onnxq.plan import HalfNodeEntry, HalfWeightEntry
from tests.given_half import half_plan
from tests.small_models import Feeds, graph_text, normal, normalized, run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxq.runtime.session import Optimization

BRANCHES = """g (float[2, 8] x, bool c) => (float[2, 8] y) {
    h = MatMul(x, w)
    y = If (c) <
        then_branch = t () => (float[2, 8] o) { a = MatMul(h, v) o = Add(a, h) },
        else_branch = e () => (float[2, 8] p) { p = Mul(h, k) }
    >
}"""
LOOP = """g (float[2, 8] x, int64 n) => (float[2, 8] y, float[M, 2, 8] all) {
    t = Constant<value = bool {1}>()
    s = Neg(x)
    y, all = Loop (n, t, s) <
        body = b (int64 i, bool go, float[2, 8] before) => (bool on, float[2, 8] after,
            float[2, 8] kept) { on = Identity(go) m = MatMul(before, w) after = Add(m, x)
            kept = Neg(after) }
    >
}"""
SCAN = """g (float[2, 8] s, float[3, 2, 8] x) => (float[2, 8] y, float[3, 2, 8] all) {
    y, all = Scan<num_scan_inputs = 1, body = b (float[2, 8] before, float[2, 8] part)
        => (float[2, 8] after, float[2, 8] piece) {
            m = MatMul(part, w) after = Add(m, before) piece = Tanh(after) }>(s, x)
}"""
FEEDS: dict[str, tuple[str, Feeds]] = {
    "if": (BRANCHES, {"x": normal(9, 2, 8), "c": np.array(True)}),
    "else": (BRANCHES, {"x": normal(9, 2, 8), "c": np.array(False)}),
    "loop": (LOOP, {"x": normal(9, 2, 8), "n": np.array(3)}),
    "scan": (SCAN, {"s": normal(8, 2, 8), "x": normal(9, 3, 2, 8)}),
}
W: Feeds = {"w": normal(0, 8, 8) / 4, "v": normal(1, 8, 8) / 4, "k": normal(2, 8)}


def converted(model: ir.Model, name: str = "float16", **changed: Any) -> ir.Model:
    plan = half_plan(model, name="bfloat16" if name == "bfloat16" else "float16")
    return execute(plan.model_copy(update=changed), model)


def used(text: str) -> dict[str, NDArray[Any]]:
    return {name: array for name, array in W.items() if f"{name})" in text}


def test_casts_stand_where_the_types_meet() -> None:
    text = """g (float[N, 8] x) => (float[N, 8] y, float[N, 8] e) {
        h = MatMul(x, w) e = Exp(h) r = Relu(h) y = Add(r, h)
    }"""
    assert graph_text(converted(normalized(text, w=W["w"]))) == (
        "Cast(x) -> x.float16\n"
        "MatMul(x.float16, w.float16) -> h\n"
        "Cast(h) -> h.float32\n"
        "Exp(h.float32) -> e\n"
        "Relu(h) -> r\n"
        "Add(r, h) -> y.float32\n"
        "Cast(y.float32) -> y"
    )


def test_weights_alone() -> None:
    text = "g (float[N, 32] x) => (float[N, 32] y) { h = MatMul(x, w) t = Neg(w) y = MatMul(h, t) }"
    model = normalized(text, w=normal(0, 32, 32))
    entry = HalfWeightEntry(initializer="w", type="bfloat16")
    found = converted(model, half_nodes=(), half_weights=(entry,))
    assert graph_text(found).splitlines()[0] == "Cast(w.bfloat16) -> w.bfloat16.float32"
    assert "w" not in found.graph.initializers
    assert found.graph.initializers["w.bfloat16"].dtype == ir.DataType.BFLOAT16


def test_a_tied_weight_is_stored_once() -> None:
    text = """g (int64[N] i, float[N, 32] x) => (float[N, 32] e, float[N, 48] y) {
        e = Gather(w, i) t = Transpose(w) y = MatMul(x, t)
    }"""
    model = normalized(text, w=normal(0, 48, 32))
    names = [name for name, value in model.graph.initializers.items() if len(value.shape or ()) > 1]
    assert len(names) == 2
    entries = tuple(HalfWeightEntry(initializer=name, type="float16") for name in names)
    for found in (converted(model, half_nodes=(), half_weights=entries), converted(model)):
        assert sum(value.size for value in _tensors(found)) == 48 * 32
        feeds: Feeds = {"i": np.array([3, 5]), "x": normal(1, 2, 32)}
        for expected, got in zip(run(model, feeds), run(found, feeds), strict=True):
            np.testing.assert_allclose(got, expected, rtol=0.02, atol=0.02)


def _tensors(model: ir.Model) -> list[ir.TensorProtocol]:
    values = model.graph.initializers.values()
    return [value.const_value for value in values if value.const_value is not None]


@pytest.mark.parametrize("level", ["none", "all"])
@pytest.mark.parametrize("case", FEEDS)
def test_bodies_compute_the_same(case: str, level: Optimization) -> None:
    text, feeds = FEEDS[case]
    model = normalized(text, **used(text))
    found = converted(model)
    for expected, got in zip(run(model, feeds), run(found, feeds, level), strict=True):
        # Eleven bits, a few operations long.
        np.testing.assert_allclose(got, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("case", FEEDS)
def test_bfloat16_in_bodies_is_valid(case: str) -> None:
    text, _ = FEEDS[case]
    model = normalized(text, **used(text))
    found = converted(model, "bfloat16")
    onnx.checker.check_model(to_bytes(found), full_check=True)
    assert [(v.name, v.type) for v in found.graph.outputs] == [
        (v.name, v.type) for v in model.graph.outputs
    ]
    inside = [
        v.dtype for node in all_nodes(found) for v in node.outputs if "MatMul" in node.op_type
    ]
    assert set(inside) == {ir.DataType.BFLOAT16}


ATTENTION = """g (float[N, 4, 8] x, int64[N, 4] mask) => (float[N, 4, 4] y) {
    t = Transpose<perm = [0, 2, 1]>(x) s = MatMul(x, t)
    f = Cast<to = 1>(mask) u = Unsqueeze(f, axis) d = Sub(one, u) m = Mul(d, low)
    a = Add(s, m) y = Softmax(a)
}"""


@pytest.mark.parametrize("low", [np.finfo(np.float32).min, -1e9, -65504.0])
@pytest.mark.parametrize("level", ["none", "all"])
def test_a_mask_still_masks_and_a_row_of_masks_is_finite(level: Optimization, low: float) -> None:
    constants = {"one": np.float32(1), "low": np.float32(low), "axis": np.array([1])}
    model = normalized(ATTENTION, **{k: np.asarray(v) for k, v in constants.items()})
    feeds: Feeds = {"x": normal(3, 2, 4, 8), "mask": np.array([[1, 1, 0, 0], [0, 0, 0, 0]])}
    (expected,), (got,) = run(model, feeds), run(converted(model), feeds, level)
    assert np.isfinite(got).all()
    np.testing.assert_array_equal(got[0, :, 2:], 0)
    np.testing.assert_allclose(got[0], expected[0], atol=0.02)
    np.testing.assert_allclose(got[1].sum(axis=-1), 1, atol=0.01)


def test_the_model_given_stays_as_it_is() -> None:
    model = normalized(BRANCHES, **W)
    before = to_bytes(model)
    assert to_bytes(converted(model)) != before
    assert to_bytes(model) == before


def test_an_initializer_that_callers_may_replace_is_cast_at_run_time() -> None:
    text = "g (float[N, 8] x, float[8, 8] w) => (float[N, 8] y) { y = MatMul(x, w) }"
    found = converted(normalized(text, w=W["w"]))
    assert "Cast(w) -> w.float16" in graph_text(found)
    assert found.graph.initializers["w"].dtype == ir.DataType.FLOAT


def test_a_plan_for_another_model_is_refused() -> None:
    model = normalized(BRANCHES, **W)
    entry = half_plan(model).half_nodes[0]
    for changed in (
        HalfNodeEntry(node="nobody", type="float16", inputs=(0,), outputs=(0,)),
        entry.model_copy(update={"inputs": (7,)}),
        entry.model_copy(update={"outputs": (7,)}),
    ):
        with pytest.raises(PlanError):
            converted(model, half_nodes=(changed,))
    with pytest.raises(PlanError, match="no constant"):
        converted(model, half_weights=(HalfWeightEntry(initializer="x", type="float16"),))
