"""A product that multiplies packed integers: ``com.microsoft.MatMulNBits``.

Cases, for ``W`` constant ``[K, N]`` (a Gemm with ``transB``, and W on the left: ``[N, K]``)::

    MatMul(x, W)  ->  MatMulNBits(x, packed, scale, zero_point)
    Gemm(x, W, b) ->  MatMulNBits(x, packed, scale, zero_point, bias = b)
    MatMul(W, x)  ->  Transpose(MatMulNBits(Transpose(x), packed, scale, zero_point))

``packed`` is uint8 ``[N, blocks, block_size · bits / 8]``, ``scale`` ``[N, blocks]``; zero points
are packed too, and left out where all are ``2^(bits - 1)``. The transposes swap the last two axes.

Source: ONNX Runtime, contributed operators, MatMulNBits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq.errors import PlanError
from onnxq.numerics.packing import pack_zero_points
from onnxq.passes.base import contributed

if TYPE_CHECKING:
    from onnxq.passes.base import Editor
    from onnxq.passes.block_weight import BlockWeight
    from onnxq.plan import BlockEntry

_ZERO_POINT, _BIAS = 3, 5


class Products:
    """Writes products; those that share a weight share its packed integers."""

    def __init__(self, editor: Editor) -> None:
        """Nothing is packed yet."""
        self._editor = editor
        self._packed: dict[str, tuple[ir.Value, ir.Value]] = {}
        self._zero_points: dict[str, ir.Value] = {}

    def packed(self, weight: BlockWeight) -> tuple[ir.Value, ir.Value]:
        """The packed integers and the scales of a weight."""
        name = weight.name
        if name not in self._packed:
            coded = self._editor.constant(f"{name}_packed", weight.packed())
            self._packed[name] = coded, self._editor.constant(f"{name}_scale", weight.scale)
        return self._packed[name]

    def __call__(self, entry: BlockEntry, weight: BlockWeight) -> None:
        """Rewrite the node of ``entry``.

        Raises:
            PlanError: Its weight is no matrix, or the rank of an activation that has to be
                transposed is unknown.
        """
        editor, node = self._editor, self._editor.node(entry.node)
        if len(weight.layout.shape) != 2:
            raise _refused(entry, "MatMulNBits multiplies by a matrix", 'use the form "folded"')
        activation = node.inputs[entry.activation]
        if activation is None:
            return
        swap = _swap(entry, activation) if entry.weight == 0 else None
        chain = []
        if swap is not None:
            base = f"{activation.name}_swapped"
            turned = editor.add("Transpose", [activation], base, ir.DataType.FLOAT, {"perm": swap})
            chain.append(turned)
            activation = turned.outputs[0]
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        product = self._product(entry, weight, activation, bias)
        chain.append(product)
        if swap is not None:
            value, base = product.outputs[0], f"{node.name}_swapped"
            back = editor.add("Transpose", [value], base, ir.DataType.FLOAT, {"perm": swap})
            chain.append(back)
        name = node.name
        editor.replace(node, chain)
        product.name = name

    def _product(
        self, entry: BlockEntry, weight: BlockWeight, activation: ir.Value, bias: ir.Value | None
    ) -> ir.Node:
        inputs: list[ir.Value | None] = [activation, *self.packed(weight)]
        if not weight.symmetric:
            inputs.append(self._zero_point(weight))
        if bias is not None:
            inputs += [None] * (_BIAS - len(inputs)) + [bias]
        attributes = {
            "K": weight.layout.length,
            "N": weight.layout.channels,
            "bits": weight.bits,
            "block_size": weight.block_size,
            "accuracy_level": entry.accuracy_level,
        }
        base = f"{entry.node}_product"
        return contributed(self._editor, "MatMulNBits", inputs, base, attributes)

    def _zero_point(self, weight: BlockWeight) -> ir.Value:
        name = weight.name
        if name not in self._zero_points:
            packed = pack_zero_points(weight.zero_point, weight.bits)
            self._zero_points[name] = self._editor.constant(f"{name}_zero_point", packed)
        return self._zero_points[name]


def _swap(entry: BlockEntry, activation: ir.Value) -> tuple[int, ...]:
    if activation.shape is None or activation.shape.rank() < 2:
        text = "the weight stands on the left of an activation whose rank is not known to be 2"
        raise _refused(entry, f"{text} or more", 'use the form "folded"')
    axes = np.arange(activation.shape.rank())
    return (*axes[:-2].tolist(), int(axes[-1]), int(axes[-2]))


def _refused(entry: BlockEntry, text: str, remedy: str) -> PlanError:
    return PlanError("plan.blocks", text, where=entry.node, remedy=remedy)
