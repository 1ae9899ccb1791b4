"""The forms of the kernel probe that have a weight: MatMul, Gemm, Conv, ConvTranspose."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from onnxq.runtime.probe_graph import (
    IMAGE,
    INT4_OPSET,
    MATRIX,
    OPSET,
    OTHER_SCALE,
    TOKENS,
    ActivationType,
    Attributes,
    Builder,
    ProbeGraph,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnx import ModelProto


@dataclass(frozen=True)
class _Weighted:
    """A form of an operator with a weight.

    Attributes:
        op: The operator.
        shape: The activation's shape.
        weight: The weight's shape.
        axis: The weight's quantized axis, ``None`` per tensor.
        attributes: The operator's attributes.
        bias: No bias, a quantized one, a float one, or one in an Add behind: a float vector, a
            float array of the product's rank, or a quantized vector.
        between: An operator between it and the output's Q/DQ pair.
        offset: How far 0 lies above the lowest integer of the output.
        dtype: The weight's integers.
        block: The block size along ``axis``; 0 for none.
        activation: Whether the activation is quantized.
        opset: The version of ONNX's operators.
    """

    op: str
    shape: Sequence[int]
    weight: Sequence[int]
    axis: int | None
    attributes: Attributes = field(default_factory=dict)
    bias: Literal["", "int32", "float", "added", "added_row", "added_int32"] = ""
    between: str = ""
    offset: int = 0
    dtype: str = "int8"
    block: int = 0
    activation: bool = True
    opset: int = OPSET

    def builder(self, out: bool) -> Builder:
        """The model's maker, with a quantized output or a float one."""

        def build(activation: ActivationType) -> ModelProto:
            graph = ProbeGraph(activation, opset=self.opset)
            value = self._value(graph)
            if not out:
                return graph.finish(value)
            return graph.finish(graph.pair(value, "y", OTHER_SCALE, self.offset))

        return build

    def _value(self, graph: ProbeGraph) -> str:
        if self.activation:
            inputs = [graph.source("x", self.shape)]
        else:
            graph.inputs["x"] = self.shape
            inputs = ["x"]
        inputs.append(graph.weight(self.weight, self.axis, self.dtype, self.block))
        channels = self.weight[self.axis or 0]
        if self.bias == "int32":
            inputs.append(graph.bias(channels))
        elif self.bias == "float":
            inputs.append(graph.float_bias(channels))
        value = graph.node(self.op, inputs, "value", dict(self.attributes))
        if self.bias.startswith("added"):
            value = graph.node("Add", [value, self._added(graph, channels)], "biased", {})
        if self.between == "Clip":
            bounds = [
                graph.constant("low", np.float32(0)),
                graph.constant("high", np.float32(255 * OTHER_SCALE)),
            ]
            return graph.node("Clip", [value, *bounds], "between", {})
        return graph.node(self.between, [value], "between", {}) if self.between else value

    def _added(self, graph: ProbeGraph, channels: int) -> str:
        if self.bias == "added_int32":
            return graph.bias(channels)
        name = graph.float_bias(channels)
        if self.bias == "added_row":
            lead = (1,) * (len(self.shape) - 1)
            graph.constants[name] = graph.constants[name].reshape(*lead, channels)
        return name


def _with_and_without(forms: Mapping[str, _Weighted]) -> dict[str, Builder]:
    """Each form with a float output, and with a quantized one."""
    made: dict[str, Builder] = {}
    for name, form in forms.items():
        made[name] = form.builder(out=False)
        made[f"{name}-outq"] = form.builder(out=True)
    return made


