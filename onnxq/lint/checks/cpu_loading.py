"""Rules of the CPU provider: why a model does not load there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from onnxq.graph.edit import all_nodes, constant_tensor, consumers
from onnxq.graph.opset import opset_version
from onnxq.graph.transposed import transposed_products
from onnxq.lint.catalogue import load_rules
from onnxq.lint.checks.registry import check
from onnxq.lint.finding import at
from onnxq.lint.qdq import gives_output, input_of, is_op, is_q, readers
from onnxq.targets import load_target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnxq.lint.finding import Seen
    from onnxq.lint.view import View

_OUTPUT_DTYPE: Final = "output_dtype"


@check("transpose-and-cast")
def transpose_and_cast(view: View) -> Iterator[Seen]:
    """A Transpose, and a Cast or float16, in front of a product; not where the model loads."""
    if view.runs:
        return
    for found in transposed_products(view.model):
        node = found.transpose
        half = node.outputs[0].dtype == ir.DataType.FLOAT16
        if half or found.cast:
            what = "float16 and stands" if half else "with a Cast behind it"
            text = f"it is {what} in front of {found.product.name!r}, a MatMul"
            yield at(node, text, fixable=cast_alone_behind(node) is not None)


def cast_alone_behind(transpose: ir.Node) -> ir.Node | None:
    """The Cast that alone reads a Transpose, and could stand in front of it."""
    if gives_output(transpose) or len(consumers(transpose.outputs[0])) != 1:
        return None
    (reader,) = readers(transpose)
    return reader if is_op(reader, "Cast") and reader.graph is transpose.graph else None


def _constant(node: ir.Node, index: int) -> bool:
    value = input_of(node, index)
    return value is not None and constant_tensor(value) is not None


@check("bfloat16-kernels")
def bfloat16_kernels(view: View) -> Iterator[Seen]:
    """Operators on bfloat16 that are not among those with a kernel."""
    kernels = load_target(view.target).half["bfloat16"].kernels
    if kernels is None:
        return
    for node in all_nodes(view.model):
        kinds = {value.dtype for value in (*node.inputs, *node.outputs) if value is not None}
        lacking = not node.domain and node.op_type not in {*kernels, "Constant"}
        if lacking and ir.DataType.BFLOAT16 in kinds:
            yield at(node, f"{node.op_type} reads or writes bfloat16")


@check("opset-too-new")
def opset_too_new(view: View) -> Iterator[Seen]:
    """Operators of the rule's list in an opset above the target's."""
    newest = load_target(view.target).max_opset
    version = opset_version(view.model)
    if newest is None or version <= newest:
        return
    operators = load_rules()["opset-too-new"].operators
    for node in all_nodes(view.model):
        if is_op(node, *operators):
            yield at(node, f"{node.op_type} of opset {version} has no kernel; opset {newest} has")


@check("int8-output-dtype")
def int8_output_dtype(view: View) -> Iterator[Seen]:
    """QuantizeLinear with an int8 zero point and output_dtype, on x86 alone."""
    if not view.machine.x86:
        return
    for node in all_nodes(view.model):
        said = node.attributes.get_int(_OUTPUT_DTYPE, 0) if is_q(node) else 0
        if said == ir.DataType.INT8 and input_of(node, 2) is not None and not _constant(node, 0):
            yield at(node, "output_dtype says int8, as its zero point does already")
