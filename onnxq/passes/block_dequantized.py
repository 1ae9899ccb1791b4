"""A weight in blocks as integers behind DequantizeLinear, which runs at each inference.

Unless the provider has a kernel for the pair: ONNX Runtime makes MatMulNBits of it and a MatMul.
Cases:
    - one block a channel: a scale for each output channel, along the weight's own axis;
    - one axis is summed over (MatMul, Gemm, experts): blocks along it, in the weight's own layout;
    - several are (Conv): blocks along the rows of ``[N, K]``, and a Reshape behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxq.passes.block_layout import to_own_layout

if TYPE_CHECKING:
    from onnxq.passes.base import Editor
    from onnxq.passes.block_weight import BlockWeight


def dequantized(editor: Editor, weight: BlockWeight) -> list[ir.Node]:
    """The nodes, not yet in the graph, the last of which gives the weight in its own layout."""
    layout, name = weight.layout, weight.name
    scale, zero = weight.scale, weight.zero_point
    attributes = {"axis": 1, "block_size": weight.block_size}
    own = not _misread(weight)
    if own and weight.blocks == 1 and len(layout.order) == len(layout.sums) + 1:
        scale, zero, attributes = scale[:, 0], zero[:, 0], {"axis": layout.order[0]}
    elif own and len(layout.sums) == 1:
        scale, zero = layout.restore(scale), layout.restore(zero)
        attributes["axis"] = layout.sums[0]
    else:
        own = False
    shape = layout.shape if own else (layout.channels, layout.length)
    integers = weight.stored(shape, own_layout=own)
    inputs = [
        editor.constant(f"{name}_quantized", integers),
        editor.constant(f"{name}_scale", scale),
    ]
    if not weight.symmetric:
        inputs.append(editor.constant(f"{name}_zero_point", weight.typed(zero)))
    base = f"{name}_dequantized"
    made = editor.add("DequantizeLinear", inputs, base, ir.DataType.FLOAT, attributes)
    return [made] if own else [made, *to_own_layout(editor, made.outputs[0], weight)]


def _misread(weight: BlockWeight) -> bool:
    """Integers of 2 bits ``[K, N]`` of which N is no multiple of 4.

    ONNX Runtime 1.32 makes MatMulNBits of their DequantizeLinear and the MatMul, and takes them for
    others. It leaves blocks of ``[N, K]`` with a Transpose behind alone.
    """
    return weight.bits == 2 and weight.layout.order == (1, 0) and bool(weight.layout.channels % 4)
