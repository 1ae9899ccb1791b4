"""Rules of the CPU provider: what runs in integers between Q/DQ pairs, and what does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from onnxq.graph.edit import all_nodes, constant_array, constant_tensor, consumers
from onnxq.lint.checks.registry import check
from onnxq.lint.finding import at
from onnxq.lint.qdq import (
    activation_dq,
    can_bypass,
    dq_of,
    gives_output,
    input_of,
    integer_products,
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
    wrong_axis,
    zero_point_of,
)
from onnxq.targets import load_target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnxq.lint.finding import Seen
    from onnxq.lint.view import View
    from onnxq.targets import Target

_WIDE: Final = frozenset({ir.DataType.INT16, ir.DataType.UINT16})
_EIGHT_BITS: Final = frozenset({ir.DataType.INT8, ir.DataType.UINT8})


@check("idle-pair")
def idle_pair(view: View) -> Iterator[Seen]:
    """Pairs of 8 bits with a float operator on either side, or the model's edge."""
    target = load_target(view.target)
    for q in all_nodes(view.model):
        if not is_q(q) or integer_type(q) not in _EIGHT_BITS or q.outputs[0].is_graph_output():
            continue
        behind = readers(q)
        source = input_of(q, 0)
        if not behind or not all(map(is_dq, behind)) or source is None:
            continue
        if constant_tensor(source) is not None or _may_be_integer(source.producer(), target):
            continue
        if any(_may_be_integer(reader, target) for dq in behind for reader in readers(dq)):
            continue
        beside = {node.op_type for dq in behind for node in readers(dq)} or {"the model's output"}
        front = source.producer()
        names = f"{front.op_type if front else 'an input'} and {', '.join(sorted(beside))}"
        text = f"it stands between {names}, which run in float"
        named_once = sum(map(gives_output, behind)) < 2
        fixable = named_once and all(can_bypass(q, dq) for dq in behind)
        yield at(q, text, fixable=fixable)


def _may_be_integer(node: ir.Node | None, target: Target) -> bool:
    """Whether an operator has an integer kernel, or vanishes into one behind it."""
    if node is None:
        return False
    if is_q(node) or is_dq(node) or node.domain or target.rule(node.op_type).integer:
        return True
    return node.op_type in target.absorbs and _may_be_integer(maker(node, 0), target)


@check("float-op-between-pairs")
def float_op_between_pairs(view: View) -> Iterator[Seen]:
    """Operators without integer kernel, quantized in front and behind."""
    target = load_target(view.target)
    for node in all_nodes(view.model):
        if _may_be_integer(node, target) or not node.inputs:
            continue
        behind = readers(node)
        if activation_dq(node) is not None and behind and all(map(is_q, behind)):
            yield at(node, f"{node.op_type} has no integer kernel")


@check("int8-activations")
def int8_activations(view: View) -> Iterator[Seen]:
    """Pairs of int8 whose values are read more than once, by something with an integer kernel."""
    if not view.machine.x86:
        return
    target = load_target(view.target)
    for q in all_nodes(view.model):
        if not is_q(q) or integer_type(q) != ir.DataType.INT8 or _is_constant(q):
            continue
        behind = [node for node in readers(q) if is_dq(node)]
        reading = [use for dq in behind for use in consumers(dq.outputs[0])]
        if len(reading) > 1 and any(_may_be_integer(node, target) for node, _ in reading):
            text = f"its int8 values are read {len(reading)} times"
            yield at(q, text, fixable=can_be_uint8(q))


def _is_constant(node: ir.Node) -> bool:
    source = input_of(node, 0)
    return source is None or constant_tensor(source) is not None


def can_be_uint8(q: ir.Node) -> bool:
    """Whether a pair of int8 activations can be written in uint8: nobody else reads integers."""
    if not is_q(q) or integer_type(q) != ir.DataType.INT8 or zero_point_of(q) is None:
        return False
    if _is_constant(q) or q.outputs[0].is_graph_output() or scale_of(q) is None:
        return False
    behind = readers(q)
    return bool(behind) and all(is_dq(dq) and zero_point_of(dq) is not None for dq in behind)


@check("missing-output-pair")
def missing_output_pair(view: View) -> Iterator[Seen]:
    """Operators whose integer kernel needs a quantized output that they do not have."""
    target = load_target(view.target)
    for node, _, _ in integer_products(view.model):
        if target.rule(node.op_type).output_q != "required":
            continue
        if not target.rule(node.op_type).integer:
            continue
        reader = _first_float_reader(node, target)
        if reader:
            yield at(node, f"its output goes to {reader} in float")


def _first_float_reader(node: ir.Node, target: Target) -> str:
    """Who reads an output that is no quantizer, nor one that may vanish in front of one."""
    if gives_output(node):
        return "the model's output"
    for reader in readers(node):
        absorbed = reader.op_type in target.absorbs and not reader.domain
        behind = readers(reader)
        if is_q(reader) or (absorbed and behind and all(map(is_q, behind))):
            continue
        return f"{reader.op_type} {reader.name!r}"
    return ""


@check("activation-not-absorbed")
def activation_not_absorbed(view: View) -> Iterator[Seen]:
    """A Relu or Clip in front of a quantizer that represents more than it lets through."""
    absorbs = load_target(view.target).absorbs
    for product, _, _ in integer_products(view.model):
        for node in readers(product):
            behind = readers(node)
            if not is_op(node, *absorbs) or not behind or not all(map(is_q, behind)):
                continue
            if any(not _vanishes(node, q) for q in behind):
                text = f"{node.op_type} between it and its pair stays: the pair represents more"
                yield at(product, f"{text} than the {node.op_type} lets through")


