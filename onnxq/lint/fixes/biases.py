"""Writes biases of int32 in float.

Case: ``DequantizeLinear(b, s)`` of a constant vector becomes the constant ``b * s``, which is what
the DequantizeLinear computes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxq.graph.edit import NameScope, all_nodes, constant_array, initializer, remove_if_unread
from onnxq.lint.fixes.registry import fix
from onnxq.lint.qdq import scale_of, zero_point_of

if TYPE_CHECKING:
    import onnx_ir as ir


@fix("tensorrt-bias", "cuda-int32-bias")
def fold(model: ir.Model, names: frozenset[str]) -> None:
    """Let readers of the DequantizeLinear read a constant."""
    fresh = NameScope(model)
    for dq in [node for node in all_nodes(model) if node.name in names]:
        integers, scale, offset = constant_array(dq.inputs[0]), scale_of(dq), zero_point_of(dq)
        if integers is None or scale is None or offset is None or dq.graph is None:
            continue
        shifted = np.asarray(integers, np.int32) - np.asarray(offset, np.int32)
        # As ONNX Runtime does: int32 is beyond float16.
        bias = (shifted.astype(np.float32) * np.asarray(scale, np.float32)).astype(scale.dtype)
        value = initializer(model, fresh(f"{dq.outputs[0].name}.float"), bias)
        dq.outputs[0].replace_all_uses_with(value, replace_graph_outputs=True)
        read = [value for value in dq.inputs if value is not None]
        dq.graph.remove(dq, safe=True)
        for value in read:
            remove_if_unread(value)
