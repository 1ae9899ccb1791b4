"""Rules of FP8: where no product is made in it, and what a quantizer of it does to a Relu."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from onnxq.graph.edit import all_nodes
from onnxq.lint.checks.registry import check
from onnxq.lint.finding import at
from onnxq.lint.qdq import (
    dq_of,
    gives_output,
    input_of,
    integer_type,
    is_op,
    is_q,
    maker,
    readers,
    stored_integers,
    weighted_nodes,
)
from onnxq.targets import load_target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnxq.lint.finding import Seen
    from onnxq.lint.view import View

_FLOAT8: Final = frozenset(
    {
        ir.DataType.FLOAT8E4M3FN,
        ir.DataType.FLOAT8E4M3FNUZ,
        ir.DataType.FLOAT8E5M2,
        ir.DataType.FLOAT8E5M2FNUZ,
    }
)
_PRODUCTS: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_MOVES: Final = ("Identity", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""ONNX Runtime moves a quantizer in front of these."""


@check("float8-pairs")
def float8_pairs(view: View) -> Iterator[Seen]:
    """Products that read FP8 through a DequantizeLinear."""
    for node in all_nodes(view.model):
        if not is_op(node, *_PRODUCTS):
            continue
        read = [dq_of(node, index) for index in (0, 1)]
        if any(dq is not None and integer_type(dq) in _FLOAT8 for dq in read):
            yield at(node, "it reads FP8, and runs in float behind DequantizeLinear")


@check("float8-lost-activation")
def float8_lost_activation(view: View) -> Iterator[Seen]:
    """A Relu or Clip in front of a QuantizeLinear of FP8 that has a zero point."""
    for q in all_nodes(view.model):
        if not is_q(q) or integer_type(q) not in _FLOAT8 or input_of(q, 2) is None:
            continue
        front = _in_front(q)
        if front is not None and is_op(front, "Relu", "Clip") and not gives_output(front):
            lost = "is dropped" if front.op_type == "Relu" else "keeps the model from loading"
            yield at(front, f"this {front.op_type} {lost}")


def _in_front(node: ir.Node) -> ir.Node | None:
    """What makes the first input, seen through movement; None if anybody else reads that."""
    front = maker(node, 0)
    if front is None or readers(front) != [node]:
        return None
    return _in_front(front) if is_op(front, *_MOVES) else front


@check("tensorrt-float8-conv")
def float8_conv(view: View) -> Iterator[Seen]:
    """A Conv in FP8 whose shape has no kernel."""
    rules = load_target(view.target).float8
    for node, weight in weighted_nodes(view.model):
        stored = stored_integers(weight)
        if rules is None or node.op_type != "Conv" or stored is None or len(stored.shape) < 3:
            continue
        if integer_type(weight) in _FLOAT8 and (why := rules.why_not(tuple(stored.shape.numpy()))):
            yield at(node, f"it is a Conv {why}")
