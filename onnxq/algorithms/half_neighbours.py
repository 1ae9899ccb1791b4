"""The nodes that stay float32 because of others, when others are converted to 16 bits.

A node follows, from the end of the graph to its head, where

- it divides by what is computed in float32: that may be small;
- all that read it need it exactly: angles, what is rounded to an integer, an input whose type is
  fixed beside inputs of 16 bits, and what computes only such values;
- it only hands on what nodes in float32 read: a Cast on each side would buy nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.algorithms.range_sensitive import EXACT_ARGUMENTS, MOVING
from onnxq.graph.edit import consumers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from onnxq.graph.half_slots import HalfSlots


def follow_neighbours(
    nodes: Sequence[ir.Node], slots: Mapping[str, HalfSlots], own: Mapping[str, str]
) -> dict[str, str]:
    """Why each node stays float32; empty where it does not.

    Args:
        nodes: Every node that computes with float32, in the order of the graph.
        slots: What of each may have 16 bits, by name.
        own: Why each stays of itself; empty where nothing is against it.
    """
    reasons = dict(own)
    for node in nodes:
        if not reasons[node.name or ""] and _divides_by_float(node, reasons):
            reasons[node.name or ""] = "it divides by what float32 computes, which may be small"
    exact: set[str] = set()
    for node in reversed(nodes):
        name = node.name or ""
        # The outputs of a node that nobody reads are the model's.
        readers = [use for value in node.outputs for use in consumers(value)]
        if reasons[name] or not readers:
            continue
        if all(_wants_exactly(use, slots, own, exact) for use in readers):
            exact.add(name)
            reasons[name] = "it computes what must be exact for who reads it"
        elif _moves(node) and all(reasons.get(reader.name or "") for reader, _ in readers):
            reasons[name] = "it only hands on what nodes in float32 read"
    return reasons


def _divides_by_float(node: ir.Node, reasons: Mapping[str, str]) -> bool:
    if node.op_type != "Div" or node.domain or node.inputs[1] is None:
        return False
    source = node.inputs[1].producer()
    return source is not None and bool(reasons.get(source.name or ""))


def _wants_exactly(
    use: tuple[ir.Node, int],
    slots: Mapping[str, HalfSlots],
    own: Mapping[str, str],
    exact: set[str],
) -> bool:
    reader, index = use
    name = reader.name or ""
    if name in exact:
        return True
    if reader.domain or name not in slots:
        return False
    if reader.op_type in EXACT_ARGUMENTS and own[name]:
        return True
    return index in slots[name].exact and bool(slots[name].inputs)


def _moves(node: ir.Node) -> bool:
    return node.op_type in MOVING and not node.domain
