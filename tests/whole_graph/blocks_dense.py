"""Blocks that multiply by matrices: MatMul, Gemm, Einsum, tables, attention, fused operators."""

from __future__ import annotations

import numpy as np

from tests.whole_graph.blocks import block
from tests.whole_graph.draft import FLOAT, INT64, Draft, Val

_WIDTHS = (4, 6, 8, 12, 16)


def linear(draft: Draft, x: Val, width: int) -> Val | None:
    """A MatMul from the last axis to ``width``."""
    inner = x.shape[-1]
    if not isinstance(inner, int) or inner == 0:
        return None
    weight = draft.weight(inner, width, fan_in=inner, axis=1)
    return draft.op("MatMul", [x, weight], (*x.shape[:-1], width))


@block(2, 3, often=4)
def matmul(draft: Draft, x: Val) -> Val | None:
    made = linear(draft, x, draft.pick(_WIDTHS))
    if made is None or draft.chance(0.4):
        return made
    width = made.shape[-1]
    shape = draft.pick(((width,), (1, width), (1,), ()))
    bias = draft.constant(draft.rng.normal(size=shape).astype(np.float32), "bias")
    inputs = [made, bias] if draft.chance(0.7) else [bias, made]
    return draft.op("Add", inputs, made.shape)


@block(3)
def matmul_left(draft: Draft, x: Val) -> Val | None:
    inner = x.shape[-1]
    if not isinstance(inner, int) or inner == 0:
        return None
    width = draft.pick(_WIDTHS)
    turned = draft.op("Transpose", [x], (x.shape[0], inner, x.shape[1]), perm=[0, 2, 1])
    weight = draft.weight(width, inner, fan_in=inner, axis=0)
    made = draft.op("MatMul", [weight, turned], (x.shape[0], width, x.shape[1]))
    return draft.op("Transpose", [made], (x.shape[0], x.shape[1], width), perm=[0, 2, 1])


@block(3, often=0.5)
def batched_weight(draft: Draft, x: Val) -> Val | None:
    inner = x.shape[-1]
    if not isinstance(inner, int) or inner == 0:
        return None
    weight = draft.weight(1, inner, 8, fan_in=inner, axis=2)
    return draft.op("MatMul", [x, weight], (*x.shape[:-1], 8))


@block(2, often=4)
def gemm(draft: Draft, x: Val) -> Val | None:
    inner = x.shape[1]
    if not isinstance(inner, int) or inner == 0:
        return None
    width = draft.pick(_WIDTHS)
    turned, trans_a = x, int(draft.chance(0.2))
    if trans_a:
        turned = draft.op("Transpose", [x], (inner, x.shape[0]), perm=[1, 0])
    trans_b = int(draft.chance(0.5))
    shape = (width, inner) if trans_b else (inner, width)
    inputs = [turned, draft.weight(*shape, fan_in=inner, axis=1 - trans_b)]
    if draft.style.opset < 11 or draft.chance(0.7):
        bias = draft.pick(((width,), (1, width), (1,), (), (width,)))
        inputs.append(draft.constant(draft.rng.normal(size=bias).astype(np.float32), "bias"))
    alpha, beta = (draft.pick((1.0, 1.0, 1.0, 0.5)) for _ in range(2))
    attributes = {"transA": trans_a, "transB": trans_b, "alpha": alpha, "beta": beta}
    return draft.op("Gemm", inputs, (x.shape[0], width), **attributes)


@block(2, 3, since=12)
def einsum(draft: Draft, x: Val) -> Val | None:
    inner = x.shape[-1]
    if not isinstance(inner, int) or inner == 0:
        return None
    width = draft.pick(_WIDTHS)
    lead = "nt"[: x.rank - 1]
    turned = draft.chance(0.5)
    shape = (width, inner) if turned else (inner, width)
    weight = draft.weight(*shape, fan_in=inner, axis=0 if turned else 1)
    equation = f"{lead}f,{'mf' if turned else 'fm'}->{lead}m"
    return draft.op("Einsum", [x, weight], (*x.shape[:-1], width), equation=equation)


@block(2, often=0.6)
def lookup(draft: Draft, x: Val) -> Val | None:
    """An embedding of where the greatest element stands, now and then tied to a MatMul."""
    rows = x.shape[1]
    if not isinstance(rows, int) or rows == 0:
        return None
    at = draft.op("ArgMax", [x], (x.shape[0],), INT64, axis=1, keepdims=0)
    width = draft.pick(_WIDTHS)
    table = draft.weight(rows, width, fan_in=1, axis=0)
    found = draft.op("Gather", [table, at], (x.shape[0], width), axis=0)
    if draft.chance(0.5):
        return found
    turned = draft.op("Transpose", [table], (width, rows), perm=[1, 0])
    return draft.op("MatMul", [found, turned], (x.shape[0], rows))


