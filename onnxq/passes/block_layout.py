"""From a matrix ``[N, K]`` back to a weight's own layout, by nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from onnxq.passes.base import Editor
    from onnxq.passes.block_weight import BlockWeight


def to_own_layout(editor: Editor, matrix: ir.Value, weight: BlockWeight) -> list[ir.Node]:
    """Reshape and Transpose behind ``matrix``, as far as they change anything."""
    layout, base = weight.layout, f"{weight.name}_matrix"
    nodes = []
    if len(layout.shape) > 2:
        shape = editor.constant(f"{base}_shape", np.asarray(layout.ordered, np.int64))
        nodes.append(editor.add("Reshape", [matrix, shape], f"{base}_reshaped", ir.DataType.FLOAT))
        matrix = nodes[-1].outputs[0]
    if layout.inverse != tuple(range(len(layout.shape))):
        turned, perm = f"{base}_transposed", {"perm": layout.inverse}
        nodes.append(editor.add("Transpose", [matrix], turned, ir.DataType.FLOAT, perm))
    return nodes
