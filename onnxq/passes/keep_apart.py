"""Write an operator in another form that computes the same and is not fused.

Case: ``Add(a, b)`` becomes ``Sum(a, b)``; broadcasting and result are the same.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxq.passes.base import Editor, PlanPass


class KeepApart(PlanPass):
    """Replace the operators of ``plan.kept_apart``; names stay."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replace each."""
        editor = Editor(model)
        for entry in self.plan.kept_apart:
            node = editor.node(entry.node)
            old = node.outputs[0]
            value = ir.val(old.name, old.dtype, old.shape)
            twin = ir.node(entry.op, list(node.inputs), outputs=[value], name=node.name)
            model.graph.insert_before(node, twin)
            ir.convenience.replace_all_uses_with(old, value, replace_graph_outputs=True)
            model.graph.remove(node, safe=True)
        return ir.passes.PassResult(model, modified=bool(self.plan.kept_apart))
