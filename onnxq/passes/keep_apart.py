"""Write an operator in another form that computes the same and is not fused.

Case: ``Add(a, b)`` becomes ``Sum(a, b)``; broadcasting and result are the same.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxq.passes.base import Editor, PlanPass


class KeepApart(PlanPass):
    """Rename the operators of ``plan.kept_apart``; nothing else of the nodes changes."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rename each."""
        editor = Editor(model)
        for entry in self.plan.kept_apart:
            editor.node(entry.node).op_type = entry.op
        return ir.passes.PassResult(model, modified=bool(self.plan.kept_apart))
