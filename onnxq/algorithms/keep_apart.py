"""Keep operators apart where the provider would do worse with them together.

``Add -> LayerNormalization`` (a residual and its norm) becomes SkipLayerNormalization in ONNX
Runtime, whose CPU kernel is slower than the two operators it replaces (``python -m
tests.benchmarks.fusions`` measures it). ``Sum`` of two inputs computes what ``Add`` does, and is
not fused.

``Q/DQ -> MatMul -> Relu -> float``: ONNX Runtime looks for a quantizer behind the Relu, finds none,
and leaves the product in float. A ``Max`` with 0 computes what ``Relu`` does, and is not looked
behind. ``Q/DQ -> MatMul -> Add`` of two activations becomes a Gemm with a float bias, before
anything looks for quantizers, and stays float; ``Sum`` again is not fused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import onnx_ir as ir

from onnxq.graph.edit import constant_array, consumers, node_by_name
from onnxq.plan import KeptApartEntry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxq.algorithms.selection import Selection
    from onnxq.targets import Target

SKIP_NORM = "SkipLayerNormalization"
_UNCOVERED: Final[Mapping[tuple[str, str], Literal["Sum", "Max"]]] = {
    ("MatMul", "Add"): "Sum",
    ("MatMul", "Relu"): "Max",
    ("Gemm", "Relu"): "Max",
}
"""What to write for a node behind a product. A Sum behind a Gemm would be merged into it."""


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


def find_uncovered(
    model: ir.Model, selection: Selection, target: Target
) -> tuple[KeptApartEntry, ...]:
    """The float nodes behind products of static INT8 because of which those would stay float.

    Args:
        model: The normalized model.
        selection: What is quantized; a Relu that a quantizer absorbs is gone.
        target: What keeps products float.
    """
    nodes = node_by_name(model.graph)
    found: dict[str, KeptApartEntry] = {}
    for site in selection.chosen:
        readers = {node.name: node for node, _ in consumers(nodes[site.name].outputs[0])}
        if len(readers) != 1:
            continue
        (node,) = readers.values()
        name, output = node.name or "", node.outputs[0]
        taken = name in selection.absorbed or output.name in selection.made
        constant = any(constant_array(value) is not None for value in node.inputs)
        # Behind a Relu that nobody reads there is nothing to look at.
        last = node.op_type == "Relu" and not consumers(output)
        op = _UNCOVERED.get((site.op, node.op_type)) if node.op_type in target.covers else None
        if op is not None and not (node.domain or taken or constant or last):
            found[name] = KeptApartEntry(node=name, op=op)
    return tuple(found.values())


def _is_residual(node: ir.Node) -> bool:
    if node.domain or node.op_type != "Add" or node.outputs[0].dtype != ir.DataType.FLOAT:
        return False
    if any(constant_array(value) is not None for value in node.inputs):
        return False
    return any(
        reader.op_type == "LayerNormalization" and not reader.domain and index == 0
        for reader, index in consumers(node.outputs[0])
    )
