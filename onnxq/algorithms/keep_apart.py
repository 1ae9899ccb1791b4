"""Keep operators apart that the provider would fuse into a slower kernel.

The one case so far: ``Add -> LayerNormalization`` (a residual and its norm) becomes
SkipLayerNormalization in ONNX Runtime, whose CPU kernel is slower than the two
operators it replaces (``python -m tests.benchmarks.fusions`` measures it). ``Sum`` of two inputs
computes what ``Add`` does, and is not fused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxq.graph.edit import constant_array, consumers
from onnxq.plan import KeptApartEntry

if TYPE_CHECKING:
    from onnxq.algorithms.selection import Selection
    from onnxq.targets import Target

SKIP_NORM = "SkipLayerNormalization"


def find_kept_apart(
    model: ir.Model, selection: Selection, target: Target
) -> tuple[KeptApartEntry, ...]:
    """The float Adds in front of a LayerNormalization, if the target says to keep them apart.

    Args:
        model: The normalized model.
        selection: What is quantized; an Add that runs in integers stays an Add.
        target: What the provider fuses.
    """
    if SKIP_NORM not in target.keep_apart:
        return ()
    return tuple(
        KeptApartEntry(node=node.name or "", op="Sum")
        for node in model.graph
        if _is_residual(node) and node.outputs[0].name not in selection.made
    )


def _is_residual(node: ir.Node) -> bool:
    if node.domain or node.op_type != "Add" or node.outputs[0].dtype != ir.DataType.FLOAT:
        return False
    if any(constant_array(value) is not None for value in node.inputs):
        return False
    return any(
        reader.op_type == "LayerNormalization" and not reader.domain and index == 0
        for reader, index in consumers(node.outputs[0])
    )
