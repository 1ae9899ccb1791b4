"""Which nodes compute in float16 or bfloat16, and why the others do not.

A node stays float32 where

1. the recipe says so;
2. its operator's types, or the target's kernels, do not allow it;
3. its operator is sensitive to range or rounding (``range_sensitive.py``), or makes a length, an
   index or a condition;
4. float16 only: it is in the body of an If, a Loop or a Scan, where nothing is observed;
5. one of its constants does not fit (``half_weights.py``);
6. float16 only: a tensor that it reads or writes was seen beyond half the range, or with nothing
   but numbers of less than full precision (``half_observed.py``); seen before anything overflows,
   for calibration data runs through the float model;
7. a neighbour does (``half_neighbours.py``).

Everything else is converted; Casts stand where the two meet (``passes/to_half.py``). bfloat16 has
the range of float32, so nothing needs to be observed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from onnxq.algorithms.half_neighbours import follow_neighbours
from onnxq.algorithms.half_observed import is_handed_on, unfit_tensors
from onnxq.algorithms.half_weights import Fits
from onnxq.algorithms.range_sensitive import RANGE_SENSITIVE
from onnxq.algorithms.selection import Decision
from onnxq.calibration.requests import Extrema
from onnxq.graph.edit import all_nodes_by_name, consumers
from onnxq.graph.float_nodes import is_stored
from onnxq.graph.half_slots import HalfSlots, half_slots
from onnxq.graph.protected import steering_values
from onnxq.plan import HalfNodeEntry, HalfWeightEntry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx_ir as ir

    from onnxq.calibration.stats import Stats
    from onnxq.graph.sites import Site
    from onnxq.numerics.half import HalfType
    from onnxq.plan import MaskEntry
    from onnxq.targets import HalfRules


@dataclass(eq=False)
class HalfPlanner:
    """Decides for one model and one type.

    Attributes:
        model: A normalized model, its masks bounded.
        sites: Every node of it that computes with float32.
        half: The type.
        rules: What the target makes of it; None where nothing is known of that.
        kept: Nodes that stay float32 on request, with the reason.
        masks: Its masks.
    """

    model: ir.Model
    sites: Sequence[Site]
    half: HalfType
    rules: HalfRules | None
    kept: Mapping[str, str]
    masks: Sequence[MaskEntry] = ()
    _nodes: dict[str, ir.Node] = field(init=False)
    _slots: dict[str, HalfSlots] = field(init=False)
    _reasons: dict[str, str] = field(init=False)
    _fits: Fits = field(init=False)

    def __post_init__(self) -> None:
        """Decide what needs no data."""
        every = all_nodes_by_name(self.model)
        self._nodes = {site.name: every[site.name] for site in self.sites}
        versions = dict(self.model.opset_imports)
        self._slots = {
            name: half_slots(node, versions, self.half.name) for name, node in self._nodes.items()
        }
        self._fits = Fits(self.half, {entry.initializer for entry in self.masks})
        steering = steering_values(self.model)
        self._reasons = {site.name: self._why_not(site, steering) for site in self.sites}

    @property
    def observes(self) -> bool:
        """Whether what was seen of tensors plays a part: the type has less range than float32."""
        return self.half.name == "float16"

    def requests(self) -> list[Extrema]:
        """What must be seen: every tensor that would have 16 bits, but those only handed on."""
        if not self.observes:
            return []
        names: dict[str, None] = {}
        for site in self.sites:
            if not self._reasons[site.name]:
                for value in self._half_values(site.name):
                    if not value.is_initializer() and not is_handed_on(value):
                        names[value.name or ""] = None
        return [Extrema(name) for name in names]

    def decide(self, stats: Stats | None) -> tuple[Decision, ...]:
        """What becomes of each site.

        Args:
            stats: What was observed; None where nothing was.
        """
        nodes = list(self._nodes.values())
        reasons = dict(self._reasons)
        if stats is not None and self.observes:
            unfit = unfit_tensors(nodes, stats, self.half)
            for name, reason in self._reasons.items():
                seen = (unfit[value] for value in self._half_values(name) if value in unfit)
                reasons[name] = reason or next(seen, "")
        reasons = follow_neighbours(nodes, self._slots, reasons)
        return tuple(Decision(s, not reasons[s.name], reasons[s.name]) for s in self.sites)

    def entries(
        self, decisions: Sequence[Decision]
    ) -> tuple[tuple[HalfNodeEntry, ...], tuple[HalfWeightEntry, ...]]:
        """The entries of a plan: nodes, and the constants that are stored once for all readers."""
        nodes = tuple(
            HalfNodeEntry(
                node=d.site.name,
                type=self.half.name,
                inputs=self._slots[d.site.name].inputs,
                outputs=self._slots[d.site.name].outputs,
            )
            for d in decisions
            if d.quantize
        )
        weights = tuple(
            HalfWeightEntry(initializer=name, type=self.half.name)
            for name, value in self.model.graph.initializers.items()
            if is_stored(value, self.model)
            and value.uses()
            and not any(node.name in self.kept for node, _ in consumers(value))
            and not self._fits.why_not(value)
        )
        return nodes, weights

    def _half_values(self, name: str) -> Iterator[ir.Value]:
        node, slots = self._nodes[name], self._slots[name]
        yield from (value for i in slots.inputs if (value := node.inputs[i]) is not None)
        yield from (node.outputs[i] for i in slots.outputs)

    def _why_not(self, site: Site, steering: frozenset[ir.Value]) -> str:
        node = self._nodes[site.name]
        stated = (
            self.kept.get(site.name, ""),
            self._slots[site.name].reason,
            self._why_no_kernel(node),
            RANGE_SENSITIVE.get(node.op_type, "") if not node.domain else "",
        )
        if any(stated):
            return next(filter(None, stated))
        if any(node.outputs[index] in steering for index in self._slots[site.name].outputs):
            return "it computes a length, an index or a condition, which must not be rounded"
        if site.place and self.observes:
            return f"it is in {site.place}, where nothing is observed"
        constants = (value for value in self._half_values(site.name) if value.is_initializer())
        return next(filter(None, map(self._fits.why_not, constants)), "")

    def _why_no_kernel(self, node: ir.Node) -> str:
        if self.rules is None or node.domain:
            return ""
        if self.rules.kernels is not None and node.op_type not in self.rules.kernels:
            return f"the target has no {self.half.name} kernel for {node.op_type}"
        return self.rules.declined.get(node.op_type, "")
