"""The tiny models of the kernel probe: each is one operator between quantized tensors.

A form's name says what it is: the operator, then what is special about it, then ``outq`` if its
output is quantized. ``Conv-relu-outq`` is a Conv whose output goes through Relu into a Q/DQ pair;
``MaxPool-rescale-outq`` has another scale behind it than before it. Where nothing else is said,
weights are int8, symmetric and per output channel, the lowest integer of an activation stands for
0, activations are images (MatMul and Gemm: two axes), and the scales of in- and output are equal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from onnx import TensorProto

from onnxq.runtime.probe_graph import (
    IMAGE,
    INT4_OPSET,
    MATRIX,
    OPSET,
    OTHER_SCALE,
    SCALE,
    TOKENS,
    ActivationType,
    Attributes,
    Builder,
    ProbeGraph,
)
from onnxq.runtime.probe_weighted import conv_builders, linear_builders

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from onnx import ModelProto


@dataclass(frozen=True, slots=True)
class Form:
    """A tiny model of the probe.

    Attributes:
        name: What it is, as the module's text says.
        op: The operator under test.
        activation: The integers of its activations.
        build: Makes the model.
    """

    name: str
    op: str
    activation: ActivationType
    build: Builder


@dataclass(frozen=True)
class _Operator:
    """An operator without weights.

    Attributes:
        attributes: Its attributes.
        shapes: The shape of each quantized input.
        constants: Its other inputs, behind the quantized ones; ``None`` for one left out.
    """

    attributes: Attributes = field(default_factory=dict)
    shapes: tuple[Sequence[int], ...] = (IMAGE,)
    constants: tuple[NDArray[Any] | np.generic | None, ...] = ()


def _ints(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


_WINDOW: Final[Attributes] = {"kernel_shape": [2, 2], "strides": [2, 2]}
_CHANNELS: Final = np.linspace(0.5, 1, 4, dtype=np.float32)
_FEATURES: Final = np.linspace(0.5, 1, 32, dtype=np.float32)
_PAIR: Final = (IMAGE, IMAGE)

_OPERATORS: Final[Mapping[str, _Operator]] = MappingProxyType(
    {
        "Abs": _Operator(),
        "Add": _Operator(shapes=_PAIR),
        "AveragePool": _Operator(_WINDOW),
        "BatchNormalization": _Operator(constants=(_CHANNELS,) * 4),
        "Clip": _Operator(constants=(np.float32(1), np.float32(6))),
        "Concat": _Operator({"axis": 1}, _PAIR),
        "DepthToSpace": _Operator({"blocksize": 2}),
        "Div": _Operator(shapes=_PAIR),
        "Elu": _Operator(),
        "Erf": _Operator(),
        "Exp": _Operator(),
        "Expand": _Operator(constants=(_ints(2, 4, 8, 8),)),
        "Flatten": _Operator(),
        "Gather": _Operator({"axis": 2}, constants=(_ints(0, 2),)),
        "Gelu": _Operator(),
        "GlobalAveragePool": _Operator(),
        "GlobalMaxPool": _Operator(),
        "HardSigmoid": _Operator(),
        "HardSwish": _Operator(),
        "InstanceNormalization": _Operator(constants=(_CHANNELS,) * 2),
        "LayerNormalization": _Operator(shapes=(TOKENS,), constants=(_FEATURES,) * 2),
        "LeakyRelu": _Operator({"alpha": 0.1}),
        "Max": _Operator(shapes=_PAIR),
        "MaxPool": _Operator(_WINDOW),
        "Min": _Operator(shapes=_PAIR),
        "Mish": _Operator(),
        "Mul": _Operator(shapes=_PAIR),
        "Neg": _Operator(),
        "PRelu": _Operator(constants=(_CHANNELS.reshape(4, 1, 1),)),
        "Pad": _Operator(constants=(_ints(0, 0, 1, 1, 0, 0, 1, 1),)),
        "Pow": _Operator(constants=(np.float32(2),)),
        "ReduceMax": _Operator(constants=(_ints(2, 3),)),
        "ReduceMean": _Operator(constants=(_ints(2, 3),)),
        "ReduceSum": _Operator(constants=(_ints(2, 3),)),
        "Relu": _Operator(),
        "Reshape": _Operator(constants=(_ints(1, -1),)),
        "Resize": _Operator(
            {"mode": "nearest"}, constants=(None, np.array([1, 1, 2, 2], np.float32))
        ),
        "Sigmoid": _Operator(),
        "Slice": _Operator(constants=(_ints(0), _ints(4), _ints(2))),
        "Softmax": _Operator({"axis": -1}),
        "SpaceToDepth": _Operator({"blocksize": 2}),
        "Split": _Operator({"axis": 1, "num_outputs": 2}),
        "Sqrt": _Operator(),
        "Squeeze": _Operator(constants=(_ints(0),)),
        "Sub": _Operator(shapes=_PAIR),
        "Tanh": _Operator(),
        "Tile": _Operator(constants=(_ints(1, 1, 2, 2),)),
        "Transpose": _Operator({"perm": [0, 2, 3, 1]}),
        "Unsqueeze": _Operator(constants=(_ints(0),)),
        "Where": _Operator(shapes=_PAIR),
    }
)
"""The operators without weights that are probed."""


def forms() -> Iterator[Form]:
    """Every form, for both types of activation."""
    kinds: tuple[ActivationType, ...] = ("uint8", "int8")
    for activation in kinds:
        for name, build in _builders().items():
            yield Form(name, name.partition("-")[0], activation, build)


def _builders() -> dict[str, Builder]:
    return {**_plain_builders(), **linear_builders(), **conv_builders(), **_other_builders()}


def _plain_builders() -> dict[str, Builder]:
    """Each operator without weights: output float, output quantized, with another scale."""
    made: dict[str, Builder] = {}
    for op in _OPERATORS:
        made[op] = _plain(op, None)
        made[f"{op}-outq"] = _plain(op, SCALE)
        made[f"{op}-rescale-outq"] = _plain(op, OTHER_SCALE)
    made["Transpose-opset21"] = _plain("Transpose", None, INT4_OPSET)
    return made


def _plain(op: str, out_scale: float | None, opset: int = OPSET) -> Builder:
    spec = _OPERATORS[op]

    def build(activation: ActivationType) -> ModelProto:
        graph = ProbeGraph(activation, opset=opset)
        inputs = [graph.source(f"x{i}", shape) for i, shape in enumerate(spec.shapes)]
        for index, array in enumerate(spec.constants):
            inputs.append("" if array is None else graph.constant(f"constant{index}", array))
        if op == "Where":
            mask = np.indices(IMAGE).sum(axis=0) % 2 == 0
            inputs.insert(0, graph.constant("mask", mask))
        value = graph.node(op, inputs, "value", dict(spec.attributes))
        if op == "Split":
            graph.nodes[-1].output.append("rest")
        if out_scale is None:
            return graph.finish(value)
        outputs = tuple(graph.nodes[-1].output)
        made = [graph.pair(output, f"y_{output}", out_scale) for output in outputs]
        return graph.finish(*made)

    return build


def _other_builders() -> dict[str, Builder]:
    """Products of two activations, constants as second operand, tables, dynamic forms."""
    made: dict[str, Builder] = {}
    for out in (False, True):
        end = "-outq" if out else ""
        made[f"MatMul-activations{end}"] = _two_activations(out)
        for op in ("Add", "Mul"):
            made[f"{op}-constant{end}"] = _with_constant(op, out)
            made[f"{op}-float_constant{end}"] = _with_float_constant(op, out)
            made[f"{op}-relu{end}"] = _with_relu(op, out)
    made["Gather-table"] = _table
    made["MatMul-dynamic"] = _dynamic("MatMulInteger", MATRIX, (32, 16))
    made["MatMul-dynamic-tokens"] = _dynamic("MatMulInteger", TOKENS, (32, 16))
    made["Conv-dynamic"] = _dynamic("ConvInteger", IMAGE, (8, 4, 3, 3))
    return made


def _two_activations(out: bool) -> Builder:
    def build(activation: ActivationType) -> ModelProto:
        graph = ProbeGraph(activation)
        inputs = [graph.source("left", (2, 6, 32)), graph.source("right", (2, 32, 6))]
        value = graph.node("MatMul", inputs, "value", {})
        return graph.finish(graph.pair(value, "y", OTHER_SCALE) if out else value)

    return build


def _with_relu(op: str, out: bool) -> Builder:
    def build(activation: ActivationType) -> ModelProto:
        graph = ProbeGraph(activation)
        inputs = [graph.source("left", IMAGE), graph.source("right", IMAGE)]
        value = graph.node("Relu", [graph.node(op, inputs, "sum", {})], "value", {})
        return graph.finish(graph.pair(value, "y", OTHER_SCALE) if out else value)

    return build


def _with_constant(op: str, out: bool) -> Builder:
    def build(activation: ActivationType) -> ModelProto:
        graph = ProbeGraph(activation)
        names = [
            graph.constant("weight_q", np.arange(4).astype(activation).reshape(1, 4, 1, 1)),
            graph.constant("weight_scale", np.float32(OTHER_SCALE)),
            graph.constant("weight_zero", np.array(0, activation)),
        ]
        constant = graph.node("DequantizeLinear", names, "weight", {})
        value = graph.node(op, [graph.source("x", IMAGE), constant], "value", {})
        return graph.finish(graph.pair(value, "y", OTHER_SCALE) if out else value)

    return build


def _with_float_constant(op: str, out: bool) -> Builder:
    def build(activation: ActivationType) -> ModelProto:
        graph = ProbeGraph(activation)
        constant = graph.constant("constant", _CHANNELS.reshape(1, 4, 1, 1))
        value = graph.node(op, [graph.source("x", IMAGE), constant], "value", {})
        return graph.finish(graph.pair(value, "y", OTHER_SCALE) if out else value)

    return build


def _table(activation: ActivationType) -> ModelProto:
    """An embedding: rows of a dequantized table."""
    graph = ProbeGraph(activation)
    table = graph.weight((64, 16), None)
    graph.inputs["index"] = (1, 6)
    index = graph.node("Cast", ["index"], "rows", {"to": TensorProto.INT64})
    return graph.finish(graph.node("Gather", [table, index], "value", {"axis": 0}))


def _dynamic(op: str, shape: Sequence[int], weight: Sequence[int]) -> Builder:
    """DynamicQuantizeLinear, an integer product, and the two scales behind it."""

    def build(activation: ActivationType) -> ModelProto:
        graph = ProbeGraph(activation)
        graph.inputs["x"] = shape
        integers = np.random.default_rng(0).integers(-100, 101, weight).astype(np.int8)
        name = graph.constant("weight_q", integers)
        return graph.finish(graph.quantized_at_run_time(op, "x", name, {}))

    return build
