"""Reads Q/DQ graphs: which pairs there are, what they hold, and what stands between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir

from onnxq.graph.edit import all_nodes, constant_array, constant_tensor, consumers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Array = NDArray[Any]

_DOMAINS: Final = frozenset({"", "com.microsoft"})
_EIGHT_BITS: Final = frozenset({ir.DataType.INT8, ir.DataType.UINT8})
_WEIGHTED: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True, slots=True)
class Pair:
    """A QuantizeLinear and one DequantizeLinear that reads it."""

    q: ir.Node
    dq: ir.Node


def is_op(node: ir.Node | None, *ops: str) -> bool:
    """Whether a node is one of ONNX's own operators of these names."""
    return node is not None and not node.domain and node.op_type in ops


def is_q(node: ir.Node | None) -> bool:
    """Whether a node is a QuantizeLinear, ONNX's or ONNX Runtime's."""
    return node is not None and node.op_type == "QuantizeLinear" and node.domain in _DOMAINS


def is_dq(node: ir.Node | None) -> bool:
    """Whether a node is a DequantizeLinear, ONNX's or ONNX Runtime's."""
    return node is not None and node.op_type == "DequantizeLinear" and node.domain in _DOMAINS


def input_of(node: ir.Node, index: int) -> ir.Value | None:
    """An input that may be left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def maker(node: ir.Node, index: int) -> ir.Node | None:
    """The node that makes an input; None for inputs, initializers and what is left out."""
    value = input_of(node, index)
    return None if value is None else value.producer()


def readers(node: ir.Node) -> list[ir.Node]:
    """Who reads any output of a node, each once."""
    found = (reader for output in node.outputs for reader, _ in consumers(output))
    return list({id(reader): reader for reader in found}.values())


def gives_output(node: ir.Node) -> bool:
    """Whether an output of the node is an output of its graph."""
    return any(output.is_graph_output() for output in node.outputs)


def dq_of(node: ir.Node, index: int) -> ir.Node | None:
    """The DequantizeLinear that makes an input."""
    found = maker(node, index)
    return found if is_dq(found) else None


def activation_dq(node: ir.Node, index: int = 0) -> ir.Node | None:
    """The DequantizeLinear of an activation that makes an input; that of a constant is none."""
    found = dq_of(node, index)
    return None if found is None or stored_integers(found) is not None else found


def weight_dq(node: ir.Node, index: int = 1) -> ir.Node | None:
    """The DequantizeLinear of a constant that makes an input."""
    found = dq_of(node, index)
    return None if found is None or stored_integers(found) is None else found


def stored_integers(dq: ir.Node) -> ir.TensorProtocol | None:
    """The constant that a DequantizeLinear reads; None if it reads an activation."""
    value = input_of(dq, 0)
    return None if value is None else constant_tensor(value)


def integer_type(node: ir.Node) -> ir.DataType:
    """The type of a QuantizeLinear's or DequantizeLinear's integers; uint8 where none is said."""
    value = node.inputs[0] if is_dq(node) else None
    for source in (value, input_of(node, 2), None if is_dq(node) else node.outputs[0]):
        tensor = None if source is None else constant_tensor(source)
        kind = tensor.dtype if tensor is not None else None if source is None else source.dtype
        if kind is not None:
            return kind
    said = node.attributes.get_int("output_dtype", 0)
    return ir.DataType(said) if said else ir.DataType.UINT8


def scale_of(node: ir.Node) -> Array | None:
    """The scales of a QuantizeLinear or DequantizeLinear; None where they are computed."""
    return constant_array(input_of(node, 1))


def zero_point_of(node: ir.Node) -> Array | None:
    """The zero points; 0 where they are left out, None where they are computed."""
    value = input_of(node, 2)
    return np.zeros((), np.int32) if value is None else constant_array(value)


def has_offset(node: ir.Node) -> bool:
    """Whether a zero point is known and not 0."""
    offset = zero_point_of(node)
    return offset is not None and bool(offset.astype(np.float32).any())


def axis_of(node: ir.Node) -> int | None:
    """The axis along which there are several scales, from the front; None per tensor or unknown."""
    scale = scale_of(node)
    if scale is None or scale.size <= 1 or block_of(node):
        return None
    axis = node.attributes.get_int("axis", 1)
    rank = rank_of(node)
    return axis if axis >= 0 else None if rank is None else axis + rank


def block_of(node: ir.Node) -> int:
    """How many elements share a scale along the axis; 0 if they are not in blocks."""
    return node.attributes.get_int("block_size", 0)


def rank_of(node: ir.Node) -> int | None:
    """How many axes the first input has; None where that is unknown."""
    value = input_of(node, 0)
    tensor = None if value is None else constant_tensor(value)
    shape = tensor.shape if tensor is not None else None if value is None else value.shape
    return None if shape is None else len(shape)


def pairs(model: ir.Model) -> Iterator[Pair]:
    """Each QuantizeLinear with each DequantizeLinear that reads it, in the order of the graph."""
    for node in all_nodes(model):
        if is_q(node):
            for reader in readers(node):
                if is_dq(reader):
                    yield Pair(node, reader)


def weighted_nodes(model: ir.Model) -> Iterator[tuple[ir.Node, ir.Node]]:
    """Nodes that multiply by a constant behind a DequantizeLinear, and that."""
    for node in all_nodes(model):
        if not node.domain and node.op_type in _WEIGHTED:
            dq = weight_dq(node)
            if dq is not None:
                yield node, dq


def integer_products(model: ir.Model) -> Iterator[tuple[ir.Node, ir.Node, ir.Node]]:
    """Nodes written to multiply 8-bit integers: the node, its activation's DQ, its weight's DQ."""
    for node, weight in weighted_nodes(model):
        activation = activation_dq(node)
        if activation is None or integer_type(weight) not in _EIGHT_BITS or block_of(weight):
            continue
        if integer_type(activation) in _EIGHT_BITS:
            yield node, activation, weight


def output_axis(node: ir.Node, rank: int) -> int | None:
    """The axis of a node's weight that counts output channels; None for a vector."""
    if node.op_type == "MatMul":
        return rank - 1 if rank > 1 else None
    if node.op_type == "Gemm":
        return 0 if node.attributes.get_int("transB", 0) else 1
    return 1 if node.op_type == "ConvTranspose" else 0


