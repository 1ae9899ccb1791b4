"""Nodes without weights on integers: sums, products, activations, pools, Concat, Where.

Case: ``Op(x, ...) -> Q`` with dequantized ``x``, all of one integer type, becomes the operator
``QLinearOp`` of ONNX Runtime's own domain (com.microsoft; docs/ContribOperators.md there) on the
integers, each with scale and zero point of its own. Constants among the inputs are dequantized too.
AveragePool with dilations, and what has several scales, stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from onnxq.graph.opset import MICROSOFT
from onnxq.passes.to_qoperator_links import (
    DeclinedError,
    Integers,
    Written,
    need_one_type,
    per_tensor,
    quantized_output,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from onnxq.passes.base import Editor

_SOFTMAX_SINCE = 13
"""The version of Softmax that normalizes along one axis; plans need no older opset."""


def unary(node: ir.Node, _: Editor) -> Written:
    """Sigmoid, LeakyRelu, GlobalAveragePool, AveragePool.

    Raises:
        DeclinedError: The input or the output is float, or there is no such integer operator.
    """
    x, y = per_tensor(node, 0), quantized_output(node)
    attributes = dict(node.attributes)
    dilations = attributes.pop("dilations", None)
    if dilations is not None and any(step != 1 for step in dilations.as_ints()):
        message = "it has dilations"
        raise DeclinedError(message)
    return _written(node, [*x.all, *y.parameters], (x,), y, attributes)


def binary(node: ir.Node, _: Editor) -> Written:
    """Add and Mul.

    Raises:
        DeclinedError: An input or the output is float.
    """
    a, b, y = per_tensor(node, 0), per_tensor(node, 1), quantized_output(node)
    return _written(node, [*a.all, *b.all, *y.parameters], (a, b), y, {})


def softmax(node: ir.Node, _: Editor) -> Written:
    """Softmax, whose integer form wants to know the version.

    Raises:
        DeclinedError: The input or the output is float.
    """
    x, y = per_tensor(node, 0), quantized_output(node)
    axis = node.attributes.get_int("axis", -1)
    attributes = {
        "axis": ir.AttrInt64("axis", axis),
        "opset": ir.AttrInt64("opset", _SOFTMAX_SINCE),
    }
    return _written(node, [*x.all, *y.parameters], (x,), y, attributes)


def concat(node: ir.Node, _: Editor) -> Written:
    """Concat of tensors that each have a scale of their own.

    Raises:
        DeclinedError: An input or the output is float.
    """
    parts = tuple(per_tensor(node, index) for index in range(len(node.inputs)))
    y = quantized_output(node)
    inputs = [*y.parameters, *(value for part in parts for value in part.all)]
    return _written(node, inputs, parts, y, node.attributes)


def where(node: ir.Node, _: Editor) -> Written:
    """Where; the condition stays as it is.

    Raises:
        DeclinedError: An input or the output is float.
    """
    x, other, y = per_tensor(node, 1), per_tensor(node, 2), quantized_output(node)
    inputs = [node.inputs[0], *x.all, *other.all, *y.parameters]
    return _written(node, inputs, (x, other), y, {})


def _written(
    node: ir.Node,
    inputs: Sequence[ir.Value | None],
    parts: tuple[Integers, ...],
    y: Integers,
    attributes: Mapping[str, ir.Attr],
) -> Written:
    need_one_type(*parts, y)
    op = f"QLinear{node.op_type}"
    return Written(op, MICROSOFT, inputs, attributes, (y.value,), (node, y.node))


ELEMENTWISE: Final[dict[str, Callable[[ir.Node, Editor], Written]]] = {
    "Add": binary,
    "AveragePool": unary,
    "Concat": concat,
    "GlobalAveragePool": unary,
    "LeakyRelu": unary,
    "Mul": binary,
    "Sigmoid": unary,
    "Softmax": softmax,
    "Where": where,
}
"""How each operator is written."""
