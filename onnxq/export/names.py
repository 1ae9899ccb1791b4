"""Names each node after the PyTorch module that it comes from: ``encoder.layer.0.query.MatMul``.

PyTorch's exporter names nodes by a running number and notes, for each, the path of its module, the
source line and a stack trace. The path becomes the name, so that a pattern such as ``"*.query.*"``
finds the node; the rest is dropped, because it holds paths of the machine that exported.

Cases, first that holds:
    the exporter noted the path ``M`` of a module: ``M.Op``
    a weight ``M.weight`` is read: ``M.Op``
    neither: ``Op``
A fused node tries its weight first: what is noted there is the module that was folded in.
Nodes that would share a name get ``_1``, ``_2`` … in the graph's order.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

_SCOPES = "pkg.torch.onnx.name_scopes"


def name_after_modules(model: ir.Model) -> None:
    """Rename all nodes in place and drop the metadata of nodes, values and the model."""
    taken: dict[str, int] = {}
    for graph in model.graphs():
        for node in graph:
            scope = _scope(node)
            name = f"{scope}.{node.op_type}" if scope else node.op_type
            count = taken.get(name, 0)
            taken[name] = count + 1
            node.name = f"{name}_{count}" if count else name
            node.metadata_props.clear()
            for value in node.outputs:
                value.metadata_props.clear()
        for value in (*graph.inputs, *graph.initializers.values()):
            value.metadata_props.clear()
        graph.metadata_props.clear()
    model.metadata_props.clear()


def _scope(node: ir.Node) -> str:
    notes = node.metadata_props
    fused = any(key.endswith("rewriter.rule_name") for key in notes)
    try:
        # A list of paths from the outermost module to the operation itself.
        scopes = ast.literal_eval(notes.get(_SCOPES, "[]"))
    except (SyntaxError, ValueError):
        scopes = []
    # PyTorch puts a name of its own, "_…", where an operation belongs to no module.
    noted = str(scopes[-2]) if len(scopes) >= 2 and not scopes[-2].startswith("_") else ""
    return _weight_owner(node) or noted if fused else noted or _weight_owner(node)


def _weight_owner(node: ir.Node) -> str:
    for value in node.inputs:
        if value is not None and value.is_initializer() and (value.name or "").endswith(".weight"):
            return (value.name or "").removesuffix(".weight")
    return ""
