"""A weight in blocks as integers that become float once, when ONNX Runtime loads the model.

``integers -> Cast -> Sub(zero_point) -> Mul(scale) -> Reshape -> Slice -> readers``: float's speed
and memory from a small file. ONNX Runtime computes Cast and Mul when it loads a model, as it does
not with a DequantizeLinear; it keeps what each of them gives until the session ends, so that there
are as few as can be:

* no Sub where the weight is symmetric;
* no Reshape where a channel is one block; else the axis that is summed over is stored as two,
  ``blocks`` and ``block_size``, so that scales broadcast;
* a Slice only where blocks do not divide K and the last is filled up.

Where several axes are summed over (Conv) the integers are ``[N, K]``, reshaped at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq.passes.block_layout import to_own_layout

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxq.passes.base import Editor
    from onnxq.passes.block_weight import BlockWeight

_FLOAT = ir.DataType.FLOAT


def folded(editor: Editor, weight: BlockWeight) -> list[ir.Node]:
    """The nodes, not yet in the graph, the last of which gives the weight in its own layout."""
    layout, name = weight.layout, weight.name
    own = len(layout.sums) == 1
    shape, axis = (layout.shape, layout.sums[0]) if own else ((layout.channels, layout.length), 1)
    split = shape
    if weight.blocks > 1:
        split = (*shape[:axis], weight.blocks, weight.block_size, *shape[axis + 1 :])
    nodes = _products(editor, weight, split, axis)
    value, filled = nodes[-1].outputs[0], weight.blocks * weight.block_size
    if weight.blocks > 1:
        whole = np.asarray((*shape[:axis], filled, *shape[axis + 1 :]), np.int64)
        inputs = [value, editor.constant(f"{name}_whole", whole)]
        nodes.append(editor.add("Reshape", inputs, f"{name}_joined", _FLOAT))
        value = nodes[-1].outputs[0]
    if weight.blocks > 1 and filled > layout.length:
        bounds = [
            editor.constant(f"{name}_{what}", np.asarray([number], np.int64))
            for what, number in (("from", 0), ("to", layout.length), ("axis", axis))
        ]
        nodes.append(editor.add("Slice", [value, *bounds], f"{name}_part", _FLOAT))
        value = nodes[-1].outputs[0]
    return nodes if own else nodes + to_own_layout(editor, value, weight)


def _products(
    editor: Editor, weight: BlockWeight, split: tuple[int, ...], axis: int
) -> list[ir.Node]:
    """``(integers - zero_point) · scale`` in the shape ``split``."""
    name, to = weight.name, {"to": int(_FLOAT)}
    own = len(weight.layout.sums) == 1

    def beside(array: NDArray[np.generic]) -> NDArray[np.generic]:
        """An array of ``[N, blocks]`` so that it broadcasts."""
        placed = weight.layout.restore(array) if own else array
        return np.expand_dims(placed, axis + 1) if weight.blocks > 1 else placed

    integers = weight.stored(split, own_layout=own)
    coded = editor.constant(f"{name}_quantized", integers)
    nodes = [editor.add("Cast", [coded], f"{name}_cast", _FLOAT, to)]
    value = nodes[-1].outputs[0]
    if not weight.symmetric:
        points = weight.typed(np.asarray(beside(weight.zero_point), np.uint8))
        zero = editor.constant(f"{name}_zero_point", points)
        nodes.append(editor.add("Cast", [zero], f"{name}_zero_point_cast", _FLOAT, to))
        inputs = [value, nodes[-1].outputs[0]]
        nodes.append(editor.add("Sub", inputs, f"{name}_shifted", _FLOAT))
        value = nodes[-1].outputs[0]
    inputs = [value, editor.constant(f"{name}_scale", beside(weight.scale))]
    nodes.append(editor.add("Mul", inputs, f"{name}_folded", _FLOAT))
    return nodes
