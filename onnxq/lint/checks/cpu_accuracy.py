"""Rules of the CPU provider: where an integer kernel computes something else than is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir

from onnxq.graph.edit import all_nodes, constant_array
from onnxq.lint.catalogue import load_rules
from onnxq.lint.checks.registry import check
from onnxq.lint.finding import at, of_model
from onnxq.lint.qdq import (
    dq_of,
    input_of,
    integer_products,
    integer_type,
    is_op,
    readers,
    scale_of,
    stored_integers,
    wrong_axis,
)
from onnxq.numerics.schemes import PAIR_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from onnxq.lint.finding import Seen
    from onnxq.lint.view import View

    Array = NDArray[Any]

_INT32_MOST: Final = 2**31 - 1
_ROUNDS_BIAS: Final = frozenset({"QGemm", "QLinearConv"})
"""Kernels for which ONNX Runtime makes a float bias int32."""

_WEIGHT_OF: Final = {"ConvInteger": 1, "MatMulInteger": 1, "QLinearConv": 3, "QLinearMatMul": 3}
"""Which input of an operator on integers its weight is; its activation is the first."""


@check("saturating-weights")
def saturating_weights(view: View) -> Iterator[Seen]:
    """Weights whose sums of two can saturate on this processor."""
    if view.machine.x86 and not view.machine.vnni:
        yield from _beyond_pairs(view)


@check("saturating-weights-elsewhere")
def saturating_weights_elsewhere(view: View) -> Iterator[Seen]:
    """Weights whose sums of two could saturate on another processor."""
    if view.machine.x86 and view.machine.vnni:
        yield from _beyond_pairs(view)


def _beyond_pairs(view: View) -> Iterator[Seen]:
    for node, name, integers, axes in _int8_weights(view.model):
        magnitudes = np.abs(np.moveaxis(integers, axes, range(-len(axes), 0)).astype(np.int16))
        flat = magnitudes.reshape(*magnitudes.shape[: -len(axes)], -1)
        count = flat.shape[-1] // 2
        sums = flat[..., 0 : 2 * count : 2] + flat[..., 1 : 2 * count : 2]
        beyond = np.count_nonzero(sums > PAIR_LIMIT)
        if beyond:
            share = 100 * beyond / max(1, sums.size)
            yield at(node, f"{share:.3g} % of the neighbours in {name!r} exceed {PAIR_LIMIT}")


def _int8_weights(model: ir.Model) -> Iterator[tuple[ir.Node, str, Array, tuple[int, ...]]]:
    """Nodes with an int8 weight in an integer product, its name, and the axes that are summed."""
    for node, _, weight in integer_products(model):
        value, array = input_of(weight, 0), constant_array(input_of(weight, 0))
        if value is not None and array is not None and integer_type(weight) == ir.DataType.INT8:
            axes = _summed(node, array)
            if axes:
                yield node, value.name or "", array, axes
    for node in all_nodes(model):
        index = _WEIGHT_OF.get(node.op_type) if not node.domain else None
        value = None if index is None else input_of(node, index)
        array = constant_array(value)
        if value is not None and array is not None and array.dtype == np.int8:
            axes = _summed(node, array)
            if axes:
                yield node, value.name or "", array, axes


def _summed(node: ir.Node, weight: Array) -> tuple[int, ...]:
    """The axes that a kernel sums over, in its order; none of a depthwise Conv.

    None either of a weight that the operator does not take. Channels come last in a Conv.
    `tests/passes/test_saturation.py` holds each kernel to it.
    """
    if weight.ndim < (3 if "Conv" in node.op_type else 2):
        return ()
    if "Conv" in node.op_type:
        depthwise = weight.shape[1] == 1 and weight.shape[0] == node.attributes.get_int("group", 1)
        return () if depthwise else (*range(2, weight.ndim), 1)
    if node.op_type == "Gemm":
        return (1,) if node.attributes.get_int("transB", 0) else (0,)
    return (weight.ndim - 2,)


@check("bias-overflow")
def bias_overflow(view: View) -> Iterator[Seen]:
    """Biases that are beyond int32 at the scale of activation times weight, or clipped to it."""
    for node, activation, weight in integer_products(view.model):
        scale = _product_scale(activation, weight)
        for owner, index in _biases(node):
            dq = dq_of(owner, index)
            integers = None if dq is None else constant_array(input_of(dq, 0))
            if integers is not None and integers.dtype == np.int32:
                if np.any(np.abs(integers.astype(np.int64)) >= _INT32_MOST):
                    yield at(node, "its int32 bias is clipped at the end of the range")
                continue
            bias = constant_array(input_of(owner, index))
            # Scales along another axis are not those of the bias: `axis-misread` tells of them.
            if bias is None or scale is None or wrong_axis(node, weight) is not None:
                continue
            if not _for_each(bias, scale):
                continue
            most = float(np.max(np.abs(np.asarray(bias, np.float64)) / scale, initial=0))
            if most > _INT32_MOST and not _keeps_bias_float(view, node, weight):
                yield at(node, f"its bias needs {most:.3g} at the scale of activation x weight")


def _for_each(bias: Array, scale: Array) -> bool:
    """Whether a bias has a scale for each number of its last axis; else nothing loads the model."""
    return scale.size == 1 or bias.ndim == 0 or bias.shape[-1] in {1, scale.size}


def _keeps_bias_float(view: View, node: ir.Node, weight: ir.Node) -> bool:
    """Whether ONNX Runtime is known to run a product in a kernel that has no bias of int32."""
    value = input_of(weight, 0)
    name = None if value is None else value.name
    return view.runs and not view.operators(node.name or "", name) & _ROUNDS_BIAS


def _biases(node: ir.Node) -> Iterator[tuple[ir.Node, int]]:
    """Where a product's bias is read: its third input, or an input of the Add behind a MatMul."""
    if node.op_type in {"Conv", "Gemm"} and input_of(node, 2) is not None:
        yield node, 2
    if node.op_type == "MatMul":
        behind = readers(node)
        if len(behind) == 1 and is_op(behind[0], "Add"):
            yield from ((behind[0], i) for i in (0, 1) if behind[0].inputs[i] not in node.outputs)


