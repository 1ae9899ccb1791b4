"""What every pass stands on: finding values and nodes, reading constants, adding and replacing.

Nothing here decides anything. A pass runs on ``model.clone()``, whose tensors are shared with the
original and therefore never changed in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq.errors import InternalError, ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

OVERRIDABLE_SINCE_IR = 4
"""From this IR version on, an initializer that is also an input is a default for callers."""


class NameScope:
    """Gives names that no value and no node of the model bears, in subgraphs neither.

    Build one and keep it for a whole pass: building it walks the model.
    """

    def __init__(self, model: ir.Model) -> None:
        """Collect the names in use."""
        self._used = value_names(model)
        self._used.update(node.name for node in all_nodes(model) if node.name)
        # How far each base has been counted: thousands of names may share one.
        self._counts: dict[str, int] = {}

    def __call__(self, base: str) -> str:
        """``base`` itself if it is free, else ``base_1``, ``base_2``, …; the name is then taken."""
        name, count = base, self._counts.get(base, 0)
        while name in self._used:
            count += 1
            name = f"{base}_{count}"
        self._counts[base] = count
        self._used.add(name)
        return name


def clone(model: ir.Model) -> ir.Model:
    """A copy that shares its tensors with the original.

    onnx_ir cannot copy a graph in which a node stands before what it reads, so such a graph is
    sorted first, in place: the order of nodes is no content.

    Raises:
        ModelError: If the graph has a cycle.
    """
    try:
        return model.clone()
    except RuntimeError:
        sort_nodes(model)
        return model.clone()


def sort_nodes(model: ir.Model, where: str = "") -> None:
    """Put every node behind what it reads; nodes that stand so already keep their order.

    Args:
        model: Changed in place.
        where: The file, for messages; the graph's name if left out.

    Raises:
        ModelError: If there is no such order, that is, the graph has a cycle.
    """
    try:
        model.graph.sort()
        for function in model.functions.values():
            function.sort()
    except ValueError as error:
        code, text = "graph.cycle", "the graph has a cycle"
        where, remedy = where or model.graph.name or "model", "export the model again"
        raise ModelError(code, text, where=where, remedy=remedy) from error


def all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """The nodes of the graph, of its subgraphs and of the model's functions."""
    yield from nodes_below(model.graph)
    for function in model.functions.values():
        yield from nodes_below(function)


def nodes_below(graph: ir.Graph | ir.Function) -> Iterator[ir.Node]:
    """The nodes of a graph, those of its subgraphs behind their owner.

    Models are walked often; onnx_ir's own iterator makes two generators for each node.
    """
    for node in graph:
        yield node
        for attribute in node.attributes.values():
            if attribute.is_ref():
                continue
            if attribute.type == ir.AttributeType.GRAPH:
                yield from nodes_below(attribute.as_graph())
            elif attribute.type == ir.AttributeType.GRAPHS:
                for body in attribute.as_graphs():
                    yield from nodes_below(body)


def value_names(model: ir.Model) -> set[str]:
    """The names of all inputs, initializers and node outputs, subgraphs and functions included."""
    names: set[str] = set()
    for graph in model.graphs():
        names.update(value.name for value in graph.inputs if value.name)
        names.update(graph.initializers)
    for node in all_nodes(model):
        names.update(output.name for output in node.outputs if output.name)
    return names


def value_by_name(graph: ir.Graph) -> dict[str, ir.Value]:
    """Inputs, initializers and node outputs of one graph; those of its subgraphs are left out."""
    values = {value.name: value for value in graph.inputs if value.name}
    values.update(graph.initializers)
    for node in graph:
        values.update({output.name: output for output in node.outputs if output.name})
    return values


def node_by_name(graph: ir.Graph) -> dict[str, ir.Node]:
    """The nodes of one graph; those of its subgraphs are left out."""
    return {node.name: node for node in graph if node.name}


def all_nodes_by_name(model: ir.Model) -> dict[str, ir.Node]:
    """The nodes of the main graph and of all its subgraphs."""
    return {node.name: node for node in nodes_below(model.graph) if node.name}


