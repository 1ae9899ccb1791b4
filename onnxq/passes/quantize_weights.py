"""Store weights as integers that become real numbers in front of their readers.

Cases: initializer ``W -> readers`` becomes ``W_quantized -> DequantizeLinear(axis) -> readers``; or
*folded*, ``W_quantized -> Cast -> Mul(scale) -> readers``, which ONNX Runtime computes once when it
loads the model, as it does not with a DequantizeLinear. One for each weight however many read it.
FP8 has no zero points.
The integers are made when the model is written, so that no more than one weight is held twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq.numerics.schemes import QParams
from onnxq.passes.base import Editor, PlanPass, check_axes, rounded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxq.plan import WeightEntry


class QuantizeWeights(PlanPass):
    """Replace the initializers of ``plan.weights``."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replace each weight."""
        editor = Editor(model)
        for entry in self.plan.weights:
            rank = len(editor.weight(entry.initializer).shape)
            check_axes(entry.scheme, rank, entry.initializer)
            make = self._folded if entry.folded else self._dequantized
            nodes = make(entry, editor)
            for node in nodes:
                node.outputs[0].shape = editor.value(entry.initializer).shape
            editor.put_first(nodes)
            editor.rewire(entry.readers, nodes[-1].outputs[0])
        editor.drop_if_unread(entry.initializer for entry in self.plan.weights)
        return ir.passes.PassResult(model, modified=bool(self.plan.weights))

    def _dequantized(self, entry: WeightEntry, editor: Editor) -> tuple[ir.Node, ...]:
        name, scale = entry.initializer, self._scale(entry)
        inputs = [
            editor.constant(f"{name}_quantized", self._integers(entry, editor)),
            editor.constant(f"{name}_scale", scale),
        ]
        if not entry.scheme.floating:
            zero_point = np.zeros(scale.shape, np.int8)
            inputs.append(editor.constant(f"{name}_zero_point", zero_point))
        attributes = {} if entry.axis is None else {"axis": entry.axis}
        base = f"{name}_dequantized"
        return (editor.add("DequantizeLinear", inputs, base, ir.DataType.FLOAT, attributes),)

    def _folded(self, entry: WeightEntry, editor: Editor) -> tuple[ir.Node, ...]:
        name, scale = entry.initializer, self._scale(entry)
        if entry.axis is not None:
            shape = [1] * len(editor.weight(name).shape)
            shape[entry.axis] = -1
            scale = scale.reshape(shape)
        integers = editor.constant(f"{name}_quantized", self._integers(entry, editor))
        to = {"to": int(ir.DataType.FLOAT)}
        cast = editor.add("Cast", [integers], f"{name}_cast", ir.DataType.FLOAT, to)
        inputs = [cast.outputs[0], editor.constant(f"{name}_scale", scale)]
        return cast, editor.add("Mul", inputs, f"{name}_folded", ir.DataType.FLOAT)

    def _scale(self, entry: WeightEntry) -> NDArray[np.float32]:
        return np.asarray(self.plan.array("weight", entry.initializer, "scale"), np.float32)

    def _integers(self, entry: WeightEntry, editor: Editor) -> ir.TensorProtocol:
        name = f"{entry.initializer}_quantized"
        chosen = self.plan.arrays.get(f"weight/{entry.initializer}/integers")
        if chosen is not None:
            return ir.tensor(chosen, name=name)
        scale = self._scale(entry)
        params = QParams(scale, np.zeros(scale.shape, entry.scheme.dtype), entry.scheme)
        return rounded(editor.weight(entry.initializer), params, name)
