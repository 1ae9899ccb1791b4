"""Constants as the second operand of Add, Sub, Mul and Div, stored in the activations' integers.

Cases, with a quantized ``x`` and a quantized output:
    - ``Add(x, c)``, ``Mul(x, c)``: the constant is quantized, one scale for all of it;
    - ``Sub(x, c)`` becomes ``Add(x, -c)``, ``Div(x, c)`` becomes ``Mul(x, 1 / c)``: providers have
      integer kernels for Add and Mul alone, and the reciprocal's last bit is far below a step.
Declined: a constant that a caller may replace, that is not finite, or whose values lie too far
apart for one scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import onnx_ir as ir

from onnxq.graph.edit import constant_array, constant_tensor
from onnxq.numerics.affine import fake_quantize, qparams_from_range
from onnxq.numerics.metrics import sqnr_db

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxq.algorithms.view import GraphView
    from onnxq.numerics.schemes import QParams, Scheme

Form = Literal["same", "negated", "reciprocal"]

LEAST_SQNR_DB = 30.0
"""A constant that loses more stays float. Evenly spread values have about 50 dB in 8 bits."""

Op = Literal["Add", "Mul"]

FORMS: dict[str, tuple[Form, Op]] = {
    "Add": ("same", "Add"),
    "Mul": ("same", "Mul"),
    "Sub": ("negated", "Add"),
    "Div": ("reciprocal", "Mul"),
}
"""For each operator what becomes of its constant, and the operator that it then is."""

_SWAPPABLE = ("Add", "Mul")


@dataclass(frozen=True, slots=True)
class ConstantOperand:
    """A constant that one node reads beside a quantized activation.

    Attributes:
        node: The node's name.
        index: The constant's input.
        initializer: The constant.
        form: What becomes of it.
        op: What the node becomes.
    """

    node: str
    index: int
    initializer: str
    form: Form
    op: Op


def constant_operand(node: ir.Node, view: GraphView) -> ConstantOperand | None:
    """The constant that a node could read as integers; None if there is none."""
    if node.domain or node.op_type not in FORMS or len(node.inputs) != 2:
        return None
    form, op = FORMS[node.op_type]
    places = [i for i, value in enumerate(node.inputs) if value and constant_tensor(value)]
    if len(places) != 1 or (places[0] == 0 and node.op_type not in _SWAPPABLE):
        return None
    scheme = view.target.activation
    if scheme.dtype.name not in view.target.rule(op).constants:
        return None
    value = node.inputs[places[0]]
    if value is None or not value.is_initializer() or value.is_graph_input():
        return None
    if value.dtype != ir.DataType.FLOAT or constant_params(value, form, scheme) is None:
        return None
    return ConstantOperand(node.name or "", places[0], value.name or "", form, op)


def constant_params(value: ir.Value, form: Form, scheme: Scheme) -> QParams | None:
    """The integers of a constant, one scale for all; None where they would spoil it."""
    array = constant_array(value)
    if array is None or array.size == 0:
        return None
    wanted = formed(np.asarray(array, np.float32), form)
    if not np.isfinite(wanted).all():
        return None
    low, high = min(float(wanted.min()), 0.0), max(float(wanted.max()), 0.0)
    params = qparams_from_range(low, high, scheme)
    exact = wanted.astype(np.float64)
    noise = float(np.square(fake_quantize(wanted, params) - exact).sum())
    return params if sqnr_db(float(np.square(exact).sum()), noise) >= LEAST_SQNR_DB else None


def formed(array: NDArray[np.float32], form: Form) -> NDArray[np.float32]:
    """The constant, its negative, or its reciprocal."""
    if form == "negated":
        return -array
    if form == "reciprocal":
        with np.errstate(divide="ignore", over="ignore"):
            return np.asarray(np.reciprocal(array.astype(np.float64)).astype(np.float32))
    return array
