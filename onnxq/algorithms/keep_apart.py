"""Keep operators apart where the provider would do worse with them together.

``Add -> LayerNormalization`` (a residual and its norm) becomes SkipLayerNormalization in ONNX
Runtime, whose CPU kernel is slower than the two operators it replaces (``python -m
tests.benchmarks.fusions`` measures it). ``Sum`` of two inputs computes what ``Add`` does, and is
not fused.

``Q/DQ -> MatMul -> Relu -> float``: ONNX Runtime looks for a quantizer behind the Relu, finds none,
and leaves the product in float. A ``Max`` with 0 computes what ``Relu`` does, and is not looked
behind. ``Q/DQ -> MatMul -> Add`` of two activations becomes a Gemm with a float bias, before
anything looks for quantizers, and stays float; ``Sum`` again is not fused.

``Q/DQ -> MatMul -> Clip -> float`` is as with Relu. A product that is read by a quantizer and by
float nodes, or is an output too, fits neither the kernel that writes integers nor the one that
writes float. Behind a *copy*, a ``Sum`` of one operand, both are out of sight.
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
_UNCOVERED: Final[Mapping[tuple[str, str], Literal["Sum", "Max", "Copy"]]] = {
    ("MatMul", "Add"): "Sum",
    ("MatMul", "Clip"): "Copy",
    ("MatMul", "Relu"): "Max",
    ("Gemm", "Clip"): "Copy",
    ("Gemm", "Relu"): "Max",
}
"""What to write for a node behind a product, or the copy between the two.

A Sum of two behind a Gemm would be merged into it.
"""


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
    """What would keep products of static INT8 in float: nodes behind them, and other readers.

    Args:
        model: The normalized model.
        plan: What passes through Q/DQ, what is absorbed, and which Adds hold a product's bias.
        selection: What is quantized.
        target: What keeps products float.
    """
    nodes = node_by_name(model.graph)
    biased = {entry.node for entry in plan.biases}
    taken = {entry.node for entry in plan.absorbed}
    pairs = {entry.tensor: len(entry.readers) for entry in plan.activations}
    found: dict[str, KeptApartEntry] = {}
    for site in selection.chosen:
        if target.rule(site.op).output_q == "required" or site.activation is None:
            continue
        product, maker = site.op, nodes[site.name]
        node = _only_reader(maker)
        if node is not None and node.op_type == "Add" and node.name in biased:
            product, maker, node = "Gemm", node, _only_reader(node)
        if target.lone_quantizer and _has_other_readers(maker.outputs[0], pairs):
            entry = KeptApartEntry(node=maker.name or "", op="Copy")
        elif node is None or node.name in taken or not _covers(node, selection, target):
            continue
        else:
            op = _UNCOVERED.get((product, node.op_type))
            if op is None:
                continue
            entry = KeptApartEntry(node=(maker if op == "Copy" else node).name or "", op=op)
        found[entry.node] = entry
    return tuple(found.values())


def _has_other_readers(output: ir.Value, pairs: Mapping[str, int]) -> bool:
    """Whether a tensor with a quantizer is read by others too, or is an output.

    Args:
        output: The tensor.
        pairs: How many read each tensor's Q/DQ pair, by its name.
    """
    quantized = pairs.get(output.name or "", 0)
    shared = output.is_graph_output() or len(consumers(output)) > quantized
    return quantized > 0 and shared


def _covers(node: ir.Node, selection: Selection, target: Target) -> bool:
    """Whether a float node behind a product keeps it in float."""
    if node.op_type not in target.covers or _runs_in_integers(node, selection):
        return False
    if node.op_type == "Add":
        return _may_be_sum(node)
    # Behind one that nobody reads there is nothing to look at.
    return bool(consumers(node.outputs[0]))


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
    if open_gemms:
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
