"""Selection: which tensors pass through Q/DQ, and who reads them quantized.

1. Every candidate site that the target runs in integers, and that the recipe does not keep float,
   is chosen: its activation is quantized for this reader.
2. Where the target fuses a site only with a quantizer behind it (Conv), the site's output is
   quantized for all readers; a Relu or Clip in between is absorbed by that quantizer. A site whose
   output must keep its value (graph output, captured, shape arithmetic) is declined.
3. Nodes without weights (Add, pools, Concat, Reshape, ...) join where all their inputs are
   quantized anyway and all their outputs go to quantized readers (:mod:`.region`). So integer
   regions grow together and no Q/DQ is added that buys nothing. A Relu or Clip behind such a node
   is absorbed as well, and a constant beside the activation is quantized (:mod:`.constants`).
4. A node that only moves data gives its output the scale of its input.
5. Where the target merges a residual's Add into the product in front of it, the other operand is
   quantized for the Add; where it wants that, both operands of products of two activations are.

Tensors are barred where calibration saw values that no integers stand for: who would read or make
them quantized stays float.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxq.algorithms.lookup_tables import why_table_stays
from onnxq.algorithms.region import Region
from onnxq.algorithms.view import GraphView
from onnxq.graph.edit import constant_tensor, consumers, value_by_name
from onnxq.graph.protected import protected_values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from onnxq.algorithms.constants import ConstantOperand
    from onnxq.graph.sites import Site
    from onnxq.targets import Target


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
        constants: The constants that nodes without weights read as integers.
    """

    decisions: tuple[Decision, ...]
    tensors: tuple[QuantizedTensor, ...]
    absorbed: Mapping[str, str]
    made: frozenset[str]
    constants: tuple[ConstantOperand, ...] = ()

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
    model: ir.Model,
    sites: Sequence[Site],
    target: Target,
    keep_float: Mapping[str, str],
    barred: Mapping[str, str] = MappingProxyType({}),
) -> Selection:
    """Choose what is quantized.

    Args:
        model: A normalized model.
        sites: Its sites.
        target: What the provider runs in integers.
        keep_float: Sites that stay float on request, with the reason.
        barred: Tensors that must not be quantized, with what was seen in them.
    """
    return _Selector(model, target, barred).run(sites, keep_float)


def decide_beside_float(
    model: ir.Model,
    sites: Sequence[Site],
    keep_float: Mapping[str, str],
    why_not: Callable[[Site], str],
    target: Target,
) -> tuple[Decision, ...]:
    """A decision for each site where activations stay float between sites, in subgraphs too.

    Args:
        model: A normalized model.
        sites: Its sites.
        keep_float: Sites that stay float on request, with the reason.
        why_not: Why a candidate that is no lookup stays float; empty if it does not.
        target: Tells what becomes of lookups.
    """
    values, protected = value_by_name(model.graph), protected_values(model)

    def reason(site: Site) -> str:
        if not site.candidate:
            return site.reason
        if site.name in keep_float:
            return keep_float[site.name]
        if site.activation is None:
            return why_table_stays(site, values, protected, target)
        return why_not(site)

    return tuple(Decision(site, not (why := reason(site)), why) for site in sites)