def consumers(value: ir.Value) -> tuple[tuple[ir.Node, int], ...]:
    """Who reads a value, and at which input; readers inside subgraphs are among them."""
    return tuple((use.node, use.idx) for use in value.uses())


def is_overridable(value: ir.Value, model: ir.Model) -> bool:
    """Whether an initializer is only the default of an input, which a caller may replace."""
    return (
        value.is_initializer()
        and value.is_graph_input()
        and (model.ir_version or 0) >= OVERRIDABLE_SINCE_IR
    )


def constant_array(value: ir.Value | None) -> NDArray[np.generic] | None:
    """The array of an initializer or of a Constant node's output; None if it is no constant.

    An external tensor comes as a read-only map of its file; nothing is copied. Whether a caller may
    replace the initializer is for :func:`is_overridable` to say.
    """
    if value is None:
        return None
    tensor = constant_tensor(value)
    return None if tensor is None else tensor.numpy()


def constant_tensor(value: ir.Value) -> ir.TensorProtocol | None:
    """The tensor behind :func:`constant_array`; its type and shape are known without reading it."""
    if value.is_initializer():
        return value.const_value
    producer = value.producer()
    if producer is None or producer.op_type != "Constant" or producer.domain:
        return None
    attribute = producer.attributes.get("value")
    if attribute is None or attribute.is_ref() or attribute.type != ir.AttributeType.TENSOR:
        return None
    return attribute.as_tensor()


def initializer(
    model: ir.Model, name: str, array: NDArray[np.generic] | np.generic | ir.TensorProtocol
) -> ir.Value:
    """Add an initializer to the main graph.

    Args:
        model: Changed in place.
        name: A name that no value bears yet (:class:`NameScope`).
        array: The contents; integers of 4 bits as ``ml_dtypes`` arrays. An ``ir.LazyTensor`` is
            computed only when it is read or written.

    Raises:
        InternalError: If the name is taken; overwriting an initializer in silence is the trap that
            this guards against.
    """
    if name in model.graph.initializers:
        code, text = "graph.name_taken", "an initializer of this name exists"
        raise InternalError(code, text, where=name)
    if isinstance(array, np.ndarray | np.generic):
        tensor: ir.TensorProtocol = ir.Tensor(np.asarray(array), name=name)
    else:
        tensor = array
    value = ir.Value(
        name=name,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(tuple(tensor.shape.numpy())),
        const_value=tensor,
    )
    model.graph.register_initializer(value)
    return value


def replace_input(node: ir.Node, index: int, value: ir.Value | None) -> None:
    """Let one input of a node read another value (None leaves an optional input out)."""
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)


def copy_output(node: ir.Node, fresh: NameScope) -> ir.Node:
    """Put a Sum of one operand behind a node: the same numbers, and a value of its own.

    Whoever read the node's first output reads the Sum's, which has its name where that is an output
    of the graph.

    Args:
        node: A node in a graph.
        fresh: The names there are.

    Returns:
        The Sum.
    """
    value, base = node.outputs[0], node.outputs[0].name or "value"
    copy = ir.val(fresh(f"{base}_copy"), shape=value.shape, type=value.type)
    made = ir.node("Sum", [value], outputs=[copy], name=fresh(f"{base}_copy/Sum"))
    given = value.is_graph_output()
    value.replace_all_uses_with(copy, replace_graph_outputs=True)
    made.replace_input_with(0, value)
    if given:
        value.name, copy.name = copy.name, value.name
    if node.graph is not None:
        node.graph.insert_after(node, made)
    return made


def remove_if_unread(value: ir.Value) -> bool:
    """Drop an initializer that nobody reads any more; True if it was dropped."""
    if not value.is_initializer() or value.uses():
        return False
    if value.is_graph_input() or value.is_graph_output():
        return False
    graph, name = value.graph, value.name
    if not isinstance(graph, ir.Graph) or name is None:
        return False
    graph.initializers.pop(name)
    return True


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape where every length is a number, else None."""
    if value is None or value.shape is None:
        return None
    dims = tuple(value.shape)
    numbers = tuple(dim for dim in dims if isinstance(dim, int) and dim >= 0)
    return numbers if len(numbers) == len(dims) else None
