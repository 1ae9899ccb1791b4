"""A graph as selection sees it: nodes by name, what must keep its value, what quantizers absorb."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxq.graph.edit import constant_array, consumers, node_by_name, value_by_name
from onnxq.graph.protected import protected_values

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx_ir as ir

    from onnxq.targets import OpRule, Target


class GraphView:
    """The main graph of a normalized model and what the target does with its operators.

    Attributes:
        target: What the provider runs in integers.
        graph: The main graph.
        nodes: Its nodes by name.
        values: Its values by name.
        protected: Values that must keep their value.
        barred: Values whose observed values no integers can stand for.
    """

    def __init__(self, model: ir.Model, target: Target, barred: Collection[str] = ()) -> None:
        """Index the graph."""
        self.target = target
        self.graph = model.graph
        self.nodes = node_by_name(model.graph)
        self.values = value_by_name(model.graph)
        self.protected = protected_values(model)
        self.barred = frozenset(barred)
        self._sources: dict[ir.Value, str | None] = {}

    def rule(self, node: ir.Node) -> OpRule:
        """What the target does with a node."""
        return self.target.rule(f"{node.domain}::{node.op_type}" if node.domain else node.op_type)

    def tail(self, node_name: str) -> list[ir.Value]:
        """The node's output, and the outputs of the absorbable nodes that alone follow it."""
        tail = [self.nodes[node_name].outputs[0]]
        while True:
            value = tail[-1]
            readers = consumers(value)
            if len(readers) != 1 or (value.name or "") in self.protected:
                return tail
            node, index = readers[0]
            if index != 0 or node.graph is not self.graph or not self.absorbable(node):
                return tail
            tail.append(node.outputs[0])

    def absorbable(self, node: ir.Node) -> bool:
        """Whether a quantizer behind the node may perform it."""
        if node.domain or node.op_type not in self.target.absorbs:
            return False
        low, high = clip_bounds(node)
        # Only a range that holds 0 is always covered: quantizers represent 0 exactly.
        return low <= 0 <= high

    def source(self, value: ir.Value) -> str | None:
        """The node that makes a value, past the Relus and Clips that it may absorb."""
        path = []
        while value not in self._sources:
            path.append(value)
            node = value.producer()
            if node is None or not self.absorbable(node) or node.inputs[0] is None:
                self._sources[value] = None if node is None else node.name
                break
            value = node.inputs[0]
        # Remembered for each value on the way, so that a long chain is walked once.
        for passed in path:
            self._sources[passed] = self._sources[value]
        return self._sources[value]


def clip_bounds(node: ir.Node) -> tuple[float, float]:
    """The bounds of a Relu or Clip; NaN where a bound is no constant, or one a caller may replace.

    Comparisons with NaN are false, so an unknown bound is never taken for a fit.
    """
    if node.op_type == "Relu":
        return 0.0, np.inf
    bounds = [-np.inf, np.inf]
    for place, name in enumerate(("min", "max")):
        attribute = node.attributes.get(name)
        if attribute is not None:
            bounds[place] = attribute.as_float()
        value = node.inputs[place + 1] if len(node.inputs) > place + 1 else None
        if value is not None:
            array = None if value.is_graph_input() else constant_array(value)
            bounds[place] = np.nan if array is None else float(np.asarray(array).reshape(-1)[0])
    return bounds[0], bounds[1]
