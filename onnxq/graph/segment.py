"""Pieces of a model that run alone: what lies between some values and others.

A piece is cut backwards from the values wanted to a boundary of values that are given. What depends
on no input of the model (weights, and what is computed from them alone) belongs to the piece that
reads it. Nodes with bodies are whole; what their bodies capture counts as read by the node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxq.graph.edit import clone, nodes_below, sort_nodes
from onnxq.graph.shapes import infer_shapes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a model.

    Attributes:
        model: The piece as a model of its own; shares its weights with the whole.
        inputs: Names of its inputs: what it reads of the boundary and of the model's inputs.
        nodes: Its nodes in the whole model, in order.
    """

    model: ir.Model
    inputs: tuple[str, ...]
    nodes: tuple[ir.Node, ...]


class Segments:
    """Cuts pieces out of one model.

    Attributes:
        model: A clone of the model, sorted, its shapes inferred.
        varying: The values of the main graph that nodes make and that depend on an input, by name,
            in topological order.
    """

    def __init__(self, model: ir.Model) -> None:
        """Look at a model, which stays as it is.

        Raises:
            ModelError: The graph has a cycle.
        """
        self.model = clone(model)
        sort_nodes(self.model)
        infer_shapes(self.model)
        self._place = {node: place for place, node in enumerate(self.model.graph)}
        self._reads = {node: tuple(_read_by(node)) for node in self._place}
        given = {value for value in self.model.graph.inputs if not value.is_initializer()}
        self.varying: dict[str, ir.Value] = {}
        for node, read in self._reads.items():
            if any(value in given for value in read):
                given.update(node.outputs)
                self.varying.update({value.name: value for value in node.outputs if value.name})
        self._given = given

    def producer(self, name: str) -> ir.Node:
        """The node that makes a varying value."""
        node = self.varying[name].producer()
        assert node is not None
        return node

    def readers(self, name: str) -> tuple[ir.Node, ...]:
        """The nodes that read a varying value, or capture it in a body."""
        value = self.varying[name]
        return tuple(node for node, read in self._reads.items() if value in read)

    def ancestors(self, name: str) -> frozenset[str]:
        """The varying values made by the nodes that a varying value depends on, itself included."""
        nodes = self._behind([self.varying[name]], frozenset())
        made = {value.name or "" for node in nodes for value in node.outputs}
        return frozenset(made & self.varying.keys())

    def read_as(self, name: str) -> str:
        """The value that the readers of a varying value see.

        That behind a QuantizeLinear and a DequantizeLinear, where all readers see one such; else
        the value itself.
        """
        value = self.varying[name]
        seen = [
            (quantizer, use.node)
            for quantizer in (use.node for use in value.uses())
            for use in quantizer.outputs[0].uses()
        ]
        ops = {(quantizer.op_type, reader.op_type) for quantizer, reader in seen}
        if value.is_graph_output() or ops != {("QuantizeLinear", "DequantizeLinear")}:
            return name
        return seen[0][1].outputs[0].name or name

    def cut(self, outputs: Sequence[str], boundary: Collection[str]) -> Segment:
        """The piece that makes ``outputs`` from the values of ``boundary``.

        Args:
            outputs: Names of varying values; one that is in the boundary too is computed.
            boundary: Names of values that are given where they are met. The model's inputs are
                given always.
        """
        wanted = [self.varying[name] for name in outputs]
        nodes = self._behind(wanted, boundary)
        made = {value for node in nodes for value in node.outputs}
        read = dict.fromkeys(value for node in nodes for value in self._reads[node])
        inputs = [value for value in read if value in self._given and value not in made]
        view = ir.GraphView(
            inputs,
            wanted,
            nodes=nodes,
            initializers=[v for v in read if v.is_initializer() and v not in inputs],
            opset_imports=self.model.graph.opset_imports,
            name="segment",
        )
        model = ir.Model(
            view.clone(),
            ir_version=self.model.ir_version,
            functions=[function.clone() for function in self.model.functions.values()],
        )
        return Segment(model, tuple(value.name or "" for value in inputs), tuple(nodes))

    def _behind(self, wanted: Sequence[ir.Value], boundary: Collection[str]) -> list[ir.Node]:
        """The nodes that make ``wanted`` from the boundary, in order."""
        found: set[ir.Node] = set()
        todo = list(wanted)
        while todo:
            node = todo.pop().producer()
            if node is not None and node not in found:
                found.add(node)
                todo += [
                    value
                    for value in self._reads[node]
                    if value.name not in boundary or value not in self._given
                ]
        return sorted(found, key=self._place.__getitem__)


def _read_by(node: ir.Node) -> Iterator[ir.Value]:
    """What a node reads of the main graph, through its bodies too."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        bodies: tuple[ir.Graph, ...] = ()
        if attribute.type == ir.AttributeType.GRAPH:
            bodies = (attribute.as_graph(),)
        elif attribute.type == ir.AttributeType.GRAPHS:
            bodies = tuple(attribute.as_graphs())
        for body in bodies:
            inner = list(nodes_below(body))
            yield from (
                value
                for inside in inner
                for value in inside.inputs
                if value is not None and value.graph is node.graph
            )
