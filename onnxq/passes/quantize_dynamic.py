"""Quantize activations at run time, in front of products with int8 weights.

Cases, for ``x`` float and ``W`` constant ``[K, N]`` (a Gemm with ``transB`` stores it transposed)::

    MatMul(x, W)  ->  Cast(MatMulInteger(x_q, W_q, x_zp)) * (x_scale * W_scale)
    Gemm(x, W, b) ->  the same + b
    x_q, x_scale, x_zp = DynamicQuantizeLinear(x), once for all readers of x

with ``W_scale`` of shape ``[N]``. ONNX Runtime fuses it into DynamicQuantizeMatMul, or into
MatMulIntegerToFloat where several products read one ``x``. Nodes in subgraphs are rewritten where
they stand. The MatMulInteger takes the name of the node that it stands for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq.numerics.schemes import QParams
from onnxq.passes.base import Editor, PlanPass, check_axes, rounded

if TYPE_CHECKING:
    from onnxq.plan import DynamicEntry

_QuantizedInput = tuple[ir.Value, ir.Value, ir.Value]


class QuantizeDynamic(PlanPass):
    """Rewrite the products of ``plan.dynamic``."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite each product."""
        editor = Editor(model)
        weights: dict[str, tuple[ir.Value, ir.Value]] = {}
        inputs: dict[ir.Value, _QuantizedInput] = {}
        for entry in self.plan.dynamic:
            node = editor.node(entry.node)
            x = node.inputs[entry.activation]
            if x is None:
                continue
            if entry.initializer not in weights:
                weights[entry.initializer] = self._weight(editor, entry)
            if x not in inputs:
                inputs[x] = _quantized(editor, x)
            _rewrite(editor, node, inputs[x], weights[entry.initializer])
        editor.drop_if_unread(weights)
        return ir.passes.PassResult(model, modified=bool(self.plan.dynamic))

    def _weight(self, editor: Editor, entry: DynamicEntry) -> tuple[ir.Value, ir.Value]:
        name = entry.initializer
        scale = np.asarray(self.plan.array("weight", name, "scale"), np.float32)
        check_axes(entry.scheme, 2, name)
        params = QParams(scale, np.zeros(scale.shape, np.int8), entry.scheme)
        order = (1, 0) if entry.axis == 0 else (0, 1)
        integers = rounded(editor.weight(name), params, f"{name}_quantized", order)
        coded = editor.constant(f"{name}_quantized", integers)
        return coded, editor.constant(f"{name}_scale", scale)


def _quantized(editor: Editor, x: ir.Value) -> _QuantizedInput:
    """``x`` quantized behind its producer, for every reader."""
    kinds = {
        "quantized": ir.DataType.UINT8,
        "scale": ir.DataType.FLOAT,
        "zero_point": ir.DataType.UINT8,
    }
    outputs = [ir.val(editor.fresh(f"{x.name}_{what}"), kind) for what, kind in kinds.items()]
    name = editor.fresh(f"{x.name}/DynamicQuantizeLinear")
    editor.put_behind(x, ir.node("DynamicQuantizeLinear", [x], outputs=outputs, name=name))
    return outputs[0], outputs[1], outputs[2]


def _rewrite(
    editor: Editor, node: ir.Node, x: _QuantizedInput, weight: tuple[ir.Value, ir.Value]
) -> None:
    name, floating = node.name or "", ir.DataType.FLOAT
    inputs = [x[0], weight[0], x[2]]
    product = editor.add("MatMulInteger", inputs, f"{name}_int32", ir.DataType.INT32)
    to = {"to": int(floating)}
    cast = editor.add("Cast", [product.outputs[0]], f"{name}_cast", floating, to)
    scale = editor.add("Mul", [x[1], weight[1]], f"{name}_scale", floating)
    inputs = [cast.outputs[0], scale.outputs[0]]
    chain = [product, cast, scale, editor.add("Mul", inputs, f"{name}_product", floating)]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        inputs = [chain[-1].outputs[0], bias]
        chain.append(editor.add("Add", inputs, f"{name}_biased", floating))
    editor.replace(node, chain)
    product.name = name