class _Selector:
    def __init__(self, model: ir.Model, target: Target, barred: Mapping[str, str]) -> None:
        self.target = target
        self.view = GraphView(model, target, barred)
        self.barred = barred
        self.quantized: dict[str, QuantizedTensor] = {}
        self.read: set[tuple[str, str, int]] = set()
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
        self._read_residuals(chosen)
        if self.target.activation_products:
            self._read_products(sites, keep_float)
        region = Region(self.view, self.quantized.__contains__, self._is_read)
        members = region.members()
        for node in members:
            self._join(node, region)
        for site in chosen:
            self._own_if_all_quantized(site)
        order = {name: place for place, name in enumerate(self.view.values)}
        tensors = sorted(self.quantized.values(), key=lambda tensor: order[tensor.name])
        names = [node.name or "" for node in members]
        constants = tuple(region.constants[name] for name in names if name in region.constants)
        made = frozenset(self.owned)
        return Selection(tuple(decisions), tuple(tensors), self.absorbed, made, constants)

    def _read_residuals(self, chosen: Sequence[Site]) -> None:
        """Quantize what is added to a product that takes the Add along.

        Where both operands are such products, the later one takes it.
        """
        merging: dict[str, tuple[ir.Node, int]] = {}
        for site in chosen:
            output = self.view.values[site.output]
            readers = consumers(output)
            if len(readers) != 1 or site.output in self.view.protected:
                continue
            node, index = readers[0]
            if not node.domain and node.op_type in self.target.rule(site.op).merges:
                merging[node.name or ""] = node, index
        for name, (node, index) in merging.items():
            other = node.inputs[1 - index]
            if other is not None and self._is_free(other):
                self._read(other.name or "", name, 1 - index)

    def _read_products(self, sites: Sequence[Site], keep_float: Mapping[str, str]) -> None:
        """Quantize both operands of each product of two activations."""
        for site in sites:
            node = self.view.nodes.get(site.name)
            if site.weight is not None or node is None or site.name in keep_float:
                continue
            operands = [value for value in node.inputs if value is not None]
            if self.view.rule(node).kind == "weighted" and all(map(self._is_free, operands)):
                for index, value in enumerate(operands):
                    self._read(value.name or "", site.name, index)

    def _is_free(self, value: ir.Value) -> bool:
        """Whether it is a float activation that may be quantized."""
        known = value.dtype == ir.DataType.FLOAT and constant_tensor(value) is None
        return known and (value.name or "") not in self.barred

    def _is_read(self, tensor: str, node: str, index: int) -> bool:
        return (tensor, node, index) in self.read

    def _decide(self, site: Site, kept: str) -> Decision:
        rule = self.target.rule(site.op)
        reason = (kept or site.weight_only) if site.candidate else site.reason
        lookup = site.activation is None
        if not reason and site.place:
            reason = f"it is inside {site.place}: its activations are not calibrated there"
        if not reason and site.activation in self.barred:
            reason = self._why_barred("input", site.activation or "")
        if not reason and lookup:
            reason = why_table_stays(site, self.view.values, self.view.protected, self.target)
        if not reason and not lookup and not rule.integer:
            kind = "FP8" if self.target.activation.floating else "integer"
            reason = f"{self.target.provider} has no {kind} kernel for {site.op}"
        if not reason and not lookup and rule.output_q == "required":
            reason = self._why_output_stays(site)
        return Decision(site, not reason, reason)

    def _why_output_stays(self, site: Site) -> str:
        """Why the site's output cannot be quantized for all its readers; empty if it can."""
        tail = self.view.tail(site.name)[-1]
        name = tail.name or ""
        if name in self.view.protected:
            return (
                f"its output {name!r} must keep its value (it is an output of the model, read by a "
                f"subgraph or part of shape arithmetic), and {self.target.provider} fuses "
                f"{site.op} only with a quantized output"
            )
        if not consumers(tail):
            return "nobody reads its output"
        return self._why_barred("output", name) if name in self.barred else ""

    def _why_barred(self, kind: str, name: str) -> str:
        return f"{self.barred[name]} in its {kind} {name!r} during calibration"

    def _read(self, tensor: str, node: str, index: int) -> None:
        entry = self.quantized.setdefault(tensor, QuantizedTensor(tensor, tensor))
        if (tensor, node, index) not in self.read:
            self.read.add((tensor, node, index))
            entry.readers.append((node, index))

    def _own(self, value: ir.Value) -> None:
        """Quantize ``value`` for every reader."""
        name = value.name or ""
        self.owned.add(name)
        for node, index in consumers(value):
            self._read(name, node.name or "", index)

    def _own_output(self, site: Site) -> None:
        tail = self.view.tail(site.name)
        self._absorb(tail)
        self._own(tail[-1])

    def _absorb(self, tail: list[ir.Value]) -> None:
        for value in tail[1:]:
            producer = value.producer()
            if producer is not None:
                self.absorbed[producer.name or ""] = tail[-1].name or ""

    def _own_if_all_quantized(self, site: Site) -> None:
        """Let the quantizer take a Relu along where every reader behind it is quantized anyway."""
        tail = self.view.tail(site.name)
        name = tail[-1].name or ""
        entry = self.quantized.get(name)
        if len(tail) == 1 or entry is None or name in self.view.protected or name in self.owned:
            return
        if len(entry.readers) == len(consumers(tail[-1])):
            self._absorb(tail)
            self.owned.add(name)

    def _join(self, node: ir.Node, region: Region) -> None:
        for index, value in region.data_inputs(node):
            self._read(value.name or "", node.name or "", index)
        tail = self.view.tail(node.name or "")
        self._absorb(tail)
        output = tail[-1]
        self._own(output)
        if self.view.rule(node).same_scale and node.inputs[0] is not None:
            source = self.quantized[node.inputs[0].name or ""]
            self.quantized[output.name or ""].root = source.root
