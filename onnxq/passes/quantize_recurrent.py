"""Replace LSTMs by DynamicQuantizeLSTM, which quantizes input and state at run time.

Case: ``LSTM(X, W, R, ...)`` with constant ``W`` and ``R`` becomes ``com.microsoft
DynamicQuantizeLSTM`` with int8 weights in the order ``[directions, input, 4 hidden]`` and one scale
for each direction, gate and unit; its other inputs and its attributes stay.

Source: ONNX Runtime, contributed operators, DynamicQuantizeLSTM.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq.graph.opset import MICROSOFT
from onnxq.numerics.affine import quantize
from onnxq.numerics.schemes import QParams
from onnxq.passes.base import Editor, PlanPass

if TYPE_CHECKING:
    from onnxq.numerics.schemes import Scheme
    from onnxq.plan import DynamicRecurrentEntry

_LSTM_INPUTS = 8


class QuantizeRecurrent(PlanPass):
    """Rewrite the nodes of ``plan.recurrent``."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite each node; two that share a weight share its integers."""
        editor = Editor(model)
        made: dict[str, tuple[ir.Value, ir.Value, ir.Value]] = {}
        for entry in self.plan.recurrent:
            for name in entry.weights:
                if name not in made:
                    made[name] = self._weight(editor, entry, name)
            _rewrite(editor, editor.node(entry.node), *(made[name] for name in entry.weights))
        editor.drop_if_unread(made)
        if self.plan.recurrent:
            model.opset_imports.setdefault(MICROSOFT, 1)
        return ir.passes.PassResult(model, modified=bool(self.plan.recurrent))

    def _weight(
        self, editor: Editor, entry: DynamicRecurrentEntry, name: str
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        tensor = editor.weight(name)
        directions, rows, columns = tensor.shape.numpy()
        scale = np.asarray(self.plan.array("weight", name, "scale"), np.float32)
        lazy = ir.LazyTensor(
            partial(_rounded, tensor, scale, entry.scheme),
            dtype=ir.DataType.INT8,
            shape=ir.Shape((directions, columns, rows)),
            name=f"{name}_quantized",
        )
        return (
            editor.constant(f"{name}_quantized", lazy),
            editor.constant(f"{name}_scale", scale),
            editor.constant(f"{name}_zero_point", np.zeros(scale.shape, np.int8)),
        )


def _rounded(tensor: ir.TensorProtocol, scale: np.ndarray, scheme: Scheme) -> ir.TensorProtocol:
    weight = tensor.numpy()
    flat = scale.reshape(-1)
    params = QParams(flat, np.zeros(flat.shape, np.int8), scheme)
    integers = quantize(weight.reshape(-1, weight.shape[-1]), params).reshape(weight.shape)
    return ir.tensor(np.ascontiguousarray(integers.transpose(0, 2, 1)).astype(np.int8))


def _rewrite(
    editor: Editor,
    node: ir.Node,
    w: tuple[ir.Value, ir.Value, ir.Value],
    r: tuple[ir.Value, ir.Value, ir.Value],
) -> None:
    rest = [*node.inputs[3:], *[None] * (_LSTM_INPUTS - len(node.inputs))]
    inputs = [node.inputs[0], w[0], r[0], *rest, *w[1:], *r[1:]]
    outputs = [ir.val(editor.fresh(f"{node.name}_output"), ir.DataType.FLOAT) for _ in node.outputs]
    kept = [a for name, a in node.attributes.items() if name != "layout"]
    name = node.name
    made = ir.Node(
        MICROSOFT,
        "DynamicQuantizeLSTM",
        inputs,
        kept,
        outputs=outputs,
        name=editor.fresh(f"{name}/q"),
    )
    editor.replace(node, [made])
    made.name = name
