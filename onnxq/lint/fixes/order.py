"""Writes two nodes in the other order.

Case: ``Cast(Transpose(x))``, where nobody else reads the Transpose, becomes ``Transpose(Cast(x))``:
the same numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxq.graph.edit import all_nodes
from onnxq.lint.checks.cpu_loading import cast_alone_behind
from onnxq.lint.fixes.registry import fix

if TYPE_CHECKING:
    from collections.abc import Mapping


@fix("transpose-and-cast")
def cast_first(model: ir.Model, names: frozenset[str]) -> None:
    """Put the Cast in front of the Transpose: the two nodes swap what they do, and their names."""
    for node in all_nodes(model):
        cast = cast_alone_behind(node) if node.name in names else None
        if cast is None:
            continue
        between, source = node.outputs[0], node.inputs[0]
        between.type = ir.TensorType(ir.DataType(cast.attributes.get_int("to")))
        between.shape = None if source is None else source.shape
        first, second = _copied(node), _copied(cast)
        _become(node, "Cast", second)
        _become(cast, "Transpose", first)
        node.name, cast.name = cast.name, node.name


def _copied(node: ir.Node) -> Mapping[str, ir.Attr]:
    return dict(node.attributes)


def _become(node: ir.Node, op: str, attributes: Mapping[str, ir.Attr]) -> None:
    node.op_type = op
    node.attributes.clear()
    node.attributes.update(attributes)
