"""Fused operators of ONNX Runtime become what they were fused from, where a weight is in them.

ONNX Runtime fuses them again when it loads a model in which they stayed float. Cases, of domain
``com.microsoft``, with a constant weight that no caller can override:
    - FusedMatMul and TransposeMatMul: MatMul, with ``alpha`` multiplied into the weight (declined
      where products leave the normal range) and ``transB`` done to it; ``transA`` and batched
      transposition are declined;
    - FusedGemm: Gemm and its activation;
    - FusedConv: Conv, an Add of the input Z if there is one, and its activation.
Activations: Relu, Sigmoid, Tanh, LeakyRelu, HardSigmoid, Clip and those alike, with their
parameters; another one is declined.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxq.graph.derived import Deriver, Scaled, Step, Transposed, stays_normal
from onnxq.graph.edit import initializer, nodes_below, remove_if_unread
from onnxq.graph.insert import put_behind
from onnxq.graph.opset import MICROSOFT
from onnxq.graph.weighted import plain_constant

# Names of the attributes that the parameters of an activation go to.
_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "Elu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "Relu": (),
    "Selu": ("alpha", "gamma"),
    "Sigmoid": (),
    "Softplus": (),
    "Softsign": (),
    "Tanh": (),
    "ThresholdedRelu": ("alpha",),
}


@dataclass(frozen=True, slots=True)
class _Activation:
    """What is applied to the result: an operator with attributes, or Clip with its bounds."""

    op: str
    attributes: dict[str, float]
    bounds: tuple[float, ...] = ()


class UnfusePass(ir.passes.InPlacePass):
    """Replace fused operators that hold a weight."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replace in place, in the graph and its subgraphs."""
        derive = Deriver(model)
        changed = False
        for node in list(nodes_below(model.graph)):
            if node.domain != MICROSOFT or plain_constant(node, 1, model) is None:
                continue
            if node.op_type in {"FusedMatMul", "TransposeMatMul"}:
                changed |= _matmul(node, derive)
            elif node.op_type == "FusedGemm":
                changed |= _gemm(node, derive)
            elif node.op_type == "FusedConv":
                changed |= _conv(node, derive)
        return ir.passes.PassResult(model, changed)

    def __repr__(self) -> str:
        """The pass's name."""
        return "UnfusePass()"


def _matmul(node: ir.Node, derive: Deriver) -> bool:
    weight, attributes = node.inputs[1], node.attributes
    if weight is None or weight.const_value is None:
        return False
    if any(attributes.get_int(name, 0) for name in ("transA", "transBatchA", "transBatchB")):
        return False
    steps: list[Step] = []
    rank = len(weight.const_value.shape)
    if attributes.get_int("transB", 0):
        if rank < 2:
            return False
        steps.append(Transposed((*range(rank - 2), rank - 1, rank - 2)))
    alpha = attributes.get_float("alpha", 1.0)
    if alpha != 1.0:
        if not stays_normal(weight, alpha):
            return False
        steps.append(Scaled(alpha))
    node.replace_input_with(1, derive(weight, steps, "matrix"))
    remove_if_unread(weight)
    node.op_type, node.domain = "MatMul", ""
    attributes.clear()
    return True


def _gemm(node: ir.Node, derive: Deriver) -> bool:
    attributes = node.attributes
    name = attributes.get_string("activation", "")
    given = ("activation_alpha", "activation_beta", "activation_gamma")
    wanted = _ACTIVATIONS.get(name)
    if wanted is None:
        return False
    numbers = {f"activation_{key}": key for key in wanted}
    found = {numbers[key]: attributes[key].as_float() for key in given if key in attributes}
    for key in ("activation", *given):
        attributes.pop(key, None)
    node.op_type, node.domain = "Gemm", ""
    put_behind(node, name, derive.fresh, attributes=found)
    return True


def _conv(node: ir.Node, derive: Deriver) -> bool:
    name = node.attributes.get_string("activation", "")
    numbers = tuple(node.attributes.get_floats("activation_params", ()))
    activation = _activation(name, numbers)
    if activation is None:
        return False
    residual = node.inputs[3] if len(node.inputs) > 3 else None
    for key in ("activation", "activation_params"):
        node.attributes.pop(key, None)
    if len(node.inputs) > 3:
        node.resize_inputs(3)
    node.op_type, node.domain = "Conv", ""
    if activation.op:
        dtype = (node.outputs[0].dtype or ir.DataType.FLOAT).numpy()
        bounds = [
            initializer(derive.model, derive.fresh(f"{node.name}/bound"), np.asarray(b, dtype))
            for b in activation.bounds
        ]
        op, attributes = activation.op, activation.attributes
        put_behind(node, op, derive.fresh, others=bounds, attributes=attributes)
    if residual is not None:
        put_behind(node, "Add", derive.fresh, others=(residual,))
    return True


def _activation(name: str, numbers: tuple[float, ...]) -> _Activation | None:
    if name == "Clip":
        return _Activation(name, {}, numbers) if len(numbers) == 2 else None
    if not name:
        return _Activation("", {})
    wanted = _ACTIVATIONS.get(name)
    if wanted is None or len(numbers) > len(wanted):
        return None
    return _Activation(name, dict(zip(wanted, numbers, strict=False)))
