"""Store the constant operand of an Add or Mul as integers of the activations' type.

Case: ``Add(x, c)`` becomes ``Add(x, DequantizeLinear(c_quantized))``. ``Sub(x, c)`` becomes an Add
of the negative, ``Div(x, c)`` a Mul by the reciprocal; the plan holds the integers of either.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxq.passes.base import Editor, PlanPass
from onnxq.plan import Reader


class QuantizeConstants(PlanPass):
    """Replace the constants of ``plan.constants``; nodes that read one alike share it."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replace each constant and rename the operator."""
        editor = Editor(model)
        made: dict[tuple[str, str], ir.Value] = {}
        for entry in self.plan.constants:
            key = (entry.initializer, entry.form)
            if key not in made:
                integers = np.asarray(self.plan.array("constant", entry.node, "integers"))
                base = entry.initializer
                zero_point = np.asarray(entry.zero_point, integers.dtype)
                inputs = [
                    editor.constant(f"{base}_quantized", integers),
                    editor.constant(f"{base}_scale", np.asarray(entry.scale, np.float32)),
                    editor.constant(f"{base}_zero_point", zero_point),
                ]
                name = f"{base}_dequantized"
                node = editor.add("DequantizeLinear", inputs, name, ir.DataType.FLOAT)
                node.outputs[0].shape = ir.Shape(integers.shape)
                editor.put_first(node)
                made[key] = node.outputs[0]
            editor.rewire((Reader(node=entry.node, input=entry.input),), made[key])
            editor.node(entry.node).op_type = entry.op
        editor.drop_if_unread(entry.initializer for entry in self.plan.constants)
        return ir.passes.PassResult(model, modified=bool(self.plan.constants))
