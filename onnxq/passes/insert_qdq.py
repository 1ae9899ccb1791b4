"""Put QuantizeLinear and DequantizeLinear between a tensor and the readers that the plan names.

Case: ``x -> readers`` becomes ``x -> QuantizeLinear -> DequantizeLinear -> readers``. One pair for
each tensor; readers that the plan does not name (graph outputs, subgraphs, shape arithmetic, float
nodes) keep reading ``x`` itself. Pairs of 16 bits are those of com.microsoft below opset 21.

FP8 has no zero point: QuantizeLinear names its type instead (``output_dtype``, opset 21). Of a zero
point ONNX Runtime 1.32 thinks that it is the lowest integer, whatever its type, so that it drops a
Relu in front of the quantizer and ends in an error at a Clip.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxq.graph.opset import conversion_domain
from onnxq.passes.base import Editor, PlanPass


class InsertQDQ(PlanPass):
    """Insert the pairs of ``plan.activations``."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Insert each pair behind the tensor's producer."""
        editor = Editor(model)
        for entry in self.plan.activations:
            value = editor.value(entry.tensor)
            params = entry.params()
            number = ir.DataType.from_numpy(params.scheme.dtype)
            attributes = {"output_dtype": int(number)} if params.scheme.floating else {}
            how = [editor.constant(f"{entry.tensor}_scale", np.asarray(params.scale))]
            if not params.scheme.floating:
                zero_point = np.asarray(params.zero_point)
                how.append(editor.constant(f"{entry.tensor}_zero_point", zero_point))
            base = f"{entry.tensor}_quantized"
            quantize = editor.add("QuantizeLinear", [value, *how], base, number, attributes)
            base = f"{entry.tensor}_dequantized"
            inputs = [quantize.outputs[0], *how]
            dequantize = editor.add("DequantizeLinear", inputs, base, ir.DataType.FLOAT)
            for node in (quantize, dequantize):
                node.domain = conversion_domain(model, entry.bits)
                node.outputs[0].shape = value.shape
            editor.put_behind(value, (quantize, dequantize))
            editor.rewire(entry.readers, dequantize.outputs[0])
        return ir.passes.PassResult(model, modified=bool(self.plan.activations))
