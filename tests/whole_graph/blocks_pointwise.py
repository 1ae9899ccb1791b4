"""Blocks that keep a value's shape: activations, arithmetic, normalization, reductions, islands."""

from __future__ import annotations

import numpy as np

from tests.whole_graph.blocks import block
from tests.whole_graph.draft import BOOL, FLOAT, INT64, Draft, Val

# Operator, first opset; all take one input and need no attribute.
_ACTIVATIONS = (
    ("Relu", 7), ("Relu", 7), ("Sigmoid", 7), ("Tanh", 7), ("LeakyRelu", 7), ("Elu", 7),
    ("Selu", 7), ("Softplus", 7), ("Softsign", 7), ("HardSigmoid", 7), ("Abs", 7), ("Neg", 7),
    ("Erf", 9), ("Sin", 7), ("Cos", 7), ("Sign", 9), ("ThresholdedRelu", 10), ("Celu", 12),
    ("HardSwish", 14), ("Mish", 18), ("Gelu", 20), ("Floor", 7), ("Identity", 7),
)  # fmt: skip


@block(2, 3, 4, 5, often=5)
def activation(draft: Draft, x: Val) -> Val | None:
    usable = [op for op, since in _ACTIVATIONS if since <= draft.style.opset]
    return draft.op(draft.pick(usable), [x], x.shape)


@block(2, 3, 4, 5)
def clip(draft: Draft, x: Val) -> Val | None:
    low, high = draft.pick(((0.0, 6.0), (-1.0, 1.0), (0.0, 1.0), (0.5, 2.0)))
    if draft.style.opset < 11:
        return draft.op("Clip", [x], x.shape, min=low, max=high)
    bounds: list[Val | str] = [draft.scalar(low), draft.scalar(high)]
    if draft.chance(0.3):
        bounds[draft.pick((0, 1))] = ""
    return draft.op("Clip", [x, *bounds], x.shape)


@block(2, 3, 4, often=0.6)
def prelu(draft: Draft, x: Val) -> Val | None:
    channels = x.shape[1] if x.rank > 2 else x.shape[-1]
    if not isinstance(channels, int) or channels == 0:
        return None
    slope = draft.rng.uniform(0, 0.5, channels).astype(np.float32)
    shaped = slope.reshape(-1, *[1] * (x.rank - 2)) if x.rank > 2 else slope
    return draft.op("PRelu", [x, draft.constant(shaped)], x.shape)


@block(2, 3, 4, 5, often=3)
def with_constant(draft: Draft, x: Val) -> Val | None:
    op = draft.pick(("Add", "Sub", "Mul", "Div", "Max", "Min"))
    width = x.shape[-1]
    shape = draft.pick(((), (1,), (1,) * x.rank, (width,)))
    if not all(isinstance(dim, int) for dim in shape):
        shape = ()
    low = 0.5 if op == "Div" else -1.0
    operand = draft.constant(draft.rng.uniform(low, 1.5, shape).astype(np.float32))
    inputs = [operand, x] if op in {"Add", "Mul", "Sub"} and draft.chance(0.3) else [x, operand]
    # Max and Min broadcast since opset 8.
    if op in {"Max", "Min"} and draft.style.opset < 8:
        return None
    return draft.op(op, inputs, x.shape)


@block(2, 3, 4, 5, often=4)
def residual(draft: Draft, x: Val) -> Val | None:
    """Two activations of one shape, the earlier the better."""
    others = [value for value in draft.values if value.shape == x.shape and value is not x]
    if not others:
        return None
    op = draft.pick(("Add", "Add", "Mul", "Sub", "Max", "Where", "Mean", "Sum"))
    other = draft.pick(others)
    if op == "Where":
        if draft.style.opset < 9:
            return None
        mask = draft.op("Greater", [x, draft.scalar(0.1)], x.shape, BOOL)
        return draft.op("Where", [mask, x, other], x.shape)
    return draft.op(op, [x, other], x.shape)


@block(2, 3, 4)
def softmax(draft: Draft, x: Val) -> Val | None:
    return draft.op(draft.pick(("Softmax", "LogSoftmax")), [x], x.shape, axis=x.rank - 1)


@block(2, 3, often=1.5)
def layer_norm(draft: Draft, x: Val) -> Val | None:
    inner = x.shape[-1]
    if not isinstance(inner, int) or inner < 2:
        return None
    scale, shift = draft.vector(inner, 0.5, 1.5), draft.vector(inner)
    if draft.style.opset >= 17 and draft.chance(0.6):
        return draft.op("LayerNormalization", [x, scale, shift], x.shape, axis=-1, epsilon=1e-3)
    shape = (*x.shape[:-1], 1)
    center = draft.op("Sub", [x, _mean(draft, x)], x.shape)
    square = draft.op("Mul", [center, center], x.shape)
    spread = draft.op("Add", [_mean(draft, square), draft.scalar(1e-3)], shape)
    made = draft.op("Div", [center, draft.op("Sqrt", [spread], shape)], x.shape)
    return draft.op("Add", [draft.op("Mul", [made, scale], x.shape), shift], x.shape)


def _mean(draft: Draft, x: Val) -> Val:
    shape = (*x.shape[:-1], 1)
    return reduce_op(draft, "ReduceMean", x, [x.rank - 1], shape, keepdims=1)


def reduce_op(
    draft: Draft, op: str, x: Val, axes: list[int], shape: tuple[int | str, ...], *, keepdims: int
) -> Val:
    """A reduction; its axes are an input in newer opsets."""
    since = 13 if op == "ReduceSum" else 18
    if draft.style.opset >= since:
        return draft.op(op, [x, draft.ints(*axes)], shape, x.dtype, keepdims=keepdims)
    return draft.op(op, [x], shape, x.dtype, axes=axes, keepdims=keepdims)


@block(2, 3, often=1.5)
def reduction(draft: Draft, x: Val) -> Val | None:
    op = draft.pick(("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL2", "ReduceL1"))
    if x.shape[-1] == 0:
        return None
    if x.rank == 3 and draft.chance(0.5):
        return reduce_op(draft, op, x, [1], (x.shape[0], x.shape[2]), keepdims=0)
    made = reduce_op(draft, op, x, [x.rank - 1], (*x.shape[:-1], 1), keepdims=1)
    return draft.op(draft.pick(("Add", "Sub")), [x, made], x.shape)


@block(2, 3, 4, often=0.8)
def integer_island(draft: Draft, x: Val) -> Val | None:
    """Counting in integers, and back."""
    mask = draft.op("Less", [x, draft.scalar(0.2)], x.shape, BOOL)
    if draft.chance(0.3):
        mask = draft.op("Not", [mask], x.shape, BOOL)
    count = draft.op("Cast", [mask], x.shape, INT64, to=INT64)
    more = draft.op("Add", [count, draft.ints(1)], x.shape, INT64)
    number = draft.op("Cast", [more], x.shape, FLOAT, to=FLOAT)
    return draft.op("Mul", [x, number], x.shape)


@block(2, 3, 4, 5, often=0.5)
def dropout(draft: Draft, x: Val) -> Val | None:
    if draft.chance(0.5):
        return draft.ops("Dropout", [x], [x.shape])[0]
    kind = draft.pick((10, 11))
    low = draft.op("Cast", [x], x.shape, kind, to=kind)
    return draft.op("Cast", [draft.op("Tanh", [low], x.shape, kind)], x.shape, to=FLOAT)
