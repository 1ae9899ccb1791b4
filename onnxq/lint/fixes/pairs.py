"""Removes Q/DQ pairs.

Cases:
    - ``x -> Q -> DQ -> y`` becomes ``x -> y`` for each DQ of the Q's parameters that gives what the
      Q reads, in its type; a Q that nobody reads any more goes too;
    - where ``y`` is an output of the model, ``x`` takes its name and becomes the output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.graph.edit import NameScope, all_nodes, consumers, remove_if_unread
from onnxq.lint.fixes.registry import fix
from onnxq.lint.qdq import can_bypass, is_dq, readers

if TYPE_CHECKING:
    import onnx_ir as ir


@fix("idle-pair", "pair-twice")
def bypass(model: ir.Model, names: frozenset[str]) -> None:
    """Let readers of a pair read what the pair reads."""
    fresh = NameScope(model)
    for q in [node for node in all_nodes(model) if node.name in names]:
        source = q.inputs[0]
        if source is None:
            continue
        for dq in [node for node in readers(q) if is_dq(node) and can_bypass(q, node)]:
            _pass_on(dq.outputs[0], source, fresh)
            _remove(dq)
        if not consumers(q.outputs[0]):
            _remove(q)


def _pass_on(old: ir.Value, source: ir.Value, fresh: NameScope) -> None:
    """Let readers, and the graph where it is an output, have another value."""
    name, was_output = old.name, old.is_graph_output()
    old.replace_all_uses_with(source, replace_graph_outputs=True)
    if was_output:
        old.name = fresh(f"{name}.dequantized")
        source.name, source.type, source.shape = name, old.type, old.shape


def _remove(node: ir.Node) -> None:
    read = [value for value in node.inputs if value is not None]
    if node.graph is not None:
        node.graph.remove(node, safe=True)
    for value in read:
        remove_if_unread(value)
