"""Store weights in blocks beside float activations: ``com.microsoft.MatMulNBits``.

Cases, for ``W`` constant ``[K, N]`` (a Gemm with ``transB``: ``[N, K]``)::

    MatMul(x, W)  ->  MatMulNBits(x, W_packed, W_scale)
    Gemm(x, W, b) ->  MatMulNBits(x, W_packed, W_scale, bias = b)

``W_packed`` is uint8 ``[N, blocks, block_size]``: the integers of each output channel with 128
added, the last block filled up with zeros; ``W_scale`` is ``[N, blocks]``.

Source: ONNX Runtime, contributed operators, MatMulNBits.
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
    from onnxq.plan import BlockEntry

_BIAS = 5


class PackBlocks(PlanPass):
    """Rewrite the products of ``plan.blocks``."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite each product; nodes that share a weight share its integers."""
        editor = Editor(model)
        packed: dict[str, tuple[ir.Value, ir.Value]] = {}
        for entry in self.plan.blocks:
            node = editor.node(entry.node)
            if entry.initializer not in packed:
                packed[entry.initializer] = self._packed(editor, entry)
            tensor = editor.weight(entry.initializer)
            _rewrite(editor, node, entry, packed[entry.initializer], tensor)
        editor.drop_if_unread(packed)
        if self.plan.blocks:
            model.opset_imports.setdefault(MICROSOFT, 1)
        return ir.passes.PassResult(model, modified=bool(self.plan.blocks))

    def _packed(self, editor: Editor, entry: BlockEntry) -> tuple[ir.Value, ir.Value]:
        name, tensor = entry.initializer, editor.weight(entry.initializer)
        scale = np.asarray(self.plan.array("block", name, "scale"), np.float32)
        params = QParams(scale, np.zeros(scale.shape, np.int8), entry.scheme)
        by_channel = scale if entry.axis == 0 else scale.T
        lazy = ir.LazyTensor(
            partial(_pack, tensor, params, entry.axis, entry.block_size),
            dtype=ir.DataType.UINT8,
            shape=ir.Shape((*by_channel.shape, entry.block_size)),
            name=f"{name}_packed",
        )
        coded = editor.constant(f"{name}_packed", lazy)
        return coded, editor.constant(f"{name}_scale", np.ascontiguousarray(by_channel))


def _pack(
    tensor: ir.TensorProtocol, params: QParams, axis: int, block_size: int
) -> ir.TensorProtocol:
    integers = np.moveaxis(quantize(tensor.numpy(), params), axis, 0)
    channels, length = integers.shape
    blocks = -(-length // block_size)
    coded = np.full((channels, blocks * block_size), 128, np.uint8)
    coded[:, :length] = (integers.astype(np.int16) + 128).astype(np.uint8)
    return ir.tensor(coded.reshape(channels, blocks, block_size))


def _rewrite(
    editor: Editor,
    node: ir.Node,
    entry: BlockEntry,
    packed: tuple[ir.Value, ir.Value],
    tensor: ir.TensorProtocol,
) -> None:
    shape = tuple(tensor.shape.numpy())
    inputs: list[ir.Value | None] = [node.inputs[entry.activation], *packed]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        inputs += [None] * (_BIAS - len(inputs)) + [bias]
    made = ir.node(
        "MatMulNBits",
        inputs,
        {
            "K": shape[1 - entry.axis],
            "N": shape[entry.axis],
            "bits": entry.bits,
            "block_size": entry.block_size,
            "accuracy_level": entry.accuracy_level,
        },
        domain=MICROSOFT,
        outputs=[ir.val(editor.fresh(f"{node.name}_product"), ir.DataType.FLOAT)],
        name=editor.fresh(f"{node.name}/MatMulNBits"),
    )
    name = node.name
    editor.replace(node, [made])
    made.name = name
