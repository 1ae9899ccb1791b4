"""MatMul with a matrix as its weight.

Case: a constant on the right of shape ``[1, ..., 1, K, N]``, where the activation is known to have
at least as many axes: the weight becomes ``[K, N]``, and the product keeps its shape. Otherwise the
axes of length 1 would be missing in the result.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxq.graph.derived import Deriver, Reshaped
from onnxq.graph.edit import nodes_below, remove_if_unread
from onnxq.graph.weighted import plain_constant


class PlainMatMulPass(ir.passes.InPlacePass):
    """Take leading axes of length 1 from the weights of MatMul."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place, in the graph and its subgraphs; wants the ranks of values."""
        derive = Deriver(model)
        changed = False
        for node in list(nodes_below(model.graph)):
            if node.op_type == "MatMul" and not node.domain:
                changed |= _rewrite(node, derive)
        return ir.passes.PassResult(model, changed)

    def __repr__(self) -> str:
        """The pass's name."""
        return "PlainMatMulPass()"


def _rewrite(node: ir.Node, derive: Deriver) -> bool:
    weight, activation = plain_constant(node, 1, derive.model), node.inputs[0]
    if weight is None or weight.const_value is None:
        return False
    shape = tuple(weight.const_value.shape.numpy())
    if len(shape) < 3 or set(shape[:-2]) != {1}:
        return False
    if activation is None or activation.shape is None or activation.shape.rank() < len(shape):
        return False
    node.replace_input_with(1, derive(weight, (Reshaped(shape[-2:]),), "matrix"))
    remove_if_unread(weight)
    return True
