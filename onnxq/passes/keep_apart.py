"""Write an operator in another form that computes the same and is not fused.

Cases: ``Add(a, b)`` becomes ``Sum(a, b)``, broadcasting and result are the same; ``Relu(a)``
becomes ``Max(a, 0)``; ``node -> readers`` becomes ``node -> Sum -> readers``, a Sum of one operand.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxq.graph.edit import copy_output, replace_input
from onnxq.passes.base import Editor, PlanPass


class KeepApart(PlanPass):
    """Rename the operators of ``plan.kept_apart``; a Max gets its 0, a copy its Sum."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rename each."""
        editor = Editor(model)
        zero: ir.Value | None = None
        for entry in self.plan.kept_apart:
            node = editor.node(entry.node)
            if entry.op == "Copy":
                copy_output(node, editor.fresh)
                continue
            node.op_type = entry.op
            if entry.op == "Max":
                zero = zero or editor.constant("zero", np.zeros((), np.float32))
                replace_input(node, 1, zero)
        return ir.passes.PassResult(model, modified=bool(self.plan.kept_apart))