def _vanishes(node: ir.Node, q: ir.Node) -> bool:
    """Whether all that a quantizer represents lies within a Relu's or Clip's bounds."""
    scale, offset = scale_of(q), zero_point_of(q)
    if scale is None or offset is None:
        return False
    if integer_type(q) not in _WIDE | _EIGHT_BITS:
        return False
    kind = integer_type(q).numpy()
    lowest, highest = int(np.iinfo(kind).min), int(np.iinfo(kind).max)
    zero = np.asarray(offset, np.int64)
    if node.op_type == "Relu":
        return bool(np.all(zero == lowest))
    low, high = _bounds(node)
    step = np.asarray(scale, np.float64)
    return bool(np.all((lowest - zero) * step >= low) and np.all((highest - zero) * step <= high))


def _bounds(clip: ir.Node) -> tuple[float, float]:
    """What a Clip lets through; its bounds are inputs, attributes before opset 11."""
    bounds = []
    for index, name, default in ((1, "min", -np.inf), (2, "max", np.inf)):
        value = input_of(clip, index)
        array = constant_array(value)
        if value is not None and array is None:
            bounds.append(-default)
        elif array is not None:
            bounds.append(float(np.asarray(array, np.float64).reshape(())))
        else:
            bounds.append(clip.attributes.get_float(name, default))
    return bounds[0], bounds[1]


@check("covered-product")
def covered_product(view: View) -> Iterator[Seen]:
    """Products whose only reader is a float Add or Relu, where ONNX Runtime left them in float."""
    covers = load_target(view.target).covers
    found: dict[str, ir.Node] = {}
    weights: dict[str, str | None] = {}
    for product, _, weight in integer_products(view.model):
        behind = readers(product)
        if product.op_type == "Conv" or len(behind) != 1 or not is_op(behind[0], *covers):
            continue
        if not any(map(is_q, readers(behind[0]))) and not gives_output(product):
            found[product.name or ""] = behind[0]
            weights[product.name or ""] = _name_of(weight)
    in_float = view.in_float(weights)
    for name in (name for name in found if name in in_float):
        # A Sum behind a Gemm would be merged into it.
        gemm = is_op(maker(found[name], 0), "Gemm") or is_op(maker(found[name], 1), "Gemm")
        fixable = not is_op(found[name], "Add") or not gemm
        yield at(found[name], f"it keeps {name!r} in float", fixable=fixable)


@check("quantizer-not-alone")
def quantizer_not_alone(view: View) -> Iterator[Seen]:
    """Products that a quantizer and something else read, where ONNX Runtime left them in float."""
    if not load_target(view.target).lone_quantizer:
        return
    found: dict[str, ir.Node] = {}
    weights: dict[str, str | None] = {}
    for product, _, weight in integer_products(view.model):
        last = _behind_bias(product)
        quantizers = [node for node in readers(last) if is_q(node)]
        shared = gives_output(last) or len(consumers(last.outputs[0])) > len(quantizers)
        if product.op_type != "Conv" and quantizers and shared:
            found[product.name or ""] = last
            weights[product.name or ""] = _name_of(weight)
    in_float = view.in_float(weights)
    for name in (name for name in found if name in in_float):
        text = f"{name!r} runs in float: a quantizer and others read its output"
        yield at(found[name], text, fixable=True)


def _behind_bias(product: ir.Node) -> ir.Node:
    """The Add of a quantized bias behind a MatMul, which runs with it; else the product."""
    behind = readers(product)
    if product.op_type == "MatMul" and len(behind) == 1 and is_op(behind[0], "Add"):
        biased = any(weight_dq(behind[0], index) is not None for index in (0, 1))
        return behind[0] if biased else product
    return product


@check("wide-activations")
def wide_activations(view: View) -> Iterator[Seen]:
    """Products that read activations of 16 bits."""
    for node, _ in weighted_nodes(view.model):
        dq = activation_dq(node)
        if dq is not None and integer_type(dq) in _WIDE:
            yield at(node, f"its activation is {integer_type(dq).name.lower()}")


@check("axis-not-fused")
def axis_not_fused(view: View) -> Iterator[Seen]:
    """MatMul with scales along the axis that it sums over."""
    for node, _, weight in integer_products(view.model):
        axis = wrong_axis(node, weight)
        if node.op_type == "MatMul" and axis is not None:
            yield at(node, f"its weight has a scale for each index along axis {axis}")


@check("not-in-integers")
def not_in_integers(view: View) -> Iterator[Seen]:
    """Products between pairs that are no integer kernel in the graph that is executed."""
    target = load_target(view.target)
    found: dict[str, ir.Node] = {}
    weights: dict[str, str | None] = {}
    for node in all_nodes(view.model):
        if not is_op(node, "Conv", "Gemm", "MatMul") or not target.rule(node.op_type).integer:
            continue
        if activation_dq(node) is not None and dq_of(node, 1) is not None:
            weight = weight_dq(node)
            found[node.name or ""] = node
            weights[node.name or ""] = None if weight is None else _name_of(weight)
    in_float = view.in_float(weights)
    for name in (name for name in found if name in in_float):
        yield at(found[name], f"ONNX Runtime runs this {found[name].op_type} in float")


def _name_of(weight: ir.Node) -> str | None:
    value = input_of(weight, 0)
    return None if value is None or stored_integers(weight) is None else value.name