@block(3, often=0.7)
def attention(draft: Draft, x: Val) -> Val | None:
    rows, steps, width = x.shape[0], x.shape[1], 8
    parts = [linear(draft, x, width) for _ in range(3)]
    if any(part is None for part in parts):
        return None
    q, k, v = (part for part in parts if part is not None)
    turned = draft.op("Transpose", [k], (rows, width, steps), perm=[0, 2, 1])
    scores = draft.op("MatMul", [q, turned], (rows, steps, steps))
    scaled = draft.op("Div", [scores, draft.scalar(width**0.5)], scores.shape)
    shares = draft.op("Softmax", [scaled], scores.shape, axis=2)
    mixed = draft.op("MatMul", [shares, v], (rows, steps, width))
    return linear(draft, mixed, 8)


@block(2, 3, often=0.7)
def fused(draft: Draft, x: Val) -> Val | None:
    """Operators that ONNX Runtime's transformer optimizer writes into files."""
    inner = x.shape[-1]
    if not isinstance(inner, int) or inner == 0:
        return None
    name = draft.pick(("FusedMatMul", "BiasGelu", "SkipLayerNormalization", "FusedGemm"))
    if name == "FusedMatMul":
        weight = draft.weight(8, inner, fan_in=inner)
        inputs = [x, weight]
        attributes = {"transB": 1, "alpha": draft.pick((1.0, 0.5))}
        return draft.op("com.microsoft::FusedMatMul", inputs, (*x.shape[:-1], 8), **attributes)
    if name == "BiasGelu":
        return draft.op("com.microsoft::BiasGelu", [x, draft.vector(inner)], x.shape)
    if name == "SkipLayerNormalization" and x.rank == 3:
        skip = draft.op("Mul", [x, draft.scalar(0.5)], x.shape)
        inputs = [x, skip, draft.vector(inner, 0.5, 1.5), draft.vector(inner)]
        return draft.op("com.microsoft::SkipLayerNormalization", inputs, x.shape)
    if x.rank != 2:
        return None
    weight = draft.weight(inner, 8, fan_in=inner, axis=1)
    inputs = [x, weight, draft.vector(8)]
    return draft.op(
        "com.microsoft::FusedGemm", inputs, (x.shape[0], 8), activation="Relu", alpha=1.0
    )


@block(3, often=1.5)
def recurrent(draft: Draft, x: Val) -> Val | None:
    rows, steps, inner = x.shape
    if not isinstance(inner, int) or inner == 0:
        return None
    kind = draft.pick(("LSTM", "GRU", "RNN"))
    gates, hidden = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], draft.pick((3, 4))
    both = draft.chance(0.3)
    ways = 2 if both else 1
    turned = draft.op("Transpose", [x], (steps, rows, inner), perm=[1, 0, 2])
    inputs: list[Val | str] = [
        turned,
        draft.weight(ways, gates * hidden, inner, fan_in=inner, axis=1),
        draft.weight(ways, gates * hidden, hidden, fan_in=hidden, axis=1),
    ]
    if draft.chance(0.7):
        size = (ways, 2 * gates * hidden)
        inputs.append(draft.constant(draft.rng.normal(size=size).astype(np.float32), "bias"))
    attributes = {"hidden_size": hidden, "direction": "bidirectional" if both else "forward"}
    made = draft.op(kind, inputs, (steps, ways, rows, hidden), **attributes)
    order = draft.op("Transpose", [made], (rows, steps, ways, hidden), perm=[2, 0, 1, 3])
    shape = draft.ints(0, 0, ways * hidden)
    return draft.op("Reshape", [order, shape], (rows, steps, ways * hidden))


@block(2, 3, often=1.2)
def other_precision(draft: Draft, x: Val) -> Val | None:
    """A MatMul in float16 or double between two Casts."""
    inner = x.shape[-1]
    if not isinstance(inner, int) or inner == 0:
        return None
    kind, number = draft.pick(((np.float16, 10), (np.float64, 11)))
    low = draft.op("Cast", [x], x.shape, number, to=number)
    array = (draft.rng.normal(size=(inner, 8)) / np.sqrt(inner)).astype(kind)
    made = draft.op("MatMul", [low, draft.constant(array, "w")], (*x.shape[:-1], 8), number)
    return draft.op("Cast", [made], made.shape, FLOAT, to=FLOAT)
