"""Store weights as integers with a DequantizeLinear in front of their readers.

Case: initializer ``W -> readers`` becomes ``W_quantized -> DequantizeLinear(axis) -> readers``, one
for each weight however many read it. The integers are made when the model is written, so that no
more than one weight is held twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq.numerics.schemes import QParams
from onnxq.passes.base import Editor, PlanPass, rounded

if TYPE_CHECKING:
    from onnxq.plan import WeightEntry


class QuantizeWeights(PlanPass):
    """Replace the initializers of ``plan.weights``."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replace each weight."""
        editor = Editor(model)
        for entry in self.plan.weights:
            weight = editor.value(entry.initializer)
            scale = np.asarray(self.plan.array("weight", entry.initializer, "scale"), np.float32)
            zeros = np.zeros(scale.shape, np.int8)
            inputs = [
                editor.constant(f"{entry.initializer}_quantized", self._integers(entry, editor)),
                editor.constant(f"{entry.initializer}_scale", scale),
                editor.constant(f"{entry.initializer}_zero_point", zeros),
            ]
            attributes = {} if entry.axis is None else {"axis": entry.axis}
            base = f"{entry.initializer}_dequantized"
            node = editor.add("DequantizeLinear", inputs, base, ir.DataType.FLOAT, attributes)
            node.outputs[0].shape = weight.shape
            editor.put_first(node)
            editor.rewire(entry.readers, node.outputs[0])
        editor.drop_if_unread(entry.initializer for entry in self.plan.weights)
        return ir.passes.PassResult(model, modified=bool(self.plan.weights))

    def _integers(self, entry: WeightEntry, editor: Editor) -> ir.TensorProtocol:
        name = f"{entry.initializer}_quantized"
        chosen = self.plan.arrays.get(f"weight/{entry.initializer}/integers")
        if chosen is not None:
            return ir.tensor(chosen, name=name)
        scale = np.asarray(self.plan.array("weight", entry.initializer, "scale"), np.float32)
        params = QParams(scale, np.zeros(scale.shape, np.int8), entry.scheme)
        return rounded(editor.weight(entry.initializer), params, name)