def wrong_axis(node: ir.Node, weight: ir.Node) -> int | None:
    """The axis of a weight's scales where it is not that of output channels; None where it is."""
    axis, rank = axis_of(weight), rank_of(weight)
    if axis is None or rank is None or axis == output_axis(node, rank):
        return None
    return axis


def same_parameters(first: ir.Node, second: ir.Node) -> bool | None:
    """Whether two of them have the same scales and zero points; None where one is computed."""
    values = [(scale_of(node), zero_point_of(node)) for node in (first, second)]
    (scale, offset), (other, other_offset) = values
    if scale is None or other is None or offset is None or other_offset is None:
        same = list(first.inputs[1:3]) == list(second.inputs[1:3])
        return True if same else None
    return (
        np.array_equal(np.squeeze(scale), np.squeeze(other))
        and np.array_equal(offsets(offset, scale), offsets(other_offset, other))
        and axis_of(first) == axis_of(second)
    )


def offsets(zero_point: Array, scale: Array) -> Array:
    """A zero point for each scale; as they are where their numbers differ, which nothing loads."""
    return np.full(scale.shape, zero_point) if zero_point.size == 1 else zero_point


def float_type(node: ir.Node) -> ir.DataType | None:
    """The type that a QuantizeLinear reads or a DequantizeLinear gives; None if unknown."""
    said = node.attributes.get_int("output_dtype", 0) if is_dq(node) else 0
    if said:
        return ir.DataType(said)
    value = node.outputs[0] if is_dq(node) else node.inputs[0]
    if value is not None and value.dtype is not None:
        return value.dtype
    scale = input_of(node, 1)
    tensor = None if scale is None else constant_tensor(scale)
    return tensor.dtype if tensor is not None else None if scale is None else scale.dtype


def can_bypass(q: ir.Node, dq: ir.Node) -> bool:
    """Whether what reads a pair may read what the pair reads: the same but for the rounding.

    An output of the graph gets its name from what is in front, which must be made there for it.
    """
    if same_parameters(q, dq) is not True or float_type(q) != float_type(dq):
        return False
    if not gives_output(dq):
        return True
    front = maker(q, 0)
    return front is not None and front.graph is dq.graph and not gives_output(front)
