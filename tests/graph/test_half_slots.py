"""Which inputs and outputs may have 16 bits, by the operator's types."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from onnxq.graph.half_slots import HalfSlots, half_slots
from tests.small_models import normal, normalized

NORMALIZED = """g (float[N, 4] x) => (float[N, 4] y, float[N, 1] m) {
    y, m = LayerNormalization(x, v)
}"""
GREATEST = """g (float[N, 4] x) => (float[N, 2] y, int64[N, 2] i) {
    t = Constant<value = int64[1] {2}>() y, i = TopK(x, t)
}"""
BOXES = """g (float[1, 2, 4] b, float[1, 1, 2] s) => (int64[M, 3] y) {
    y = NonMaxSuppression(b, s)
}"""
BRANCHES = """g (float[N] x, bool c) => (float[N] y) {
    y = If (c) <
        then_branch = t () => (float[N] o) { o = Neg(x) },
        else_branch = e () => (float[N] p) { p = Abs(x) }
    >
}"""


def slots_of(text: str, op: str, name: str = "float16") -> HalfSlots:
    model = normalized(text, w=normal(0, 4, 4), v=normal(1, 4), k=normal(2, 4))
    node = next(node for node in model.graph if node.op_type == op)
    return half_slots(node, dict(model.opset_imports), name)


@pytest.mark.parametrize(
    ("text", "op", "inputs", "outputs", "exact"),
    [
        ("g (float[N, 4] x) => (float[N, 4] y) { y = MatMul(x, w) }", "MatMul", (0, 1), (0,), ()),
        # `scales` is float32 by definition, beside an image of any type.
        (
            "g (float[1, 1, 2, 2] x) => (float[1, 1, P, Q] y) { y = Resize(x, , k) }",
            "Resize", (0,), (0,), (2,),
        ),
        # Mean and InvStdDev have a type of their own.
        (
            NORMALIZED,
            "LayerNormalization", (0, 1), (0,), (),
        ),
        ("g (int64[N] x) => (float[N] y) { y = Cast<to = 1>(x) }", "Cast", (), (0,), ()),
        (
            "g (bool[4] c, float[4] x) => (float[4] y) { y = Where(c, x, v) }",
            "Where", (1, 2), (0,), (),
        ),
        (
            GREATEST,
            "TopK", (0,), (0,), (),
        ),
        ("g (float[N, 4] x) => (int64[2] y) { y = Shape(x) }", "Shape", (0,), (), ()),
    ],
)  # fmt: skip
def test_types_of_operators(
    text: str, op: str, inputs: tuple[int, ...], outputs: tuple[int, ...], exact: tuple[int, ...]
) -> None:
    assert slots_of(text, op) == HalfSlots(inputs, outputs, exact)


@pytest.mark.parametrize(
    ("text", "op", "reason"),
    [
        (
            "g (float[N] x) => (int64[N] y) { y = Cast<to = 7>(x) }",
            "Cast", "what is cast to another type must not be rounded",
        ),
        (
            "g (float16[N] x) => (float[N] y) { y = Cast<to = 1>(x) }",
            "Cast", "what it casts has 16 bits already",
        ),
        (
            BOXES,
            "NonMaxSuppression", "NonMaxSuppression takes no float16",
        ),
        (
            "g (int64[2] s) => (float[P, Q] y) { y = ConstantOfShape<value = float[1] {3.0}>(s) }",
            "ConstantOfShape", "an attribute of ConstantOfShape names the type of what it makes",
        ),
        (
            "g (float[N] x) => (seq(float[N]) y) { y = SequenceConstruct(x) }",
            "SequenceConstruct", "'y' is a sequence or an optional",
        ),
        (
            BRANCHES,
            "If", "what If hands to its body and back stays float32",
        ),
    ],
)  # fmt: skip
def test_declined(text: str, op: str, reason: str) -> None:
    assert slots_of(text, op).reason == reason


def test_no_bfloat16_in_the_opset_of_the_model() -> None:
    text = "g (float[1, 1, 4, 4] x) => (float[1, 1, P, Q] y) { y = Conv(x, f) }"
    model = normalized(text, f=normal(0, 1, 1, 3, 3))
    node = next(iter(model.graph))
    assert half_slots(node, {"": 17}, "bfloat16").reason == "Conv takes no bfloat16"
    assert half_slots(node, {"": 22}, "bfloat16") == HalfSlots((0, 1), (0,))


def test_other_domains_and_unknown_types() -> None:
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.node("Secret", [x], domain="my.ops", outputs=[ir.Value(name="y", type=x.type)])
    found = half_slots(node, {"": 17}, "float16")
    assert found.reason == "onnx does not know the types that my.ops::Secret takes"
    assert found.exact == (0,)
    untyped = ir.node("Neg", [x], outputs=[ir.Value(name="y")])
    assert half_slots(untyped, {"": 17}, "float16").reason == "the type of 'y' is not known"