def _product_scale(activation: ir.Node, weight: ir.Node) -> Array | None:
    first, second = scale_of(activation), scale_of(weight)
    if first is None or second is None or first.size != 1:
        return None
    product = np.asarray(first, np.float64).reshape(()) * np.asarray(second, np.float64)
    return np.where(product > 0, product, np.nan).reshape(-1)


@check("bias-scale")
def bias_scale(view: View) -> Iterator[Seen]:
    """An int32 bias whose scale is not the product of the two others."""
    tolerance = load_rules()["bias-scale"].numbers["percent"] / 100
    for node, activation, weight in integer_products(view.model):
        wanted = _product_scale(activation, weight)
        dq = dq_of(node, 2)
        if dq is None or wanted is None or stored_integers(dq) is None:
            continue
        found = scale_of(dq)
        if found is None or found.size not in {1, wanted.size}:
            continue
        ratio = np.asarray(found, np.float64).reshape(-1) / wanted
        if np.any(np.abs(ratio - 1) > tolerance):
            worst = float(ratio[np.argmax(np.abs(np.log(np.abs(ratio) + 1e-300)))])
            yield at(node, f"its bias has {worst:.3g} times the scale of activation x weight")


@check("axis-misread")
def axis_misread(view: View) -> Iterator[Seen]:
    """Conv and Gemm with scales along another axis than that of their output channels."""
    for node, _, weight in integer_products(view.model):
        axis = wrong_axis(node, weight)
        if node.op_type in {"Conv", "Gemm"} and axis is not None:
            yield at(node, f"its weight has scales along axis {axis}, not that of its channels")


@check("optimizing-changes-results")
def optimizing_changes_results(view: View) -> Iterator[Seen]:
    """The model as it is executed, against itself as it is written."""
    least = load_rules()["optimizing-changes-results"].numbers["least_sqnr_db"]
    if view.drift_db is not None and view.drift_db < least:
        yield of_model(f"on made-up inputs its outputs agree to {view.drift_db:.1f} dB alone")
