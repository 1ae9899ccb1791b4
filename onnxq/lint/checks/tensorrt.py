"""Rules of the TensorRT provider: explicit quantization as its parser takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from onnxq.graph.edit import all_nodes, static_shape
from onnxq.graph.opset import MICROSOFT, opset_version
from onnxq.lint.catalogue import load_rules
from onnxq.lint.checks.biases import int32_biases
from onnxq.lint.checks.registry import check
from onnxq.lint.finding import at, of_model
from onnxq.lint.qdq import (
    activation_dq,
    axis_of,
    dq_of,
    has_offset,
    input_of,
    integer_type,
    is_dq,
    is_op,
    is_q,
    maker,
    readers,
    scale_of,
    stored_integers,
    weight_dq,
    weighted_nodes,
    zero_point_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnxq.lint.finding import Seen
    from onnxq.lint.view import View

_TAKEN: Final = frozenset(
    {
        ir.DataType.FLOAT4E2M1,
        ir.DataType.FLOAT8E4M3FN,
        ir.DataType.INT4,
        ir.DataType.INT8,
        ir.DataType.INT32,  # of a bias, which has a rule of its own
    }
)


def _quantizers(view: View) -> Iterator[ir.Node]:
    return (node for node in all_nodes(view.model) if is_q(node) or is_dq(node))


@check("tensorrt-zero-point")
def zero_point(view: View) -> Iterator[Seen]:
    """Zero points that are not 0."""
    for node in _quantizers(view):
        if has_offset(node):
            yield at(node, "its zero point is not 0")


@check("tensorrt-integer-type")
def integer_types(view: View) -> Iterator[Seen]:
    """Types of integers that TensorRT does not quantize to."""
    for node in _quantizers(view):
        kind = integer_type(node)
        if kind not in _TAKEN:
            yield at(node, f"its integers are {kind.name.lower()}")


@check("tensorrt-bias")
def bias(view: View) -> Iterator[Seen]:
    """DequantizeLinear of int32."""
    yield from int32_biases(view)


@check("tensorrt-convtranspose-axis")
def convtranspose_axis(view: View) -> Iterator[Seen]:
    """ConvTranspose with scales along another axis than that of its input channels."""
    for node, weight in weighted_nodes(view.model):
        axis = axis_of(weight)
        if node.op_type == "ConvTranspose" and axis not in {None, 0}:
            yield at(node, f"its weight has scales along axis {axis}")


@check("tensorrt-activation-axis")
def activation_axis(view: View) -> Iterator[Seen]:
    """QuantizeLinear of an activation with several scales."""
    for node in all_nodes(view.model):
        scale = scale_of(node) if is_q(node) else None
        source = input_of(node, 0)
        constant = source is None or source.is_initializer() or is_op(maker(node, 0), "Constant")
        if scale is not None and scale.size > 1 and not constant:
            yield at(node, f"it has {scale.size} scales")


@check("tensorrt-scale-computed")
def scale_computed(view: View) -> Iterator[Seen]:
    """Scales or zero points that are no constants."""
    for node in _quantizers(view):
        if scale_of(node) is None or zero_point_of(node) is None:
            yield at(node, "its scale or zero point is computed")


@check("tensorrt-integer-operators")
def integer_operators(view: View) -> Iterator[Seen]:
    """Operators on integers, ONNX's and ONNX Runtime's."""
    operators = load_rules()["tensorrt-integer-operators"].operators
    for node in all_nodes(view.model):
        qlinear = node.domain == MICROSOFT and node.op_type.startswith(("QLinear", "QGemm"))
        if is_op(node, *operators) or qlinear:
            yield at(node, f"TensorRT imports no {node.op_type}")


@check("tensorrt-contrib-operators")
def contrib_operators(view: View) -> Iterator[Seen]:
    """Other operators of ONNX Runtime's own domain."""
    for node in all_nodes(view.model):
        if node.domain == MICROSOFT and not node.op_type.startswith(("QLinear", "QGemm")):
            yield at(node, f"TensorRT knows no {node.op_type}")


@check("tensorrt-no-importer")
def no_importer(view: View) -> Iterator[Seen]:
    """Operators that the parser's documentation marks as not supported."""
    operators = load_rules()["tensorrt-no-importer"].operators
    for node in all_nodes(view.model):
        if is_op(node, *operators):
            yield at(node, f"TensorRT imports no {node.op_type}")


@check("tensorrt-weight-per-tensor")
def weight_per_tensor(view: View) -> Iterator[Seen]:
    """Weights with a single scale."""
    for node, weight in weighted_nodes(view.model):
        scale = scale_of(weight)
        if scale is not None and scale.size == 1 and node.op_type != "ConvTranspose":
            yield at(node, "its weight has one scale")


@check("tensorrt-residual")
def residual(view: View) -> Iterator[Seen]:
    """An Add of a quantized convolution's output and of something that is not quantized."""
    for node in all_nodes(view.model):
        if not is_op(node, "Add") or any(value is None for value in node.inputs):
            continue
        for index in (0, 1):
            conv, other = maker(node, index), node.inputs[1 - index]
            if not _is_quantized_conv(conv) or other is None or other.is_initializer():
                continue
            maker_of_other = maker(node, 1 - index)
            if dq_of(node, 1 - index) is None and not is_op(maker_of_other, "Constant"):
                yield at(node, f"{other.name!r} is not quantized, the convolution beside it is")
                break


def _is_quantized_conv(node: ir.Node | None) -> bool:
    """Whether a node is a Conv between pairs that the Add alone reads."""
    return (
        node is not None
        and is_op(node, "Conv")
        and activation_dq(node) is not None
        and (weight_dq(node) is not None or dq_of(node, 1) is not None)
        and len(readers(node)) == 1
    )


@check("tensorrt-int4")
def int4(view: View) -> Iterator[Seen]:
    """4-bit integers of activations, or of an odd last dimension."""
    for node in _quantizers(view):
        if integer_type(node) != ir.DataType.INT4:
            continue
        source = input_of(node, 0)
        integers = stored_integers(node) if is_dq(node) else None
        shape = tuple(integers.shape.numpy()) if integers is not None else static_shape(source)
        if is_dq(node) and integers is None:
            yield at(node, "it dequantizes an activation")
        elif shape and shape[-1] % 2:
            yield at(node, f"its last dimension, {shape[-1]}, is odd")


@check("tensorrt-dynamic-shape")
def dynamic_shape(view: View) -> Iterator[Seen]:
    """Inputs without a fixed shape."""
    for value in view.model.graph.inputs:
        if not value.is_initializer() and static_shape(value) is None:
            yield of_model(f"input {value.name!r} has lengths that are not fixed")


@check("tensorrt-opset")
def opset(view: View) -> Iterator[Seen]:
    """An opset above the one that the parser is documented for."""
    newest = load_rules()["tensorrt-opset"].numbers["opset"]
    version = opset_version(view.model)
    if version > newest:
        yield of_model(f"opset {version}; TensorRT is documented up to {newest}")
