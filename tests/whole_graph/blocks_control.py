"""Blocks with bodies: If, Loop, Scan, model-local functions, sequences and optionals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper

from tests.whole_graph.blocks import block
from tests.whole_graph.blocks_dense import linear
from tests.whole_graph.blocks_pointwise import reduce_op
from tests.whole_graph.draft import BOOL, FLOAT, INT64, Draft, Shape, Val

if TYPE_CHECKING:
    from collections.abc import Sequence

FUNCTION_DOMAIN = "local.test"


def info(value: Val) -> onnx.ValueInfoProto:
    """What a graph declares of an input or output."""
    return helper.make_tensor_value_info(value.name, value.dtype, list(value.shape))


def _body(
    draft: Draft, inner: Draft, inputs: Sequence[Val], outputs: Sequence[Val]
) -> onnx.GraphProto:
    """The graph of a body; its weights lie in it, or in the graph around it."""
    own = draft.chance(0.5)
    if not own:
        draft.initializers.extend(inner.initializers)
    return helper.make_graph(
        inner.nodes,
        draft.fresh("body"),
        [info(value) for value in inputs],
        [info(value) for value in outputs],
        inner.initializers if own else [],
    )


@block(2, 3, often=1.2)
def branch(draft: Draft, x: Val) -> Val | None:
    """If: both branches capture the value, and maybe a weight that others share."""
    axes = list(range(x.rank))
    total = reduce_op(draft, "ReduceSum", x, axes, (), keepdims=0)
    condition = draft.op("Greater", [total, draft.scalar(0.0)], (), BOOL)
    known = len(draft.weights)
    first, second = draft.child(), draft.child()
    # A weight of the graph around is captured.
    first.weights, second.weights = draft.weights, draft.weights
    one = linear(first, x, 8)
    two = linear(second, x, 8)
    if one is None or two is None:
        return None
    if draft.chance(0.5):
        two = second.op("Relu", [two], two.shape)
    bodies: dict[str, Any] = {
        "then_branch": _body(draft, first, [], [one]),
        "else_branch": _body(draft, second, [], [two]),
    }
    # Those that were made in the branches may not be seen from outside.
    del draft.weights[known:]
    return draft.op("If", [condition], one.shape, **bodies)


@block(2, since=11, often=0.8)
def loop(draft: Draft, x: Val) -> Val | None:
    """Loop: a state that a captured square weight multiplies."""
    width = x.shape[1]
    if not isinstance(width, int) or width == 0:
        return None
    body = draft.child()
    step, go = Val(draft.fresh("step"), (), INT64), Val(draft.fresh("go"), (), BOOL)
    state = Val(draft.fresh("state"), x.shape)
    product = linear(body, state, width)
    if product is None:
        return None
    after = body.op("Tanh", [product], x.shape)
    on = body.op("Identity", [go], (), BOOL)
    graph = _body(draft, body, [step, go, state], [on, after])
    count = draft.constant(np.asarray(draft.pick((0, 1, 3)), np.int64))
    true = draft.constant(np.asarray(True))
    return draft.op("Loop", [count, true, x], x.shape, body=graph)


@block(3, since=9, often=0.8)
def scan(draft: Draft, x: Val) -> Val | None:
    """Scan over steps, with a state."""
    rows, steps, width = x.shape
    if not isinstance(width, int) or not isinstance(steps, int | str) or width == 0:
        return None
    turned = draft.op("Transpose", [x], (steps, rows, width), perm=[1, 0, 2])
    start = reduce_op(draft, "ReduceMean", x, [1], (rows, width), keepdims=0)
    body = draft.child()
    state = Val(draft.fresh("state"), (rows, width))
    piece = Val(draft.fresh("piece"), (rows, width))
    product = linear(body, piece, width)
    if product is None:
        return None
    mixed = body.op("Add", [product, state], state.shape)
    after = body.op("Tanh", [mixed], state.shape)
    out = body.op("Identity", [after], state.shape)
    graph = _body(draft, body, [state, piece], [after, out])
    shapes: list[Shape] = [(rows, width), (steps, rows, width)]
    _, made = draft.ops("Scan", [start, turned], shapes, body=graph, num_scan_inputs=1)
    return draft.op("Transpose", [made], x.shape, perm=[1, 0, 2])


@block(2, 3, ir_version=8, often=1.5)
def function(draft: Draft, x: Val) -> Val | None:
    """A model-local function, called with weights or holding a constant; maybe through another."""
    inner = x.shape[-1]
    if not isinstance(inner, int) or inner == 0:
        return None
    _define(draft)
    weight = draft.weight(inner, 8, fan_in=inner, axis=1)
    name = draft.pick(("Layer", "Twice"))
    shape = (*x.shape[:-1], 8)
    return draft.op(f"{FUNCTION_DOMAIN}::{name}", [x, weight, draft.vector(8)], shape)


def _define(draft: Draft) -> None:
    if "Layer" in draft.functions:
        return
    opsets = [helper.make_opsetid("", draft.style.opset), helper.make_opsetid(FUNCTION_DOMAIN, 1)]
    mean = helper.make_tensor("scale", FLOAT, [1], [0.5])
    layer = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["s"]),
        helper.make_node("Constant", [], ["c"], value=mean),
        helper.make_node("Mul", ["s", "c"], ["m"]),
        helper.make_node("Relu", ["m"], ["y"]),
    ]
    twice = [
        helper.make_node("Layer", ["x", "w", "b"], ["h"], domain=FUNCTION_DOMAIN),
        helper.make_node("Tanh", ["h"], ["y"]),
    ]
    for name, nodes in (("Layer", layer), ("Twice", twice)):
        draft.functions[name] = helper.make_function(
            FUNCTION_DOMAIN, name, ["x", "w", "b"], ["y"], nodes, opsets
        )


@block(2, 3, since=11, often=0.6)
def sequence(draft: Draft, x: Val) -> Val | None:
    """Through a sequence and back."""
    whole = draft.op("SequenceConstruct", [x, x], ())
    if draft.chance(0.5):
        at = draft.constant(np.asarray(1, np.int64))
        return draft.op("SequenceAt", [whole, at], x.shape)
    width = x.shape[-1]
    if not isinstance(width, int) or width > 16:
        return None
    shape = (*x.shape[:-1], 2 * width)
    return draft.op("ConcatFromSequence", [whole], shape, axis=x.rank - 1)


@block(2, 3, since=18, often=0.4)
def optional(draft: Draft, x: Val) -> Val | None:
    """Through an optional and back."""
    whole = draft.op("Optional", [x], ())
    return draft.op("OptionalGetElement", [whole], x.shape)
