"""A float16 model computes in float32 inside: interface, numbers, and the size on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.graph import edit
from onnxq.graph.io import to_bytes
from onnxq.graph.normalize import normalize
from onnxq.graph.sites import find_sites
from onnxq.passes.restore_layout import RestoreLayout
from tests.small_models import normal, proto, run

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLOAT, FLOAT16 = ir.DataType.FLOAT, ir.DataType.FLOAT16
HALF = ("FLOAT16",)


def both(text: str, **weights: NDArray[Any]) -> tuple[ir.Model, ir.Model]:
    """The model as written, and normalized and widened."""
    original = ir.serde.deserialize_model(proto(text, **weights))
    return original, normalize(original, widens=HALF).model


def half(seed: int, *shape: int) -> NDArray[np.float16]:
    return normal(seed, *shape).astype(np.float16)


def kinds(model: ir.Model) -> set[ir.DataType | None]:
    """Types of all values but the inputs and outputs of the model."""
    fixed = {*model.graph.inputs, *model.graph.outputs}
    values = [v for graph in model.graphs() for v in (*graph.inputs, *graph.initializers.values())]
    values += [v for node in edit.all_nodes(model) for v in node.outputs]
    return {value.dtype for value in values if value not in fixed}


LINEAR = """g (float16[N, 64] x) => (float16[N, 48] y) {
    h = MatMul(x, w) b = Add(h, c) y = Relu(b)
}"""
FILL = """g (float16[N, 4] x) => (float16[N, 4] y) {
    s = Shape(x) k = ConstantOfShape<value = float16[1] {16384}>(s)
    t = CastLike(k, x) m = Mul(x, t) y = Add(m, k)
}"""
MIXED = """g (float16[N, 4] x) => (float16[N, 4] y, float[N, 4] z) {
    f = Cast<to = 1>(x) g = Softmax(f) z = Identity(g) h = Cast<to = 10>(g) y = Add(h, x)
}"""
BRANCHES = """g (float16[N, 4] x, bool c) => (float16[N, 4] y) {
    y = If (c) <
        then_branch = tb () => (float16[N, 4] o) { o = MatMul(x, w) },
        else_branch = eb () => (float16[N, 4] p) {
            k = Constant<value = float16[1] {16896}>() p = Mul(x, k) }
    >
}"""
LOOP = """g (float16[2, 4] x, int64 n) => (float16[2, 4] y) {
    y = Loop (n, , x) <body = b (int64 i, bool k, float16[2, 4] a) => (bool kk, float16[2, 4] r) {
        kk = Identity(k) r = MatMul(a, w)
    }>
}"""
SEQUENCE = """g (float16[N, 4] x) => (float16[M, 4] y) {
    e = SequenceEmpty<dtype = 10>() a = SequenceInsert(e, x) r = Relu(x)
    b = SequenceInsert(a, r) y = ConcatFromSequence<axis = 0>(b)
}"""
X: dict[str, NDArray[Any]] = {"x": half(5, 2, 4)}
CASES: dict[str, tuple[str, dict[str, NDArray[Any]], dict[str, NDArray[Any]]]] = {
    "linear": (LINEAR, {"w": half(0, 64, 48), "c": half(1, 48)}, {"x": half(2, 3, 64)}),
    "filled": (FILL, {}, X),
    "mixed": (MIXED, {}, X),
    "then": (BRANCHES, {"w": half(0, 4, 4)}, {**X, "c": np.asarray(True)}),
    "else": (BRANCHES, {"w": half(0, 4, 4)}, {**X, "c": np.asarray(False)}),
    "loop": (LOOP, {"w": half(0, 4, 4)}, {**X, "n": np.asarray(3)}),
    "sequence": (SEQUENCE, {}, X),
}


@pytest.mark.parametrize("name", CASES)
def test_computes_the_same_in_float32(name: str) -> None:
    text, weights, feeds = CASES[name]
    original, model = both(text, **weights)
    assert FLOAT16 not in kinds(model)
    pairs = (
        (original.graph.inputs, model.graph.inputs),
        (original.graph.outputs, model.graph.outputs),
    )
    for old, new in pairs:
        assert [(v.name, v.type) for v in old] == [(v.name, v.type) for v in new]
    for wanted, found in zip(run(original, feeds), run(model, feeds), strict=True):
        assert found.dtype == wanted.dtype
        np.testing.assert_allclose(
            found.astype(np.float64), wanted.astype(np.float64), rtol=4e-3, atol=4e-3
        )


def test_sites_are_candidates() -> None:
    _, model = both(LINEAR, w=half(0, 64, 48), c=half(1, 48))
    (site,) = find_sites(model)
    assert site.candidate
    assert [node.op_type for node in model.graph] == ["Cast", "MatMul", "Add", "Relu", "Cast"]


def test_idle_casts_are_gone() -> None:
    _, model = both(MIXED)
    casts = [node for node in model.graph if node.op_type == "Cast"]
    assert len(casts) == 2


def test_not_larger_where_it_stays_float() -> None:
    original, model = both(LINEAR, w=half(0, 64, 48), c=half(1, 48))
    assert len(to_bytes(model)) > len(to_bytes(original)) + 6000
    restored = RestoreLayout()(model.clone()).model
    assert len(to_bytes(restored)) < len(to_bytes(original)) + 1000
    x = {"x": half(2, 3, 64)}
    np.testing.assert_array_equal(run(restored, x)[0], run(model, x)[0])


def test_an_input_with_a_default_keeps_its_type() -> None:
    text = """g (float16[2, 4] x, float16[4] k = {15360, 16384, 16896, 17408}) =>
        (float16[2, 4] y) { y = Mul(x, k) }"""
    original, model = both(text)
    for feeds in (X, {**X, "k": half(7, 4)}):
        np.testing.assert_allclose(run(model, feeds)[0], run(original, feeds)[0], rtol=1e-3)


def test_outputs_that_nobody_makes_stay() -> None:
    text = "g (float16[2, 4] x) => (float16[2, 4] x, float16[2] w, float16[2, 4] y) { y = Relu(x) }"
    _, model = both(text, w=half(0, 2))
    assert [value.dtype for value in model.graph.outputs] == [FLOAT16] * 3
    np.testing.assert_array_equal(run(model, X)[1], half(0, 2))


def test_a_sequence_as_input_is_declined() -> None:
    text = "g (seq(float16[N, 4]) s) => (float16[M, 4] y) { y = ConcatFromSequence<axis = 0>(s) }"
    original = ir.serde.deserialize_model(proto(text))
    result = normalize(original, widens=HALF)
    assert any("'s' is a sequence" in note for note in result.notes)
    assert result.model.graph.outputs[0].dtype == FLOAT16


def test_float32_models_are_left_alone() -> None:
    text = "g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }"
    result = normalize(ir.serde.deserialize_model(proto(text)), widens=HALF)
    assert result.notes == ()
    assert [node.op_type for node in result.model.graph] == ["Relu"]
