"""Nodes that only move data, on integers: they hand on what they are given, whatever its type.

Cases:

* ``Move(x) -> Q`` with dequantized ``x`` and the scale and zero point of ``x`` in each quantizer
  behind it becomes ``Move`` on the integers. A Resize that interpolates stays;
* ``Move(y) -> Q`` with a float ``y`` becomes ``Q(y) -> Move``, so that who makes ``y`` may write
  integers at once. Only for operators that give a quantized output for a quantized input wherever
  it stands (``output_q = "optional"`` in the target's table), with one output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.passes.to_qoperator_links import (
    DeclinedError,
    Written,
    per_tensor,
    quantized,
    same_parameters,
)

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxq.passes.base import Editor
    from onnxq.targets import Target


def moves(node: ir.Node, target: Target) -> bool:
    """Whether a node hands integers on."""
    rule = target.rule(node.op_type)
    return not node.domain and rule.integer and rule.same_scale


def move(node: ir.Node) -> Written:
    """The same node on integers.

    Raises:
        DeclinedError: The input or an output is float, or their scales differ.
    """
    if node.op_type == "Resize" and node.attributes.get_string("mode", "nearest") != "nearest":
        message = (
            "it interpolates, which ONNX Runtime rounds down on integers or does not do at all"
        )
        raise DeclinedError(message)
    x = per_tensor(node, 0)
    found = [quantized(output) for output in node.outputs]
    behind = [part for part in found if part is not None and same_parameters(x, part)]
    if len(behind) < len(found):
        message = "its output does not have the scale of its input"
        raise DeclinedError(message)
    return Written(
        node.op_type,
        "",
        [x.value, *node.inputs[1:]],
        node.attributes,
        tuple(part.value for part in behind),
        (node, *(part.node for part in behind)),
    )


def quantize_first(editor: Editor, target: Target) -> bool:
    """Let quantizers stand in front of what moves data; True if one moved."""
    modified = False
    for quantizer in reversed(tuple(editor.graph)):
        while _step_up(editor, quantizer, target):
            modified = True
    return modified


def _step_up(editor: Editor, quantizer: ir.Node, target: Target) -> bool:
    """Exchange a quantizer with the mover in front of it; the mover then moves its integers."""
    value = quantizer.inputs[0] if quantizer.op_type == "QuantizeLinear" else None
    mover = None if value is None else value.producer()
    if value is None or mover is None or not _hands_on_one_float(mover, target):
        return False
    found = quantized(value)
    source = mover.inputs[0]
    if found is None or found.axis is not None or source is None:
        return False
    integers = quantizer.outputs[0]
    integers.replace_all_uses_with(value)
    quantizer.replace_input_with(0, source)
    mover.replace_input_with(0, integers)
    value.type, integers.shape = integers.type, source.shape
    value.name, integers.name = integers.name, editor.fresh(f"{source.name}_quantized")
    editor.graph.remove(quantizer)
    editor.graph.insert_before(mover, quantizer)
    return True


def _hands_on_one_float(node: ir.Node, target: Target) -> bool:
    if not moves(node, target) or target.rule(node.op_type).output_q != "optional":
        return False
    source = node.inputs[0]
    producer = None if source is None else source.producer()
    dequantized = producer is not None and producer.op_type == "DequantizeLinear"
    return len(node.outputs) == 1 and source is not None and not dequantized
