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
    from onnxq.plan import Plan
    from onnxq.targets import Target

SKIP_NORM = "SkipLayerNormalization"
_GEMM_INPUTS = 3
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
    model: ir.Model, plan: Plan, selection: Selection, target: Target
) -> tuple[KeptApartEntry, ...]:
    """The float nodes behind products of static INT8 because of which those would stay float.

    Args:
        model: The normalized model.
        plan: What is absorbed, and which Adds hold a product's bias.
        selection: What is quantized.
        target: What keeps products float.
    """
    nodes = node_by_name(model.graph)
    biased = {entry.node for entry in plan.biases}
    taken = {entry.node for entry in plan.absorbed}
    found: dict[str, KeptApartEntry] = {}
    for site in selection.chosen:
        product, node = site.op, _only_reader(nodes[site.name])
        if node is not None and node.op_type == "Add" and node.name in biased:
            product, node = "Gemm", _only_reader(node)
        if node is None or node.name in taken or _runs_in_integers(node, selection):
            continue
        op = _UNCOVERED.get((product, node.op_type))
        # Behind a Relu that nobody reads there is nothing to look at.
        last = node.op_type == "Relu" and not consumers(node.outputs[0])
        if op is not None and node.op_type in target.covers and not last and _may_be_sum(node):
            found[node.name or ""] = KeptApartEntry(node=node.name or "", op=op)
    return tuple(found.values())


def _runs_in_integers(node: ir.Node, selection: Selection) -> bool:
    return node.op_type == "Add" and node.outputs[0].name in selection.made


def _only_reader(node: ir.Node) -> ir.Node | None:
    """The one node of ONNX's own that reads a node's output; None if others do, or nobody."""
    readers = list({id(reader): reader for reader, _ in consumers(node.outputs[0])}.values())
    return readers[0] if len(readers) == 1 and not readers[0].domain else None


def _may_be_sum(node: ir.Node) -> bool:
    """Whether it adds activations alone, and none whose Gemm would take the Sum for its bias."""
    makers = [value.producer() for value in node.inputs if value is not None]
    open_gemms = [
        maker
        for maker in makers
        if maker is not None and maker.op_type == "Gemm" and len(maker.inputs) < _GEMM_INPUTS
    ]
    if node.op_type == "Add" and open_gemms:
        return False
    return all(constant_array(value) is None for value in node.inputs if value is not None)


def _is_residual(node: ir.Node) -> bool:
    if node.domain or node.op_type != "Add" or node.outputs[0].dtype != ir.DataType.FLOAT:
        return False
    if not _may_be_sum(node):
        return False
    return any(
        reader.op_type == "LayerNormalization" and not reader.domain and index == 0
        for reader, index in consumers(node.outputs[0])
    )
