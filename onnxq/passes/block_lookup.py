"""Rows of a table in blocks: ``com.microsoft.GatherBlockQuantized``.

Case, for a table ``T`` ``[rows, K]``::

    Gather(T, i)  ->  Slice(Reshape(GatherBlockQuantized(packed, i, scale, zero_point)), 0:K)

The packed integers ``[rows, blocks, bytes]`` are gathered as three axes, blocks along the last: so
an output projection that is tied to the table reads the same initializer, and no reshaped copy of
it is held in memory, as one would be once ONNX Runtime has computed ``Reshape(packed)``. The Slice
is left out where blocks divide K.

Source: ONNX Runtime, contributed operators, GatherBlockQuantized.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq.numerics.schemes import middle_of
from onnxq.passes.base import contributed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxq.passes.base import Editor
    from onnxq.passes.block_product import Products
    from onnxq.passes.block_weight import BlockWeight
    from onnxq.plan import BlockEmbeddingEntry


class Lookups:
    """Writes lookups; those that read one table share its integers, with its products too."""

    def __init__(self, editor: Editor, products: Products) -> None:
        """Nothing is written yet."""
        self._editor = editor
        self._products = products
        self._read: dict[str, list[ir.Value | None]] = {}

    def __call__(self, entry: BlockEmbeddingEntry, weight: BlockWeight) -> None:
        """Rewrite the node of ``entry``."""
        editor, gather = self._editor, self._editor.node(entry.node)
        indices, name = gather.inputs[1], f"{gather.outputs[0].name}"
        if indices is None:
            return
        coded, *others = self._table(weight)
        attributes = {
            "bits": weight.bits,
            "block_size": weight.block_size,
            "gather_axis": 0,
            "quantize_axis": 2,
        }
        inputs = [coded, indices, *others]
        rows = contributed(editor, "GatherBlockQuantized", inputs, f"{name}_blocks", attributes)
        chain = [rows, *self._joined(rows.outputs[0], indices, weight)]
        if weight.blocks * weight.block_size > weight.layout.length:
            joined = chain[-1].outputs[0]
            bounds = [
                editor.constant(f"{name}_{what}", np.asarray([number], np.int64))
                for what, number in (("from", 0), ("to", weight.layout.length), ("axis", -1))
            ]
            base = f"{name}_row"
            chain.append(editor.add("Slice", [joined, *bounds], base, ir.DataType.FLOAT))
        node_name = gather.name
        editor.replace(gather, chain)
        rows.name = node_name

    def _table(self, weight: BlockWeight) -> list[ir.Value | None]:
        """Integers, scales and zero points, each of three axes."""
        if weight.name not in self._read:
            editor, name = self._editor, weight.name
            coded, scale = self._products.packed(weight)
            shape = np.asarray([*weight.scale.shape, 1], np.int64)
            inputs = [scale, editor.constant(f"{name}_scale_shape", shape)]
            column = editor.add("Reshape", inputs, f"{name}_scale_column", ir.DataType.FLOAT)
            editor.put_first(column)
            zero = editor.constant(f"{name}_zero_point_column", _zero_points(weight))
            self._read[name] = [coded, column.outputs[0], zero]
        return self._read[weight.name]

    def _joined(
        self, blocks: ir.Value, indices: ir.Value, weight: BlockWeight
    ) -> tuple[ir.Node, ...]:
        """Blocks of each row in one row; the axes of the indices stay."""
        editor, base = self._editor, blocks.name
        length = np.asarray([weight.blocks * weight.block_size], np.int64)
        if indices.shape is not None:
            shape = np.concatenate([np.zeros(indices.shape.rank(), np.int64), length])
            inputs = [blocks, editor.constant(f"{base}_shape", shape)]
            return (editor.add("Reshape", inputs, f"{base}_joined", ir.DataType.FLOAT),)
        kind = ir.DataType.INT64
        own = editor.add("Shape", [indices], f"{base}_indices", kind)
        parts = [own.outputs[0], editor.constant(f"{base}_length", length)]
        whole = editor.add("Concat", parts, f"{base}_shape", kind, {"axis": 0})
        inputs = [blocks, whole.outputs[0]]
        join = editor.add("Reshape", inputs, f"{base}_joined", ir.DataType.FLOAT)
        return own, whole, join


def _zero_points(weight: BlockWeight) -> NDArray[np.uint8]:
    """``[rows, blocks, 1]``: written out where they are all alike too.

    Providers take other defaults for them and find them in other halves of a byte
    (microsoft/onnxruntime#31692, #32663), so every part of a byte holds the same.
    """
    if not weight.symmetric:
        return weight.zero_point[..., np.newaxis]
    byte = sum(middle_of(weight.bits) << shift for shift in range(0, 8, weight.bits))
    return np.full((*weight.scale.shape, 1), byte, np.uint8)
