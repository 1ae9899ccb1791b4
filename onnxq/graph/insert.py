"""New nodes in front of an input or behind an output, in the graph where the node itself is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnxq.graph.edit import NameScope

    Attributes = Mapping[str, int | float | str | Sequence[int]]


def put_before(
    node: ir.Node,
    index: int,
    op: str,
    fresh: NameScope,
    *,
    others: Sequence[ir.Value] = (),
    attributes: Attributes | None = None,
) -> ir.Value | None:
    """Let one input of a node pass through a new node first.

    Args:
        node: Whose input it is.
        index: Which input.
        op: The new node's operator; it reads the input and then ``others``.
        fresh: Names that are free.
        others: Further inputs of the new node.
        attributes: The new node's attributes.

    Returns:
        The new node's output, of the input's type and unknown shape; None without such an input.
    """
    value = node.inputs[index]
    if value is None or node.graph is None:
        return None
    output = ir.Value(name=fresh(f"{value.name}.{op.lower()}"), type=value.type)
    name = fresh(f"{node.name}/{op}")
    new = ir.node(op, [value, *others], attributes or {}, outputs=[output], name=name)
    node.graph.insert_before(node, new)
    node.replace_input_with(index, output)
    return output


def put_behind(
    node: ir.Node,
    op: str,
    fresh: NameScope,
    *,
    others: Sequence[ir.Value] = (),
    attributes: Attributes | None = None,
    domain: str = "",
) -> ir.Node | None:
    """Let the first output of a node pass through a new node before anybody reads it.

    The new node's output takes over name, type, shape and readers; the node's own gets a name
    alike, its type, and no shape. Arguments as of :func:`put_before`, and the operator's domain.

    Returns:
        The new node; None if the node is in no graph.
    """
    old = node.outputs[0]
    if node.graph is None:
        return None
    name, kind, shape = old.name, old.type, old.shape
    output = ir.Value(name=fresh(f"{name}.{op.lower()}"), type=kind, shape=shape)
    new_name = fresh(f"{node.name}/{op}")
    read = [None, *others]
    new = ir.node(op, read, attributes or {}, outputs=[output], name=new_name, domain=domain)
    node.graph.insert_after(node, new)
    old.replace_all_uses_with(output, replace_graph_outputs=True)
    new.replace_input_with(0, old)
    old.name, output.name = output.name, name
    old.shape = None
    return new
