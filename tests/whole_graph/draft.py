"""A graph under construction: values with known shapes, names, weights that hide.

Shapes are tuples of numbers and of the symbols ``N`` (rows) and ``T`` (steps), whose lengths differ
from sample to sample. Blocks ask a draft for nodes, constants and weights; it names them, in one of
several tempers, and puts weights where exporters put them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Dim = int | str
Shape = tuple[Dim, ...]

FLOAT = int(TensorProto.FLOAT)
INT64 = int(TensorProto.INT64)
BOOL = int(TensorProto.BOOL)
STRING = int(TensorProto.STRING)

AWKWARD = (
    "zeros",
    "zero channel",
    "outlier",
    "tiny",
    "subnormal",
    "positive",
    "constant",
    "offset",
)
"""What may be odd about a weight, beside NaN and Inf, which a style allows by itself."""

HIDES = ("plain", "plain", "plain", "constant", "identity", "transpose", "cast", "reshape", "input")


@dataclass(frozen=True, slots=True)
class Val:
    """A value: its name, element type (of TensorProto) and shape."""

    name: str
    shape: Shape
    dtype: int = FLOAT

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)


@dataclass(frozen=True, slots=True)
class Style:
    """What is the same for a whole model.

    Attributes:
        opset: Version of the ONNX operators.
        ir_version: Version of the file format.
        names: How nodes and values are called: plain, unicode, ours, empty or doubled.
        hiding: Whether weights hide behind other nodes.
        awkward: Whether weights may be awkward.
        not_finite: Whether weights may hold NaN or Inf.
        static: Whether all lengths are fixed.
    """

    opset: int
    ir_version: int
    names: str = "plain"
    hiding: bool = False
    awkward: bool = False
    not_finite: bool = False
    static: bool = False


@dataclass(slots=True)
class Draft:
    """The graph so far."""

    rng: np.random.Generator
    style: Style
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    overridable: list[onnx.ValueInfoProto] = field(default_factory=list)
    functions: dict[str, onnx.FunctionProto] = field(default_factory=dict)
    domains: dict[str, int] = field(default_factory=dict)
    values: list[Val] = field(default_factory=list)
    weights: list[Val] = field(default_factory=list)
    outer: Draft | None = None
    count: int = 0

    def child(self) -> Draft:
        """A draft of a body: names, functions and luck are shared, nodes are its own."""
        return Draft(
            self.rng, self.style, functions=self.functions, domains=self.domains, outer=self
        )

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return bool(self.rng.random() < probability)

    def pick(self, options: Sequence[Any]) -> Any:
        """One of several."""
        return options[int(self.rng.integers(len(options)))]

    def fresh(self, base: str) -> str:
        """A name that is still free."""
        root = self
        while root.outer is not None:
            root = root.outer
        root.count += 1
        match self.style.names:
            case "unicode":
                return f"größe/{base}·{root.count}"
            case "ours":
                ending = self.pick(("_quantized", "_scale", "_dequantized", "/DequantizeLinear"))
                return f"{base}{root.count}{ending}"
            case _:
                return f"{base}_{root.count}"

    def _node_name(self, op: str) -> str:
        match self.style.names:
            case "empty":
                return ""
            case "doubled":
                # ONNX Runtime refuses two nodes of one name in one graph, not in graph and body.
                return f"{op}{len(self.nodes)}"
            case _:
                return self.fresh(f"/{op}")

    def op(
        self,
        op: str,
        inputs: Sequence[Val | str],
        shape: Shape,
        dtype: int = FLOAT,
        **attributes: Any,
    ) -> Val:
        """Add a node with one output."""
        return self.ops(op, inputs, [shape], dtype, **attributes)[0]

    def ops(
        self,
        op: str,
        inputs: Sequence[Val | str],
        shapes: Sequence[Shape],
        dtype: int = FLOAT,
        **attributes: Any,
    ) -> list[Val]:
        """Add a node with several outputs; ``op`` may be ``domain::op``."""
        domain, _, kind = op.rpartition("::")
        if domain:
            self.domains.setdefault(domain, 1)
        made = [Val(self.fresh(kind.lower()), shape, dtype) for shape in shapes]
        names = [value if isinstance(value, str) else value.name for value in inputs]
        outputs = [value.name for value in made]
        name = self._node_name(kind)
        node = helper.make_node(kind, names, outputs, name=name, domain=domain, **attributes)
        self.nodes.append(node)
        return made

    def constant(self, array: NDArray[Any] | np.generic, base: str = "c") -> Val:
        """A constant that is no weight: an initializer, or now and then a Constant node."""
        array = np.asarray(array)
        dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
        if self.chance(0.2):
            tensor = numpy_helper.from_array(array)
            return self.op("Constant", [], array.shape, dtype, value=tensor)
        value = Val(self.fresh(base), array.shape, dtype)
        self.initializers.append(numpy_helper.from_array(array, value.name))
        return value

    def ints(self, *numbers: int) -> Val:
        """A constant vector of int64."""
        return self.constant(np.asarray(numbers, np.int64))

    def scalar(self, number: float) -> Val:
        """A constant of rank 0."""
        return self.constant(np.asarray(number, np.float32))

    def vector(self, length: int, low: float = -0.5, high: float = 0.5) -> Val:
        """A constant vector of floats between two bounds."""
        return self.constant(self.rng.uniform(low, high, length).astype(np.float32), "b")

    def weight(self, *shape: int, fan_in: int, axis: int = 0) -> Val:
        """A weight of unit gain, new or shared with an earlier reader, maybe hidden.

        Args:
            shape: Its shape.
            fan_in: How many products each output sums.
            axis: Which axis counts output channels.
        """
        alike = [value for value in self.weights if value.shape == shape]
        if alike and self.chance(0.15):
            return self.pick(alike)  # type: ignore[no-any-return]
        array = self.rng.normal(size=shape) / np.sqrt(fan_in)
        if self.style.awkward and self.chance(0.3):
            array = awkward(self.rng, array, axis, self.pick(AWKWARD))
        if self.style.not_finite and self.chance(0.3):
            array.flat[int(self.rng.integers(array.size))] = self.pick((np.nan, np.inf, -np.inf))
        value = self._hidden(array.astype(np.float32))
        self.weights.append(value)
        return value

    def _hidden(self, array: NDArray[np.float32]) -> Val:
        match self.pick(HIDES) if self.style.hiding else "plain":
            case "constant":
                tensor = numpy_helper.from_array(array)
                return self.op("Constant", [], array.shape, value=tensor)
            case "identity":
                return self.op("Identity", [self._initializer(array)], array.shape)
            case "transpose":
                order = [int(i) for i in self.rng.permutation(array.ndim)]
                stored = self._initializer(np.ascontiguousarray(array.transpose(np.argsort(order))))
                return self.op("Transpose", [stored], array.shape, perm=order)
            case "cast":
                kind = self.pick((np.float16, np.float64))
                # A weight beyond float16 would be stored as Inf, which no style here means.
                stored = self._initializer(np.clip(array, -6e4, 6e4).astype(kind))
                return self.op("Cast", [stored], array.shape, to=FLOAT)
            case "reshape":
                stored = self._initializer(array.reshape(-1))
                return self.op("Reshape", [stored, self.ints(*array.shape)], array.shape)
            case "input" if self.outer is None:
                value = self._initializer(array)
                self.overridable.append(
                    helper.make_tensor_value_info(value.name, FLOAT, list(array.shape))
                )
                return value
            case _:
                return self._initializer(array)

    def _initializer(self, array: NDArray[Any]) -> Val:
        dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
        value = Val(self.fresh("w"), array.shape, dtype)
        self.initializers.append(numpy_helper.from_array(array, value.name))
        return value


def awkward(
    rng: np.random.Generator, array: NDArray[np.float64], axis: int, kind: str
) -> NDArray[np.float64]:
    """A weight with one of the oddities of :data:`AWKWARD`."""
    channel = [slice(None)] * array.ndim
    channel[axis] = slice(int(rng.integers(array.shape[axis])), None)
    match kind:
        case "zeros":
            return np.zeros_like(array)
        case "zero channel":
            array[tuple(channel)] = 0
        case "outlier":
            array.flat[int(rng.integers(array.size))] = rng.choice([1e2, -1e4])
        case "tiny":
            array[tuple(channel)] *= 1e-20
        case "subnormal":
            array[tuple(channel)] *= 1e-40
        case "positive":
            return np.abs(array)
        case "constant":
            array[tuple(channel)] = 0.25
        case _:
            array += 0.5
    return array