def linear_builders() -> dict[str, Builder]:
    """Forms of MatMul and Gemm, by name."""
    matmul = _Weighted("MatMul", MATRIX, (32, 16), 1)
    gemm = _Weighted("Gemm", MATRIX, (32, 16), 1)
    gemm_t = _Weighted("Gemm", MATRIX, (16, 32), 0, {"transB": 1})
    made = _with_and_without(
        {
            "MatMul": matmul,
            "MatMul-tokens": replace(matmul, shape=TOKENS),
            "MatMul-per_tensor": replace(matmul, axis=None),
            "MatMul-uint8_weight": replace(matmul, dtype="uint8"),
            "MatMul-added_bias": replace(matmul, bias="added"),
            "MatMul-added_bias-tokens": replace(matmul, bias="added", shape=TOKENS),
            "MatMul-added_bias-tokens-opset21": replace(
                matmul, bias="added", shape=TOKENS, opset=INT4_OPSET
            ),
            "MatMul-added_row-tokens": replace(matmul, bias="added_row", shape=TOKENS),
            "MatMul-added_int32_bias": replace(matmul, bias="added_int32"),
            "MatMul-added_int32_bias-tokens": replace(matmul, bias="added_int32", shape=TOKENS),
            "MatMul-relu": replace(matmul, between="Relu"),
            "Gemm": gemm,
            "Gemm-transB": gemm_t,
            "Gemm-int32_bias": replace(gemm, bias="int32"),
            "Gemm-float_bias": replace(gemm, bias="float"),
            "Gemm-transB-int32_bias": replace(gemm_t, bias="int32"),
            "Gemm-transB-float_bias": replace(gemm_t, bias="float"),
            "Gemm-relu": replace(gemm, between="Relu"),
            "Gemm-per_tensor": replace(gemm, axis=None),
        }
    )
    float_in = replace(matmul, activation=False, weight=(64, 16), shape=(6, 64), opset=INT4_OPSET)
    only_weight = {
        "MatMul-weight_only": float_in,
        "MatMul-weight_only-int4": replace(float_in, dtype="int4"),
        "MatMul-weight_only-int4-block32": replace(float_in, dtype="int4", axis=0, block=32),
        "MatMul-weight_only-uint4-block32": replace(float_in, dtype="uint4", axis=0, block=32),
        "MatMul-weight_only-int4-block8": replace(float_in, dtype="int4", axis=0, block=8),
        "MatMul-weight_only-int8-block32": replace(float_in, axis=0, block=32),
        "Gemm-weight_only-transB-int4-block32": replace(
            float_in,
            op="Gemm",
            weight=(16, 64),
            attributes={"transB": 1},
            dtype="int4",
            axis=1,
            block=32,
        ),
    }
    return made | {name: form.builder(out=False) for name, form in only_weight.items()}


def conv_builders() -> dict[str, Builder]:
    """Forms of Conv and ConvTranspose, by name."""
    conv = _Weighted("Conv", IMAGE, (8, 4, 3, 3), 0, {"pads": [1, 1, 1, 1]})
    depthwise = replace(conv, weight=(4, 1, 3, 3), attributes=conv.attributes | {"group": 4})
    return _with_and_without(
        {
            "Conv": conv,
            "Conv-1d": replace(
                conv, shape=(1, 4, 16), weight=(8, 4, 3), attributes={"pads": [1, 1]}
            ),
            "Conv-per_tensor": replace(conv, axis=None),
            "Conv-uint8_weight": replace(conv, dtype="uint8"),
            "Conv-int32_bias": replace(conv, bias="int32"),
            "Conv-float_bias": replace(conv, bias="float"),
            "Conv-depthwise": depthwise,
            "Conv-depthwise-int32_bias": replace(depthwise, bias="int32"),
            "Conv-relu": replace(conv, between="Relu"),
            "Conv-relu-mid_zero": replace(conv, between="Relu", offset=100),
            "Conv-clip": replace(conv, between="Clip"),
            "Conv-clip-mid_zero": replace(conv, between="Clip", offset=100),
            "Conv-hardswish": replace(conv, between="HardSwish"),
            "Conv-sigmoid": replace(conv, between="Sigmoid"),
            "ConvTranspose": replace(conv, op="ConvTranspose", weight=(4, 8, 3, 3), axis=1),
            "ConvTranspose-per_tensor": replace(
                conv, op="ConvTranspose", weight=(4, 8, 3, 3), axis=None
            ),
        }
    )
