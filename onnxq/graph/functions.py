"""Model-local functions: they end, and inlining them stays within bounds.

A function that calls itself, alone or through others, has no end. One that calls another twice,
which calls a third twice, and so on, has 2 ** n nodes once inlined. ONNX's shape inference, its
checker, ONNX Runtime and onnx_ir all walk into the calls, so this is settled before any of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.errors import ModelError
from onnxq.graph import limits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import onnx

_Key = tuple[str, str, str]
_AGAIN = "export the model again, without functions"


def check_functions(proto: onnx.ModelProto, where: str) -> None:
    """Refuse functions that are doubled, endless, too large, or do not make what they give.

    Args:
        proto: The parsed file.
        where: The file, for messages.

    Raises:
        ModelError: One of these holds.
    """
    functions = {(f.domain, f.name, f.overload): f for f in proto.functions}
    if len(functions) < len(proto.functions):
        code, text = "graph.doubled", "two functions have the same domain, name and overload"
        raise ModelError(code, text, where=where, remedy=_AGAIN)
    for function in proto.functions:
        made = {*function.input, *(name for node in function.node for name in node.output)}
        missing = [name for name in function.output if name not in made]
        if missing:
            code = "graph.undefined"
            text = f"output {missing[0]!r} of function {function.name!r} is made by no one"
            raise ModelError(code, text, where=where, remedy=_AGAIN)
    if not functions:
        return
    bodies = {key: _count(function.node) for key, function in functions.items()}
    sizes: dict[_Key, int] = {}
    for key in _callees_first(bodies, where):
        sizes[key] = _inlined(bodies[key], sizes, where)
    _inlined(_count(proto.graph.node), sizes, where)


def _count(nodes: Iterable[onnx.NodeProto]) -> dict[_Key, int]:
    """How often each operator occurs, subgraphs included."""
    counts: dict[_Key, int] = {}
    todo = [nodes]
    while todo:
        for node in todo.pop():
            key = (node.domain, node.op_type, node.overload)
            counts[key] = counts.get(key, 0) + 1
            for attribute in node.attribute:
                todo += [body.node for body in attribute.graphs]
                if attribute.HasField("g"):
                    todo.append(attribute.g.node)
    return counts


def _callees_first(bodies: Mapping[_Key, Mapping[_Key, int]], where: str) -> list[_Key]:
    """Every function behind those that it calls."""
    order: dict[_Key, None] = {}
    for first in bodies:
        # The way from `first` down to the current call, each with the calls it has yet to visit.
        way = {first: [key for key in bodies[first] if key in bodies]}
        while way:
            current = next(reversed(way))
            if current in order or not way[current]:
                order[current] = None
                del way[current]
                continue
            callee = way[current].pop()
            if callee in way:
                code, text = "graph.recursion", f"function {callee[1]!r} calls itself"
                raise ModelError(code, text, where=where, remedy=_AGAIN)
            way[callee] = [key for key in bodies[callee] if key in bodies]
    return list(order)


def _inlined(body: Mapping[_Key, int], sizes: Mapping[_Key, int], where: str) -> int:
    total = sum(count * sizes.get(key, 1) for key, count in body.items())
    if total > limits.NODES:
        code = "graph.too_large"
        text = f"it has more than {limits.NODES:,} nodes once its functions are inlined"
        raise ModelError(code, text, where=where, remedy=_AGAIN)
    return total
