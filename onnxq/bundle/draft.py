"""Writes a part of a graph, node after node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from onnxq.graph.edit import NameScope

OPSET: Final = 18
"""The first whose Resize has antialiasing; a part is raised to the model's where that is newer."""

IMAGES: Final = "com.microsoft.extensions"
TEXTS: Final = "ai.onnx.contrib"
"""The domains of onnxruntime-extensions: decoders of images, operators on strings."""

_IR_VERSION: Final = 9
_VERSIONS: Final = {"ai.onnx.ml": 3}


class Draft:
    """A graph that grows; every node and weight gets a name of its own below a prefix."""

    def __init__(self, prefix: str, names: NameScope) -> None:
        """Begin with nothing.

        Args:
            prefix: What each name begins with, such as ``"pre/"``.
            names: Those of the model, which new inputs and outputs must not bear.
        """
        self._prefix = prefix
        self._names = names
        self._count = 0
        self._graph = ir.Graph((), (), nodes=(), opset_imports={"": OPSET}, name="part")

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[int | str | None]) -> ir.Value:
        """A new input, called as given where the model has no value of that name."""
        value = ir.Value(name=self._names(name), type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self._graph.inputs.append(value)
        return value

    def read(self, value: ir.Value) -> ir.Value:
        """An input of the name, type and shape of another part's value; the same each time."""
        known = next((own for own in self._graph.inputs if own.name == value.name), None)
        if known is None:
            known = ir.Value(name=value.name, type=value.type, shape=value.shape)
            self._graph.inputs.append(known)
        return known

    def __call__(
        self, op: str, *inputs: ir.Value | NDArray[Any] | None, domain: str = "", **attributes: Any
    ) -> ir.Value:
        """The first output of a new node."""
        return self.several(op, 1, *inputs, domain=domain, **attributes)[0]

    def several(
        self,
        op: str,
        outputs: int,
        *inputs: ir.Value | NDArray[Any] | None,
        domain: str = "",
        **attributes: Any,
    ) -> Sequence[ir.Value]:
        """All outputs of a new node; an array becomes a weight, None leaves an input out."""
        name = self._name(op)
        values = [self._constant(v) if isinstance(v, np.ndarray) else v for v in inputs]
        node = ir.node(op, values, attributes, domain=domain, num_outputs=outputs, name=name)
        for place, value in enumerate(node.outputs):
            value.name = f"{name}:{place}"
        if domain:
            self._graph.opset_imports[domain] = _VERSIONS.get(domain, 1)
        self._graph.append(node)
        return node.outputs

    def where(
        self,
        condition: ir.Value,
        op: str,
        value: ir.Value,
        *inputs: ir.Value | NDArray[Any],
        **attributes: Any,
    ) -> ir.Value:
        """What an operator makes of a value where a scalar is true, else the value itself."""
        name = self._name("If")
        further = [self._constant(v) if isinstance(v, np.ndarray) else v for v in inputs]
        branches = {}
        for branch, node in (
            ("then_branch", ir.node(op, [value, *further], attributes)),
            ("else_branch", ir.node("Identity", [value])),
        ):
            node.name = f"{name}/{branch}"
            node.outputs[0].name = f"{node.name}:0"
            branches[branch] = ir.Graph((), node.outputs, nodes=[node], name=node.name)
        node = ir.node("If", [condition], branches, name=name)
        node.outputs[0].name = f"{name}:0"
        self._graph.append(node)
        return node.outputs[0]

    def output(
        self, value: ir.Value, name: str, dtype: ir.DataType, shape: Sequence[int | str | None]
    ) -> None:
        """Give a value away under a name."""
        if value.is_graph_input() or value.is_graph_output():
            value = self("Identity", value)
        value.name, value.type, value.shape = name, ir.TensorType(dtype), ir.Shape(shape)
        self._graph.outputs.append(value)

    def new_output(
        self, value: ir.Value, name: str, dtype: ir.DataType, shape: Sequence[int | str | None]
    ) -> None:
        """Give a value away under a name that the model has not."""
        self.output(value, self._names(name), dtype, shape)

    def name(self, name: str) -> str:
        """A name below the prefix."""
        return f"{self._prefix}{name}"

    def model(self) -> ir.Model:
        """What was written."""
        return ir.Model(self._graph, ir_version=_IR_VERSION)

    def _name(self, op: str) -> str:
        self._count += 1
        return f"{self._prefix}{op}_{self._count}"

    def _constant(self, array: NDArray[Any]) -> ir.Value:
        name = self._name("constant")
        if array.dtype == object:
            content: ir.TensorProtocol = ir.StringTensor(
                [str(text).encode() for text in array.flat], shape=ir.Shape(array.shape), name=name
            )
        else:
            content = ir.Tensor(array, name=name)
        value = ir.Value(
            name=name,
            type=ir.TensorType(content.dtype),
            shape=ir.Shape(array.shape),
            const_value=content,
        )
        self._graph.register_initializer(value)
        return value


def ints(*numbers: int) -> NDArray[np.int64]:
    """A vector of int64."""
    return np.array(numbers, np.int64)


def strings(*texts: str) -> NDArray[np.object_]:
    """A vector of strings."""
    return np.array(texts, object)
