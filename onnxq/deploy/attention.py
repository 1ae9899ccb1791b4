"""Finds the attention of a decoder's layers between its projections, by way of their caches.

A layer whose cache is ``present = Concat(past, new)``, with Q, K, V of shape ``[batch, tokens,
heads * size]`` behind their projections:

    new keys    Transpose(Reshape(K)), turned by ``x * cos + half-swapped x * sin``
    new values  Transpose(Reshape(V))
    scores      MatMul(turned Transpose(Reshape(Q)), repeated present keys, transposed), times a
                constant, plus the mask
    output      Reshape(Transpose(MatMul(Softmax(scores), repeated present values)))

What lies between these points may be spelled in many ways, so only its operators are looked at;
that the layer computes what it seems to is for the caller to try out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from onnxq.graph.edit import constant_array, consumers

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir

_BY_HEADS: Final = [0, 2, 1, 3]
_MOVES: Final = frozenset({"Unsqueeze", "Expand", "Reshape", "Transpose", "Identity", "Cast"})
_TURNING: Final = frozenset({"Mul", "Add", "Slice", "Split", "Neg", "Concat"})
_STEPS: Final = 64


class UnknownAttentionError(Exception):
    """The attention is spelled in a way that is not known; the text says which."""


def decline(text: str) -> NoReturn:
    """Leave the attention as it is, for this reason.

    Raises:
        UnknownAttentionError: Always.
    """
    raise UnknownAttentionError(text)


@dataclass(frozen=True, slots=True)
class Attention:
    """One layer.

    Attributes:
        query: Q, behind its projection.
        key: K, likewise.
        value: V, likewise.
        cos: What turned channels are multiplied by, ``[batch, 1, tokens, size]`` of positions.
        sin: What swapped ones are multiplied by.
        scale: What scores are multiplied by.
        output: What the projection of the output reads.
    """

    query: ir.Value
    key: ir.Value
    value: ir.Value
    cos: ir.Value
    sin: ir.Value
    scale: float
    output: ir.Value


def attention_of(past: tuple[ir.Value, ir.Value], present: tuple[ir.Value, ir.Value]) -> Attention:
    """The attention of a layer.

    Args:
        past: The inputs of past keys and values.
        present: The outputs of present keys and values.

    Raises:
        UnknownAttentionError: It is spelled in another way.
    """
    new_key, new_value = (_appended(*pair) for pair in zip(past, present, strict=True))
    key, cos, sin = _turned(new_key)
    product, scale = _scores(present[0])
    query, inner = _scaled(product.inputs[0])
    query, *turned_by = _turned(query)
    if turned_by != [cos, sin]:
        decline("queries and keys are turned by different angles")
    node, after = _softmax(product.outputs[0])
    return Attention(
        query=_projected(query),
        key=_projected(key),
        value=_projected(new_value),
        cos=cos,
        sin=sin,
        scale=scale * inner * after,
        output=_joined(node),
    )


def _appended(past: ir.Value, present: ir.Value) -> ir.Value:
    node = present.producer()
    if node is None or node.op_type != "Concat" or len(node.inputs) != 2 or node.inputs[0] != past:
        decline(f"{present.name} is no Concat of {past.name} and new ones")
    return _given(node.inputs[1])


def _turned(value: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """What is turned, by cosines and sines: ``Add(Mul(x, cos), Mul(swapped x, sin))``."""
    node = value.producer()
    products = (
        [] if node is None or node.op_type != "Add" else [v.producer() for v in _inputs(node)]
    )
    for one, other in (products, products[::-1]) if len(products) == 2 else ():
        if one is None or other is None or {one.op_type, other.op_type} != {"Mul"}:
            continue
        for plain, cos in _both(one):
            if not _is_transpose(plain):
                continue
            for swapped, sin in _both(other):
                if _made_of(swapped, plain):
                    return plain, cos, sin
    decline("keys or queries are not turned by cosines and sines")


def _made_of(value: ir.Value, source: ir.Value) -> bool:
    """Whether a value is a rearrangement of another, signs apart."""
    node = value.producer()
    if node is None or node.op_type != "Concat":
        return False
    parts = [part.producer() for part in _inputs(node)]
    parts = [
        p.inputs[0].producer() if p and p.op_type == "Neg" and p.inputs[0] else p for p in parts
    ]
    return all(
        p is not None and p.op_type in {"Slice", "Split"} and p.inputs[0] is source for p in parts
    )


def _scores(present_key: ir.Value) -> tuple[ir.Node, float]:
    """The product of queries and keys, and what keys are multiplied by on the way."""
    value, factor = present_key, 1.0
    for _ in range(_STEPS):
        readers = [node for node, _ in consumers(value) if node.op_type != "Shape"]
        if len(readers) != 1:
            break
        node = readers[0]
        if node.op_type == "MatMul" and node.inputs[1] is value:
            return node, factor
        more = _factor(node)
        if node.op_type not in _MOVES and more is None:
            break
        factor *= 1.0 if more is None else more
        value = node.outputs[0]
    decline(f"nothing multiplies queries by {present_key.name}")


def _scaled(value: ir.Value | None) -> tuple[ir.Value, float]:
    """What is multiplied by a constant, and the constant; 1 where nothing is."""
    value = _given(value)
    node = value.producer()
    factor = None if node is None else _factor(node)
    if node is None or factor is None:
        return value, 1.0
    return _given(next(v for v in _inputs(node) if constant_array(v) is None)), factor


def _softmax(scores: ir.Value) -> tuple[ir.Node, float]:
    """The Softmax behind the scores, and what they are multiplied by before it."""
    value, factor = scores, 1.0
    masks = 0
    for _ in range(_STEPS):
        readers = consumers(value)
        if len(readers) != 1:
            break
        node = readers[0][0]
        if node.op_type == "Softmax":
            return node, factor
        more = _factor(node)
        masks += node.op_type == "Add" and more is None
        if masks > 1 or (node.op_type not in {"Add", "Cast"} and more is None):
            break
        factor *= 1.0 if more is None else more
        value = node.outputs[0]
    decline("between scores and Softmax is more than a factor and a mask")


def _joined(softmax: ir.Node) -> ir.Value:
    """What the projection behind the attention reads: heads side by side."""
    value = softmax.outputs[0]
    for op in ("MatMul", "Transpose", "Reshape"):
        readers = consumers(value)
        while len(readers) == 1 and readers[0][0].op_type in {"Cast", "Identity", "Dropout"}:
            readers = consumers(readers[0][0].outputs[0])
        if len(readers) != 1 or readers[0][0].op_type != op:
            decline(f"the Softmax is not followed by {op}")
        value = readers[0][0].outputs[0]
    return value


def _projected(by_heads: ir.Value) -> ir.Value:
    """``[batch, tokens, heads * size]`` of what became ``[batch, heads, tokens, size]``."""
    node = by_heads.producer()
    before = (
        node.inputs[0].producer() if node and _is_transpose(by_heads) and node.inputs[0] else None
    )
    if before is None or before.op_type != "Reshape":
        decline("heads are not split by Reshape and Transpose")
    return _given(before.inputs[0])


def _is_transpose(value: ir.Value) -> bool:
    node = value.producer()
    return (
        node is not None
        and node.op_type == "Transpose"
        and list(node.attributes.get_ints("perm", ())) == _BY_HEADS
    )


def _factor(node: ir.Node) -> float | None:
    """What a node multiplies by, if it multiplies by one constant."""
    if node.op_type not in {"Mul", "Div"}:
        return None
    for index, value in enumerate(node.inputs):
        array = constant_array(value)
        if array is not None and array.size == 1:
            number = float(array.reshape(-1)[0])
            if node.op_type == "Mul":
                return number
            return 1 / number if index == 1 and number else None
    return None


def _both(node: ir.Node) -> Iterator[tuple[ir.Value, ir.Value]]:
    first, second = _inputs(node)
    yield first, second
    yield second, first


def _inputs(node: ir.Node) -> list[ir.Value]:
    return [value for value in node.inputs if value is not None]


def _given(value: ir.Value | None) -> ir.Value:
    if value is None:
        decline("an input is left out")
    return value
