"""How the tiny models of the kernel probe are put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

ActivationType = Literal["uint8", "int8"]
"""The integers of the activations."""

Attributes = dict[str, Any]
"""The attributes of a node."""

Builder = Callable[[ActivationType], "ModelProto"]
"""Makes a model, given the integers of its activations."""

OPSET: Final = 20
"""The newest opset before QuantizeLinear got ``output_dtype``."""
INT4_OPSET: Final = 21
"""The first opset with 4-bit integers and blocks."""
_IR_VERSION: Final = 10

IMAGE: Final = (1, 4, 8, 8)
MATRIX: Final = (6, 32)
TOKENS: Final = (2, 6, 32)

SCALE: Final = 0.05
OTHER_SCALE: Final = 0.03
WEIGHT_SCALE: Final = 0.01


@dataclass
class ProbeGraph:
    """A model being built. Values are called by name; each method returns that of its output."""

    activation: ActivationType
    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    inputs: dict[str, Sequence[int | str]] = field(default_factory=dict)
    opset: int = OPSET

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        """An initializer."""
        self.constants[name] = np.asarray(value)
        return name

    def node(
        self,
        op: str,
        inputs: Sequence[str],
        output: str,
        attributes: Attributes,
        domain: str = "",
    ) -> str:
        """A node with one output."""
        made = helper.make_node(
            op, list(inputs), [output], name=f"{output}_node", domain=domain or None
        )
        made.attribute.extend(helper.make_attribute(*item) for item in attributes.items())
        self.nodes.append(made)
        return output

    def pair(self, value: str, output: str, scale: float = SCALE, offset: int = 0) -> str:
        """Put a Q/DQ pair behind a value; ``offset`` moves 0 up from the lowest integer."""
        dtype = np.dtype(self.activation)
        zero = np.array(np.iinfo(dtype).min + offset, dtype)
        names = [
            self.constant(f"{output}_scale", np.float32(scale)),
            self.constant(f"{output}_zero", zero),
        ]
        self.node("QuantizeLinear", [value, *names], f"{output}_q", {})
        return self.node("DequantizeLinear", [f"{output}_q", *names], output, {})

    def source(self, name: str, shape: Sequence[int | str], scale: float = SCALE) -> str:
        """A quantized input of the model."""
        self.inputs[name] = shape
        return self.pair(name, f"{name}_dq", scale)

    def weight(
        self, shape: Sequence[int], axis: int | None, dtype: str = "int8", block: int = 0
    ) -> str:
        """A dequantized weight: per ``axis``, per tensor (``None``), or in blocks along it."""
        kind = helper.tensor_dtype_to_np_dtype(TensorProto.DataType.Value(dtype.upper()))
        span = 7 if dtype.endswith("int4") else 100
        low = 0 if dtype.startswith("u") else -span
        integers = np.random.default_rng(0).integers(low, span + 1, shape)
        scales = [1 if axis is None else shape[axis]] if not block else list(shape)
        if block and axis is not None:
            scales[axis] = -(-shape[axis] // block)
        scale = np.full(scales if axis is not None else (), WEIGHT_SCALE, np.float32)
        names = [
            self.constant("weight_q", integers.astype(kind)),
            self.constant("weight_scale", scale),
            self.constant("weight_zero", np.zeros(scale.shape, kind)),
        ]
        attributes = {} if axis is None else {"axis": axis}
        if block:
            attributes["block_size"] = block
        return self.node("DequantizeLinear", names, "weight", attributes)

    def quantized_at_run_time(self, op: str, x: str, weight: str, attributes: Attributes) -> str:
        """An integer product with activations of the range that they have, and its two scales."""
        self.node("DynamicQuantizeLinear", [x], "x_q", {})
        self.nodes[-1].output.extend(["x_scale", "x_zero"])
        self.node(op, ["x_q", weight, "x_zero"], "sums", attributes)
        self.node("Cast", ["sums"], "sums_float", {"to": TensorProto.FLOAT})
        weight_scale = self.constant("weight_scale", np.float32(WEIGHT_SCALE))
        self.node("Mul", ["x_scale", weight_scale], "scale", {})
        return self.node("Mul", ["sums_float", "scale"], "value", {})

    def bias(self, size: int) -> str:
        """A dequantized int32 bias, its scale the product of activation's and weight's."""
        names = [
            self.constant("bias_q", np.arange(size, dtype=np.int32)),
            self.constant("bias_scale", np.full(size, SCALE * WEIGHT_SCALE, np.float32)),
            self.constant("bias_zero", np.zeros(size, np.int32)),
        ]
        return self.node("DequantizeLinear", names, "bias", {"axis": 0})

    def float_bias(self, size: int) -> str:
        """A float bias."""
        return self.constant("bias", np.linspace(0.1, 1, size, dtype=np.float32))

    def finish(self, *values: str) -> ModelProto:
        """The model, with these values as its outputs."""
        float32 = TensorProto.FLOAT
        graph = helper.make_graph(
            self.nodes,
            "probe",
            [helper.make_tensor_value_info(k, float32, v) for k, v in self.inputs.items()],
            [helper.make_tensor_value_info(value, float32, None) for value in values],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        domains = dict.fromkeys(node.domain for node in self.nodes if node.domain)
        opsets = [
            helper.make_opsetid("", self.opset),
            *(helper.make_opsetid(domain, 1) for domain in domains),
        ]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
