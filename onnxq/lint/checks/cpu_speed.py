"""Rules of the CPU provider: kernels that are slow, and work that is done again in each run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from onnxq.graph.edit import all_nodes
from onnxq.lint.catalogue import load_rules
from onnxq.lint.checks.registry import check
from onnxq.lint.finding import at
from onnxq.lint.qdq import (
    activation_dq,
    axis_of,
    block_of,
    has_offset,
    input_of,
    integer_products,
    integer_type,
    is_dq,
    is_op,
    readers,
    scale_of,
    stored_integers,
    zero_point_of,
)
from onnxq.targets import load_target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnxq.lint.finding import Seen
    from onnxq.lint.view import View

WORTH_ELEMENTS: Final = 1024
"""A constant of fewer elements is dequantized in no time."""

_LOOKED_UP: Final = frozenset(
    {ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16, ir.DataType.INT32}
)
"""Integers that Gather takes: none of 4 bits."""


@check("uint8-weights")
def uint8_weights(view: View) -> Iterator[Seen]:
    """Weights of uint8 in integer products, on x86 alone."""
    if not view.machine.x86:
        return
    for node, _, weight in integer_products(view.model):
        if integer_type(weight) == ir.DataType.UINT8:
            yield at(node, "its weight is uint8")


@check("weight-dequantized-each-run")
def weight_dequantized_each_run(view: View) -> Iterator[Seen]:
    """Constants behind a DequantizeLinear that is still there in the graph that is executed."""
    if not view.runs:
        return
    left = view.executes("DequantizeLinear")
    for dq in all_nodes(view.model):
        integers = stored_integers(dq) if is_dq(dq) else None
        value = input_of(dq, 0)
        if integers is None or value is None or integers.size < WORTH_ELEMENTS:
            continue
        if value.name in left:
            for node in readers(dq):
                if activation_dq(node) is None:
                    yield at(node, f"{integers.size:,} elements of {value.name!r} in each run")


@check("table-dequantized")
def table_dequantized(view: View) -> Iterator[Seen]:
    """A Gather of rows of a constant behind a DequantizeLinear."""
    for node in all_nodes(view.model):
        dq = node.inputs[0].producer() if is_op(node, "Gather") and node.inputs[0] else None
        integers = stored_integers(dq) if dq is not None and is_dq(dq) else None
        if dq is None or integers is None or integers.size < WORTH_ELEMENTS:
            continue
        text = f"{integers.size:,} elements are dequantized for each lookup"
        yield at(node, text, fixable=can_look_up_integers(node, dq))


def can_look_up_integers(gather: ir.Node, dq: ir.Node) -> bool:
    """Whether rows may be looked up first: one scale, or one a row without an offset."""
    if integer_type(dq) not in _LOOKED_UP:
        return False
    if gather.attributes.get_int("axis", 0) != 0 or block_of(dq):
        return False
    if axis_of(dq) is None:
        return scale_of(dq) is not None
    return axis_of(dq) == 0 and zero_point_of(dq) is not None and not has_offset(dq)


@check("slow-block-kernel")
def slow_block_kernel(view: View) -> Iterator[Seen]:
    """MatMulNBits of a width and level that the target knows to be slow."""
    blocks = load_target(view.target).blocks
    if blocks is None:
        return
    for node in all_nodes(view.model):
        if node.op_type != blocks.kernel:
            continue
        bits = node.attributes.get_int("bits", 4)
        # Level 0 computes as level 1 does.
        level = max(1, node.attributes.get_int("accuracy_level", 0))
        width = blocks.widths.get(bits)
        if width is not None and level in width.slow_levels:
            yield at(node, f"{bits}-bit weights at accuracy level {level}")


@check("block-length")
def block_length(view: View) -> Iterator[Seen]:
    """MatMulNBits in blocks of a length that has no integer kernel."""
    numbers = load_rules()["block-length"].numbers
    for node in all_nodes(view.model):
        if node.op_type != "MatMulNBits" or node.attributes.get_int("bits", 4) != numbers["bits"]:
            continue
        size = node.attributes.get_int("block_size", 0)
        if not numbers["least"] <= size <= numbers["most"]:
            yield at(node, f"{numbers['bits']}-bit weights in blocks of {size}")


@check("dynamic-conv")
def dynamic_conv(view: View) -> Iterator[Seen]:
    """ConvInteger."""
    for node in all_nodes(view.model):
        if is_op(node, "ConvInteger"):
            yield at(node, "it convolves integers that are quantized in each run")


@check("float16-on-cpu")
def float16_on_cpu(view: View) -> Iterator[Seen]:
    """Products whose output is float16."""
    products = load_rules()["float16-on-cpu"].operators
    for node in all_nodes(view.model):
        if is_op(node, *products) and node.outputs[0].dtype == ir.DataType.FLOAT16:
            yield at(node, "it computes in float16")
