"""Write the QDQ form as operators on integers (ONNX Runtime's "QOperator" format).

``DequantizeLinear -> Op -> QuantizeLinear`` becomes one operator on the integers, which reads the
scales and zero points as inputs. Cases, each in a file of its own:

* sites (:mod:`onnxq.passes.to_qoperator_sites`): QLinearConv, QLinearMatMul, QGemm,
  MatMulIntegerToFloat;
* nodes without weights (:mod:`onnxq.passes.to_qoperator_elementwise`): QLinearAdd, QLinearMul, ...;
* nodes that only move data (:mod:`onnxq.passes.to_qoperator_movement`): themselves, on integers.

A new node keeps the name of the node that it stands for, its output the name of the integers, and
weights keep their initializers. A tensor that somebody reads in float keeps its DequantizeLinear
for that reader; pairs around what has no integer operator stay, with a reason
(:func:`kept_in_pairs`). Where the model then needs it, it imports the domain com.microsoft.
Nothing is decided and no number changes: the graph alone says what is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from onnxq.errors import listed
from onnxq.graph.edit import constant_tensor, remove_if_unread
from onnxq.graph.opset import MICROSOFT
from onnxq.passes.base import Editor, PlanPass
from onnxq.passes.to_qoperator_elementwise import ELEMENTWISE
from onnxq.passes.to_qoperator_links import DeclinedError, Written, integers_at, quantized
from onnxq.passes.to_qoperator_movement import move, moves, quantize_first
from onnxq.passes.to_qoperator_sites import conv, gemm, matmul
from onnxq.targets import Target, load_target

if TYPE_CHECKING:
    from collections.abc import Iterable

_CONVERSIONS: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})
_SITES: Final = {"Conv": conv, "Gemm": gemm, "MatMul": matmul}
_WRITERS: Final = {**_SITES, **ELEMENTWISE}
_REASON: Final = "onnxq.kept_in_pairs"


class ToQOperator(PlanPass):
    """Rewrite the Q/DQ pairs of the main graph where there is an operator on integers."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite node by node."""
        editor = Editor(model)
        target = load_target(self.plan.target)
        modified = quantize_first(editor, target)
        for node in tuple(model.graph):
            if node.graph is None or node.op_type in _CONVERSIONS:
                continue
            try:
                written = _write(node, editor, target)
            except DeclinedError as error:
                if _wanted(node, target):
                    node.meta[_REASON] = str(error)
                continue
            _replace(editor, node, written)
            modified = True
        _drop_unread(model.graph)
        return ir.passes.PassResult(model, modified=modified)


def kept_in_pairs(model: ir.Model) -> tuple[str, ...]:
    """What this pass left between Q/DQ pairs, a sentence for each operator and reason.

    Args:
        model: As the pass returned it; what was read from a file says nothing.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for node in model.graph:
        if _REASON in node.meta:
            found.setdefault((node.op_type, node.meta[_REASON]), []).append(node.name or "")
    return tuple(
        f"{len(names)} {op} ({listed(names, 3)}) "
        f"stay between DequantizeLinear and QuantizeLinear: {reason}"
        for (op, reason), names in found.items()
    )


def _write(node: ir.Node, editor: Editor, target: Target) -> Written:
    if moves(node, target):
        return move(node)
    writer = None if node.domain else _WRITERS.get(node.op_type)
    if writer is None:
        message = f"{node.op_type} has no operator on integers"
        raise DeclinedError(message)
    return writer(node, editor)


def _wanted(node: ir.Node, target: Target) -> bool:
    """Whether a node runs in integers between the pairs around it, as a plan meant it to."""
    if not target.rule(node.op_type).integer:
        return False
    count = 1 if moves(node, target) else len(node.inputs)
    data = range(2 if not node.domain and node.op_type in _SITES else count)
    found = [integers_at(node, index) for index in data]
    activations = [part for part in found if part and constant_tensor(part.value) is None]
    if not activations or None in found:
        return False
    return node.op_type in _SITES or all(quantized(output) for output in node.outputs)


def _replace(editor: Editor, node: ir.Node, written: Written) -> None:
    """Put the new node where the old one stands; its outputs take over names and readers."""
    outputs = [ir.Value(type=old.type, shape=old.shape) for old in written.outputs]
    new = ir.node(
        written.op,
        list(written.inputs),
        dict(written.attributes),
        domain=written.domain,
        outputs=outputs,
        name=node.name,
    )
    new.metadata_props.update(node.metadata_props)
    editor.graph.insert_before(node, new)
    for old, value in zip(written.outputs, outputs, strict=True):
        name = old.name
        old.replace_all_uses_with(value, replace_graph_outputs=True)
        value.name = name
    read = [value for gone in written.replaced for value in gone.inputs]
    editor.graph.remove(written.replaced, safe=True)
    _forget(read)
    if written.domain == MICROSOFT:
        editor.model.opset_imports.setdefault(MICROSOFT, 1)


def _drop_unread(graph: ir.Graph) -> None:
    """Drop quantizers and dequantizers that nobody reads any more, and what they alone read."""
    for node in reversed(tuple(graph)):
        unread = not any(output.uses() or output.is_graph_output() for output in node.outputs)
        if node.op_type in _CONVERSIONS and unread:
            read = tuple(node.inputs)
            graph.remove(node, safe=True)
            _forget(read)


def _forget(values: Iterable[ir.Value | None]) -> None:
    for value in dict.fromkeys(value for value in values if value is not None):
        remove_if_unread(value)
