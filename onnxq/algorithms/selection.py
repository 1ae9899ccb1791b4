"""Selection: which tensors pass through Q/DQ, and who reads them quantized; by structure alone.

1. Every candidate site that the target runs in integers, and that the recipe does not keep float,
   is chosen: its activation is quantized for this reader.
2. Where the target fuses a site only with a quantizer behind it (Conv), the site's output is
   quantized for all readers; a Relu or Clip in between is absorbed by that quantizer. A site whose
   output must keep its value (graph output, captured, shape arithmetic) is declined.
3. Nodes without weights (Add, pools, Concat, Reshape, ...) join where all their inputs are
   quantized anyway and all their outputs go to quantized readers: the greatest set for which both
   hold. So integer regions grow together and no Q/DQ is added that buys nothing.
   A Relu or Clip behind such a node is absorbed as well.
4. A node that only moves data gives its output the scale of its input.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq.algorithms.lookup_tables import why_table_stays
from onnxq.graph.edit import constant_array, consumers, node_by_name, value_by_name
from onnxq.graph.protected import protected_values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnxq.graph.sites import Site
    from onnxq.targets import OpRule, Target


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to one site, and why."""

    site: Site
    quantize: bool
    reason: str


@dataclass(slots=True)
class QuantizedTensor:
    """A tensor that passes through Q/DQ.

    Attributes:
        name: The value's name.
        root: The tensor whose scale it has; itself unless it was only moved.
        readers: Node name and input index of each reader of the quantized tensor.
    """

    name: str
    root: str
    readers: list[tuple[str, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Selection:
    """What will be quantized.

    Attributes:
        decisions: One for each site, in the order of the graph.
        tensors: The tensors that pass through Q/DQ, in the order of the graph.
        absorbed: Names of the Relu and Clip nodes that quantizers absorb, with the tensor behind.
        made: The tensors that integer kernels make: their Q/DQ follows directly.
    """

    decisions: tuple[Decision, ...]
    tensors: tuple[QuantizedTensor, ...]
    absorbed: Mapping[str, str]
    made: frozenset[str]

    @property
    def chosen(self) -> tuple[Site, ...]:
        """The sites that are quantized, lookups included."""
        return tuple(decision.site for decision in self.decisions if decision.quantize)

    def declined(self, reason: str) -> Selection:
        """The same sites, all float: those that were chosen for this reason."""
        decisions = tuple(
            replace(d, quantize=False, reason=reason) if d.quantize else d for d in self.decisions
        )
        return Selection(decisions, (), {}, frozenset())


def select(
    model: ir.Model, sites: Sequence[Site], target: Target, keep_float: Mapping[str, str]
) -> Selection:
    """Choose what is quantized.

    Args:
        model: A normalized model.
        sites: Its sites.
        target: What the provider runs in integers.
        keep_float: Sites that stay float on request, with the reason.
    """
    return _Selector(model, target).run(sites, keep_float)


class _Selector:
    def __init__(self, model: ir.Model, target: Target) -> None:
        self.target = target
        self.graph = model.graph
        self.nodes = node_by_name(model.graph)
        self.values = value_by_name(model.graph)
        self.protected = protected_values(model)
        self.quantized: dict[str, QuantizedTensor] = {}
        self.owned: set[str] = set()
        self.absorbed: dict[str, str] = {}

    def run(self, sites: Sequence[Site], keep_float: Mapping[str, str]) -> Selection:
        decisions = [self._decide(site, keep_float.get(site.name, "")) for site in sites]
        chosen = [d.site for d in decisions if d.quantize and d.site.activation is not None]
        for site in chosen:
            self._read(site.activation or "", site.name, 0)
        for site in chosen:
            if self.target.rule(site.op).output_q == "required":
                self._own_output(site)
        members = self._region()
        for node in members:
            self._join(node)
        for site in chosen:
            self._own_if_all_quantized(site)
        order = {name: place for place, name in enumerate(self.values)}
        tensors = sorted(self.quantized.values(), key=lambda tensor: order[tensor.name])
        return Selection(tuple(decisions), tuple(tensors), self.absorbed, frozenset(self.owned))

    def _decide(self, site: Site, kept: str) -> Decision:
        rule = self.target.rule(site.op)
        reason = kept if site.candidate else site.reason
        lookup = site.activation is None
        if not reason and site.place:
            reason = f"it is inside {site.place}: its activations are not calibrated there"
        if not reason and lookup:
            reason = why_table_stays(site, self.values, self.protected)
        if not reason and not lookup and not rule.integer:
            reason = f"{self.target.provider} has no integer kernel for {site.op}"
        if not reason and not lookup and rule.output_q == "required":
            reason = self._why_output_stays(site)
        return Decision(site, not reason, reason)

    def _why_output_stays(self, site: Site) -> str:
        """Why the site's output cannot be quantized for all its readers; empty if it can."""
        tail = self._tail(site.name)[-1]
        name = tail.name or ""
        if name in self.protected:
            return (
                f"its output {name!r} must keep its value (it is an output of the model, read by a "
                f"subgraph or part of shape arithmetic), and {self.target.provider} fuses "
                f"{site.op} only with a quantized output"
            )
        if not consumers(tail):
            return "nobody reads its output"
        return ""

    def _tail(self, node_name: str) -> list[ir.Value]:
        """The node's output, and the outputs of the absorbable nodes that alone follow it."""
        tail = [self.nodes[node_name].outputs[0]]
        while True:
            value = tail[-1]
            readers = consumers(value)
            if len(readers) != 1 or (value.name or "") in self.protected:
                return tail
            node, index = readers[0]
            if index != 0 or node.graph is not self.graph or not self._absorbable(node):
                return tail
            tail.append(node.outputs[0])

    def _absorbable(self, node: ir.Node) -> bool:
        if node.domain or node.op_type not in self.target.absorbs:
            return False
        low, high = clip_bounds(node)
        # Only a range that holds 0 is always covered: quantizers represent 0 exactly.
        return low <= 0 <= high

    def _read(self, tensor: str, node: str, index: int) -> None:
        entry = self.quantized.setdefault(tensor, QuantizedTensor(tensor, tensor))
        if (node, index) not in entry.readers:
            entry.readers.append((node, index))

    def _own(self, value: ir.Value) -> None:
        """Quantize ``value`` for every reader."""
        name = value.name or ""
        self.owned.add(name)
        for node, index in consumers(value):
            self._read(name, node.name or "", index)

    def _own_output(self, site: Site) -> None:
        tail = self._tail(site.name)
        self._absorb(tail)
        self._own(tail[-1])

    def _absorb(self, tail: list[ir.Value]) -> None:
        for value in tail[1:]:
            producer = value.producer()
            if producer is not None:
                self.absorbed[producer.name or ""] = tail[-1].name or ""

    def _own_if_all_quantized(self, site: Site) -> None:
        """Let the quantizer take a Relu along where every reader behind it is quantized anyway."""
        tail = self._tail(site.name)
        name = tail[-1].name or ""
        entry = self.quantized.get(name)
        if len(tail) == 1 or entry is None or name in self.protected or name in self.owned:
            return
        if len(entry.readers) == len(consumers(tail[-1])):
            self._absorb(tail)
            self.owned.add(name)

    def _region(self) -> list[ir.Node]:
        """The greatest set of weightless nodes whose inputs and outputs are all quantized."""
        members = {
            node.name: node for node in self.graph if self._joins(node) and self._float_in(node)
        }
        changed = True
        while changed:
            stay = {
                name: node
                for name, node in members.items()
                if self._inputs_fit(node, members) and self._outputs_fit(node, members)
            }
            changed = len(stay) < len(members)
            members = stay
        return list(members.values())

    def _rule(self, node: ir.Node) -> OpRule:
        return self.target.rule(f"{node.domain}::{node.op_type}" if node.domain else node.op_type)

    def _joins(self, node: ir.Node) -> bool:
        rule = self._rule(node)
        return rule.integer and rule.kind in ("elementwise", "data_movement")

    def _float_in(self, node: ir.Node) -> bool:
        """Whether the node's data are float activations, none of them constant."""
        data = self._data_inputs(node)
        return bool(data) and all(
            value is not None and value.dtype == ir.DataType.FLOAT and constant_array(value) is None
            for value in data
        )

    def _data_inputs(self, node: ir.Node) -> list[ir.Value | None]:
        """What the node calculates on; the other inputs of a node that moves data steer it."""
        inputs = list(node.inputs)
        return inputs[:1] if self._rule(node).kind == "data_movement" else inputs

    def _inputs_fit(self, node: ir.Node, members: Mapping[str | None, ir.Node]) -> bool:
        for value in self._data_inputs(node):
            if value is None or not (
                value.name in self.quantized or self._source(value) in members
            ):
                return False
        return True

    def _source(self, value: ir.Value) -> str | None:
        """The node that makes a value, past the Relus and Clips that it may absorb."""
        node = value.producer()
        while node is not None and self._absorbable(node) and node.inputs[0] is not None:
            node = node.inputs[0].producer()
        return None if node is None else node.name

    def _outputs_fit(self, node: ir.Node, members: Mapping[str | None, ir.Node]) -> bool:
        value = self._tail(node.name or "")[-1]
        name = value.name or ""
        readers = consumers(value)
        if name in self.protected or not readers or any(o.uses() for o in node.outputs[1:]):
            return False
        known = set(self.quantized[name].readers) if name in self.quantized else set()
        return all(
            (reader.name or "", index) in known or reader.name in members
            for reader, index in readers
        )

    def _join(self, node: ir.Node) -> None:
        for index, value in enumerate(self._data_inputs(node)):
            if value is not None:
                self._read(value.name or "", node.name or "", index)
        tail = self._tail(node.name or "")
        self._absorb(tail)
        output = tail[-1]
        self._own(output)
        if self._rule(node).same_scale and node.inputs[0] is not None:
            source = self.quantized[node.inputs[0].name or ""]
            self.quantized[output.name or ""].root = source.root


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
