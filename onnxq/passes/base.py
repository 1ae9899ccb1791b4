"""What the passes share: a graph indexed by name, in which a plan's names are looked up."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq.errors import PlanError
from onnxq.graph.edit import (
    NameScope,
    all_nodes_by_name,
    constant_tensor,
    initializer,
    remove_if_unread,
    value_by_name,
)
from onnxq.graph.opset import MICROSOFT
from onnxq.numerics.affine import quantize
from onnxq.numerics.schemes import PerAxis

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from onnxq.numerics.schemes import QParams, Scheme
    from onnxq.plan import Plan, Reader


class PlanPass(ir.passes.InPlacePass):
    """An in-place pass over the main graph that finds what a plan names."""

    def __init__(self, plan: Plan) -> None:
        """Keep the plan."""
        self.plan = plan

    def __repr__(self) -> str:
        """The pass's name."""
        return f"{type(self).__name__}()"


class Editor:
    """A model by name, with what a pass does to it: values of the main graph, nodes of all."""

    def __init__(self, model: ir.Model) -> None:
        """Index the graph."""
        self.model = model
        self.graph = model.graph
        self.fresh = NameScope(model)
        self._values = value_by_name(model.graph)
        self._nodes = all_nodes_by_name(model)

    def value(self, name: str) -> ir.Value:
        """The value of this name.

        Raises:
            PlanError: There is none.
        """
        if name not in self._values:
            msg = "tensor"
            raise _unknown(msg, name)
        return self._values[name]

    def node(self, name: str) -> ir.Node:
        """The node of this name.

        Raises:
            PlanError: There is none.
        """
        if name not in self._nodes:
            msg = "node"
            raise _unknown(msg, name)
        return self._nodes[name]

    def weight(self, name: str) -> ir.TensorProtocol:
        """The constant tensor of this name.

        Raises:
            PlanError: There is none.
        """
        tensor = constant_tensor(self.value(name))
        if tensor is None:
            msg = "constant"
            raise _unknown(msg, name)
        return tensor

    def constant(self, base: str, tensor: np.ndarray | ir.TensorProtocol) -> ir.Value:
        """A new initializer called ``base`` or similar."""
        return initializer(self.model, self.fresh(base), tensor)

    def add(
        self,
        op: str,
        inputs: list[ir.Value],
        output: str,
        dtype: ir.DataType,
        attributes: Mapping[str, int | tuple[int, ...]] | None = None,
    ) -> ir.Node:
        """A new node, not yet in the graph, with one output called ``output`` or similar."""
        value = ir.val(self.fresh(output), dtype)
        name = self.fresh(f"{output}/{op}")
        return ir.node(op, inputs, attributes or {}, outputs=[value], name=name)

    def put_first(self, nodes: ir.Node | tuple[ir.Node, ...]) -> None:
        """Insert nodes that read only inputs and initializers at the head of the graph."""
        self.graph.insert_before(self.graph[0], nodes)

    def put_behind(self, value: ir.Value, nodes: ir.Node | tuple[ir.Node, ...]) -> None:
        """Insert nodes directly behind what makes ``value``, in the graph that it belongs to."""
        producer, graph = value.producer(), value.graph
        if producer is not None and producer.graph is not None:
            producer.graph.insert_after(producer, nodes)
        elif isinstance(graph, ir.Graph) and len(graph):
            graph.insert_before(graph[0], nodes)
        else:
            self.put_first(nodes)

    def replace(self, node: ir.Node, chain: Sequence[ir.Node]) -> None:
        """Put ``chain`` where ``node`` is; the last one's outputs take over names and readers."""
        graph = node.graph
        if graph is None:
            return
        graph.insert_after(node, tuple(chain))
        pairs = list(zip(node.outputs, chain[-1].outputs, strict=True))
        for old, new in pairs:
            new.shape, new.type = old.shape, old.type or new.type
            old.replace_all_uses_with(new, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        for old, new in pairs:
            # An output that the node leaves out stays left out.
            name = old.name
            old.name = self.fresh(f"{name}_float") if name else name
            new.name = name

    def rewire(self, readers: Iterable[Reader], value: ir.Value) -> None:
        """Let ``readers`` read ``value``.

        Raises:
            PlanError: A node has no such input.
        """
        for reader in readers:
            node = self.node(reader.node)
            if not 0 <= reader.input < len(node.inputs):
                msg = f"input {reader.input} of node"
                raise _unknown(msg, reader.node)
            node.replace_input_with(reader.input, value)

    def drop_if_unread(self, names: Iterable[str]) -> None:
        """Drop the initializers of these names that nobody reads any more.

        Once all readers are rewritten: to look for them costs time in their number.
        """
        for name in dict.fromkeys(names):
            if name in self._values and remove_if_unread(self._values[name]):
                del self._values[name]


def contributed(
    editor: Editor,
    op: str,
    inputs: Sequence[ir.Value | None],
    output: str,
    attributes: Mapping[str, int],
) -> ir.Node:
    """A new node of ONNX Runtime's own operators, with a float output called ``output``."""
    value = ir.val(editor.fresh(output), ir.DataType.FLOAT)
    name = editor.fresh(f"{output}/{op}")
    return ir.node(op, inputs, attributes, domain=MICROSOFT, outputs=[value], name=name)


def check_axes(scheme: Scheme, rank: int, name: str) -> None:
    """See that a plan's scheme names axes that its weight has.

    Raises:
        PlanError: It does not.
    """
    own = scheme.granularity.axis if isinstance(scheme.granularity, PerAxis) else None
    axes = [*scheme.pairs, *(() if own is None else (own,))]
    if all(-rank <= axis < rank for axis in axes) and len({a % rank for a in axes}) == len(axes):
        return
    code, text = "plan.axis", f"the plan names axes of {name!r} that it does not have"
    raise PlanError(code, text, remedy="make a plan for this model")


def rounded(
    tensor: ir.TensorProtocol, params: QParams, name: str, order: tuple[int, ...] | None = None
) -> ir.LazyTensor:
    """``tensor`` rounded to the nearest when it is read, to int8 or FP8: no weight is held twice.

    Args:
        tensor: The float weight.
        params: Scales along the axes of ``tensor``.
        name: The result's name.
        order: The order of the axes in the result; None leaves them.
    """
    shape = tuple(tensor.shape.numpy())
    axes = tuple(range(len(shape))) if order is None else order
    return ir.LazyTensor(
        partial(_round, tensor, params, axes),
        dtype=ir.DataType.from_numpy(params.scheme.dtype),
        shape=ir.Shape(tuple(shape[axis] for axis in axes)),
        name=name,
    )


def _round(tensor: ir.TensorProtocol, params: QParams, axes: tuple[int, ...]) -> ir.TensorProtocol:
    integers = quantize(tensor.numpy(), params)
    return ir.Tensor(np.ascontiguousarray(np.transpose(integers, axes)))


def _unknown(kind: str, name: str) -> PlanError:
    text = f"the plan names the {kind} {name!r}, which the model does not have"
    return PlanError("plan.unknown_name", text, remedy="make a plan for this model")
