"""Sites on integers: Conv, Gemm, MatMul.

Cases, where ``x`` and ``w`` are dequantized 8-bit integers:

* ``Conv(x, w, b) -> Q`` becomes QLinearConv; ``w`` has one scale or one an output channel, ``b`` is
  left out or int32 in units of ``s_x s_w``. With a float output there is no such operator;
* ``Gemm(x, w, b)`` becomes QGemm, with ``-> Q`` or with a float output; ``b`` as above;
* ``MatMul(x, w) -> Q`` becomes QLinearMatMul; ``w`` has one scale or one a column;
* ``Add(MatMul(x, w), b)`` with ``b`` int32 in units of ``s_x s_w``: where ``x`` is a matrix QGemm,
  with ``-> Q`` or a float output; else MatMulIntegerToFloat, which takes ``b`` in float;
* any other ``MatMul(x, w)`` becomes MatMulIntegerToFloat.

QLinearConv and QLinearMatMul are ONNX operators, the others ONNX Runtime's (com.microsoft;
docs/ContribOperators.md there).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq.graph.edit import constant_array, consumers
from onnxq.graph.opset import MICROSOFT
from onnxq.passes.to_qoperator_links import (
    DeclinedError,
    Integers,
    Written,
    array,
    dequantized,
    integers_at,
    need_one_type,
    per_tensor,
    quantized,
    quantized_output,
)

if TYPE_CHECKING:
    from onnxq.passes.base import Editor


def conv(node: ir.Node, _: Editor) -> Written:
    """QLinearConv.

    Raises:
        DeclinedError: An input or the output is float, or the bias is in other units.
    """
    x, w = per_tensor(node, 0), _weight(node, 1, axis=0)
    y = quantized_output(node)
    need_one_type(x, y)
    _need_types(x, w)
    bias = _bias(node, 2, x, w)
    inputs = [*x.all, *w.all, *y.parameters, *bias]
    return Written("QLinearConv", "", inputs, node.attributes, (y.value,), (node, y.node))


def gemm(node: ir.Node, _: Editor) -> Written:
    """QGemm.

    Raises:
        DeclinedError: A factor is float, or the bias is float, scaled or in other units.
    """
    attributes = dict(node.attributes)
    x = per_tensor(node, 0)
    w = _weight(node, 1, axis=0 if node.attributes.get_int("transB", 0) else 1)
    _need_types(x, w)
    beta = attributes.pop("beta", None)
    alpha = node.attributes.get_float("alpha", 1.0)
    bias = _bias(node, 2, x, w, alpha)
    if bias and beta is not None and beta.as_float() != 1.0:
        message = f"it scales its bias (beta = {beta.as_float():g})"
        raise DeclinedError(message)
    return _qgemm(x, w, bias, attributes, (node,))


def matmul(node: ir.Node, editor: Editor) -> Written:
    """QLinearMatMul, MatMulIntegerToFloat, or QGemm together with the Add of a bias.

    Raises:
        DeclinedError: A factor is float.
    """
    x = per_tensor(node, 0)
    rank = _rank(node.inputs[1])
    w = _weight(node, 1, axis=1 if rank == 2 else None)
    _need_types(x, w)
    y = quantized(node.outputs[0])
    if y is not None and y.axis is None and y.value.dtype == x.value.dtype:
        return Written(
            "QLinearMatMul", "", [*x.all, *w.all, *y.parameters], {}, (y.value,), (node, y.node)
        )
    add, bias = _bias_behind(node, x, w)
    if add is not None and bias is not None and _rank(node.inputs[0]) == rank == 2:
        return _qgemm(x, w, [bias.value], {}, (node, add))
    inputs = [x.value, w.value, x.scale, w.scale, x.zero_point, w.zero_point]
    replaced = [node]
    if add is not None and bias is not None:
        base = (bias.value.name or "").removesuffix("_quantized")
        numbers = array(bias.value).astype(np.float32) * array(bias.scale).astype(np.float32)
        inputs.append(editor.constant(base, numbers.reshape(-1)))
        replaced.append(add)
    output = replaced[-1].outputs[0]
    return Written("MatMulIntegerToFloat", MICROSOFT, inputs, {}, (output,), tuple(replaced))


def _qgemm(
    x: Integers,
    w: Integers,
    bias: list[ir.Value],
    attributes: dict[str, ir.Attr],
    replaced: tuple[ir.Node, ...],
) -> Written:
    inputs: list[ir.Value | None] = [*x.all, *w.all, *bias]
    output = replaced[-1].outputs[0]
    y = quantized(output)
    if y is None or y.axis is not None or y.value.dtype != x.value.dtype:
        return Written("QGemm", MICROSOFT, inputs, attributes, (output,), replaced)
    inputs += [*([] if bias else [None]), *y.parameters]
    return Written("QGemm", MICROSOFT, inputs, attributes, (y.value,), (*replaced, y.node))


def _weight(node: ir.Node, index: int, *, axis: int | None) -> Integers:
    """The second factor, of one scale or of one for each index along ``axis``."""
    found = dequantized(node, index)
    rank, given = _rank(found.value), found.axis
    if given is not None and given < 0 and rank is not None:
        given += rank
    if given is not None and given != axis:
        message = f"its input {index} has scales along another axis than output channels"
        raise DeclinedError(message)
    return found


def _need_types(x: Integers, w: Integers) -> None:
    if x.value.dtype == ir.DataType.INT8 and w.value.dtype != ir.DataType.INT8:
        message = "it multiplies int8 by uint8, which no kernel does"
        raise DeclinedError(message)


def _bias(
    node: ir.Node, index: int, x: Integers, w: Integers, factor: float = 1.0
) -> list[ir.Value]:
    """The int32 bias of a node as a list of one; empty without one."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return []
    found = integers_at(node, index)
    if found is None or found.value.dtype != ir.DataType.INT32:
        message = "its bias is float"
        raise DeclinedError(message)
    if not _in_units(found, x, w, factor):
        message = "its bias is not in units of activation scale times weight scale"
        raise DeclinedError(message)
    return [found.value]


def _in_units(bias: Integers, x: Integers, w: Integers, factor: float = 1.0) -> bool:
    product = factor * array(x.scale).astype(np.float64) * array(w.scale).astype(np.float64)
    # A channel of next to nothing has a subnormal scale, whose last bit is a larger part of it.
    least = np.finfo(np.float32).smallest_subnormal
    same = np.allclose(array(bias.scale), product, rtol=1e-6, atol=least)
    return bool(same and not array(bias.zero_point).any())


def _bias_behind(
    node: ir.Node, x: Integers, w: Integers
) -> tuple[ir.Node, Integers] | tuple[None, None]:
    """The Add of an int32 bias that alone reads a product, and that bias."""
    output = node.outputs[0]
    readers = consumers(output)
    if len(readers) != 1 or output.is_graph_output():
        return None, None
    add, index = readers[0]
    if add.op_type != "Add" or add.domain or add.graph is not node.graph:
        return None, None
    found = integers_at(add, 1 - index)
    if found is None or found.value.dtype != ir.DataType.INT32:
        return None, None
    columns = w.value.shape
    numbers = constant_array(found.value)
    if numbers is None or columns is None or not _in_units(found, x, w):
        return None, None
    return (add, found) if numbers.shape in {(columns[-1],), (1, columns[-1])} else (None, None)


def _rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else value.shape.rank()
