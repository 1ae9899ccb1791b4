"""Every node and every value gets a name of its own; names that are unique already stay.

Cases:
    - a node without a name: ``<op>_<n>``, counted over the model in its order;
    - a node whose name occurred before, in a subgraph too: a number is appended;
    - a value without a name that somebody reads: named after its node;
    - a value of a subgraph that bears the name of an outer or sibling value: a number is appended;
    - an output that a node leaves out (its name is empty and nobody reads it) stays left out: to
      name it would ask the operator for a result it was not asked for.

Inputs and outputs of the main graph are never renamed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxq.graph.edit import NameScope, all_nodes

if TYPE_CHECKING:
    from collections.abc import Iterable


class UniqueNamesPass(ir.passes.InPlacePass):
    """Name every node and value of the model uniquely."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rename in place."""
        fresh = NameScope(model)
        renamed = _name_nodes(model, fresh)
        renamed += _name_values(model, fresh)
        return ir.passes.PassResult(model, bool(renamed))

    def __repr__(self) -> str:
        """The pass's name."""
        return "UniqueNamesPass()"


def _name_nodes(model: ir.Model, fresh: NameScope) -> int:
    seen: set[str] = set()
    renamed = 0
    for index, node in enumerate(all_nodes(model)):
        if not node.name or node.name in seen:
            node.name = fresh(node.name or f"{node.op_type}_{index}")
            renamed += 1
        seen.add(node.name)
    return renamed


def _name_values(model: ir.Model, fresh: NameScope) -> int:
    seen: set[str] = set()
    done: set[ir.Value] = set()
    fixed = [*model.graph.inputs, *model.graph.outputs]
    seen.update(value.name for value in fixed if value.name)
    done.update(fixed)
    renamed = 0
    for value in _values(model):
        if value in done:
            continue
        done.add(value)
        if not value.name and not value.uses() and not value.is_graph_output():
            continue
        if not value.name or value.name in seen:
            producer = value.producer()
            value.name = fresh(value.name or f"{producer.name if producer else 'value'}.out")
            renamed += 1
        seen.add(value.name)
    return renamed


def _values(model: ir.Model) -> Iterable[ir.Value]:
    for graph in model.graphs():
        yield from graph.inputs
        yield from tuple(graph.initializers.values())
        for node in graph:
            yield from node.outputs
