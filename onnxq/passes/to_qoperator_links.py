"""What stands around a node of the QDQ form: integers before its inputs, behind its outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from onnxq.graph.edit import constant_array, consumers
from onnxq.graph.opset import MICROSOFT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_EIGHT_BITS: Final = frozenset({ir.DataType.UINT8, ir.DataType.INT8})


class DeclinedError(Exception):
    """A node has no form on integers; the message is the reason, for people."""


@dataclass(frozen=True, slots=True)
class Integers:
    """A tensor of integers and what they stand for.

    Attributes:
        value: The integers.
        scale: One scale, or one for each index along ``axis``.
        zero_point: Of the scale's shape and the integers' type.
        axis: The axis that the scales belong to; None where there is one scale.
        node: The DequantizeLinear or QuantizeLinear that says so.
    """

    value: ir.Value
    scale: ir.Value
    zero_point: ir.Value
    axis: int | None
    node: ir.Node

    @property
    def all(self) -> list[ir.Value]:
        """The three in the order in which integer operators read them."""
        return [self.value, self.scale, self.zero_point]

    @property
    def parameters(self) -> list[ir.Value]:
        """Scale and zero point."""
        return [self.scale, self.zero_point]


@dataclass(frozen=True, slots=True)
class Written:
    """A node on integers, and what it takes the place of.

    Attributes:
        op: Its operator.
        domain: The operator's domain.
        inputs: What it reads.
        attributes: Its attributes.
        outputs: The values whose readers and names its outputs take over.
        replaced: The nodes that go.
    """

    op: str
    domain: str
    inputs: Sequence[ir.Value | None]
    attributes: Mapping[str, ir.Attr]
    outputs: tuple[ir.Value, ...]
    replaced: tuple[ir.Node, ...]


def dequantized(node: ir.Node, index: int) -> Integers:
    """The 8-bit integers behind an input.

    Raises:
        DeclinedError: The input is float, or its integers have another width.
    """
    found = integers_at(node, index)
    if found is None:
        message = f"its input {index} is float"
        raise DeclinedError(message)
    if found.value.dtype not in _EIGHT_BITS:
        kind = "unknown" if found.value.dtype is None else found.value.dtype.name.lower()
        message = f"its input {index} is {kind}, and integer operators take 8 bits"
        raise DeclinedError(message)
    return found


def per_tensor(node: ir.Node, index: int) -> Integers:
    """As :func:`dequantized`, of one scale.

    Raises:
        DeclinedError: As there, or there are several scales.
    """
    found = dequantized(node, index)
    if found.axis is not None:
        message = f"its input {index} has several scales, and the integer operator takes one there"
        raise DeclinedError(message)
    return found


def integers_at(node: ir.Node, index: int) -> Integers | None:
    """The integers of any width that an input of a node is dequantized from, else None."""
    value = node.inputs[index] if index < len(node.inputs) else None
    producer = None if value is None else value.producer()
    if producer is None or producer.op_type != "DequantizeLinear":
        return None
    return _parts(producer, producer.inputs[0])


def quantized(value: ir.Value) -> Integers | None:
    """The integers that a value becomes at once; None where anybody reads it as it is."""
    readers = consumers(value)
    if len(readers) != 1 or value.is_graph_output():
        return None
    node, index = readers[0]
    producer = value.producer()
    if node.op_type != "QuantizeLinear" or index != 0 or node.outputs[0].is_graph_output():
        return None
    if producer is None or node.graph is not producer.graph:
        return None
    found = _parts(node, node.outputs[0])
    return found if found is not None and found.value.dtype in _EIGHT_BITS else None


def quantized_output(node: ir.Node) -> Integers:
    """The integers, of one scale, that a node's first output becomes.

    Raises:
        DeclinedError: Somebody reads it in float, or it has several scales.
    """
    found = quantized(node.outputs[0])
    if found is None or found.axis is not None:
        message = "its output is not quantized for all its readers"
        raise DeclinedError(message)
    return found


def need_one_type(*parts: Integers) -> None:
    """Refuse integers of different types.

    Raises:
        DeclinedError: They differ.
    """
    kinds = {part.value.dtype.name.lower() for part in parts if part.value.dtype is not None}
    if len(kinds) > 1:
        raise DeclinedError("it mixes " + " and ".join(sorted(kinds)))


def same_parameters(one: Integers, other: Integers) -> bool:
    """Whether equal integers stand for equal numbers."""
    pairs = zip(one.parameters, other.parameters, strict=True)
    return one.value.dtype == other.value.dtype and all(
        np.array_equal(array(a), array(b)) for a, b in pairs
    )


def array(value: ir.Value) -> NDArray[np.generic]:
    """The numbers of a scale, a zero point or a bias.

    Raises:
        DeclinedError: They are computed at run time.
    """
    found = constant_array(value)
    if found is None:
        message = f"{value.name!r} is no constant"
        raise DeclinedError(message)
    return found


def _parts(node: ir.Node, integers: ir.Value | None) -> Integers | None:
    """What a QuantizeLinear or DequantizeLinear says; None in a form that onnxq does not write."""
    if node.domain not in {"", MICROSOFT} or len(node.inputs) < 3:
        return None
    scale, zero_point = node.inputs[1], node.inputs[2]
    if integers is None or scale is None or zero_point is None:
        return None
    if scale.dtype != ir.DataType.FLOAT or scale.shape is None or scale.shape.rank() > 1:
        return None
    axis = node.attributes.get_int("axis", 1) if scale.shape.rank() else None
    return Integers(integers, scale, zero_point, axis, node)
