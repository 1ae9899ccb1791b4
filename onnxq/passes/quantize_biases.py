"""Store biases as int32 in units of activation scale times weight scale.

Case: ``Conv(x, w, b)`` or ``Gemm(x, w, b)`` with quantized x and w: ``b`` becomes
``b_quantized -> DequantizeLinear(scale = s_x s_w, zero_point = 0)``, the only form that ONNX
Runtime fuses into its integer kernels.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxq.passes.base import Editor, PlanPass
from onnxq.plan import Reader


class QuantizeBiases(PlanPass):
    """Replace the biases of ``plan.biases``."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replace each bias; two sites that share one get one each, since their scales differ."""
        editor = Editor(model)
        for entry in self.plan.biases:
            scale = np.asarray(self.plan.array("bias", entry.node, "scale"), np.float32)
            integers = np.asarray(self.plan.array("bias", entry.node, "integers"), np.int32)
            inputs = [
                editor.constant(f"{entry.initializer}_quantized", integers),
                editor.constant(f"{entry.initializer}_scale", scale),
                editor.constant(f"{entry.initializer}_zero_point", np.zeros(scale.shape, np.int32)),
            ]
            attributes = {"axis": 0} if scale.ndim else {}
            base = f"{entry.initializer}_dequantized"
            node = editor.add("DequantizeLinear", inputs, base, ir.DataType.FLOAT, attributes)
            node.outputs[0].shape = ir.Shape(integers.shape)
            editor.put_first(node)
            editor.rewire((Reader(node=entry.node, input=entry.input),), node.outputs[0])
        editor.drop_if_unread(entry.initializer for entry in self.plan.biases)
        return ir.passes.PassResult(model, modified=bool(self.plan.biases))
