"""Plans of float16 and bfloat16 from extrema that a test gives, without running any model."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from onnxq.algorithms.build_plan import PlanLabels, assemble
from onnxq.algorithms.half_precision import HalfPlanner
from onnxq.algorithms.mask_constants import find_masks
from onnxq.algorithms.selection import Selection
from onnxq.calibration.stats import Stats, TensorStats
from onnxq.graph.float_nodes import find_float_nodes
from onnxq.numerics.half import HALF_TYPES
from onnxq.passes.bound_masks import BoundMasks

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from onnxq.numerics.half import HalfName
    from onnxq.plan import Plan
    from onnxq.targets import HalfRules

NOTHING: Mapping[str, str] = MappingProxyType({})


def half_plan(
    model: ir.Model,
    seen: Mapping[str, tuple[float, float]] = MappingProxyType({}),
    name: HalfName = "float16",
    kept: Mapping[str, str] = NOTHING,
    rules: HalfRules | None = None,
) -> Plan:
    """The plan of a model that computes in 16 bits; nothing was seen of tensors not in ``seen``."""
    half = HALF_TYPES[name]
    masks = find_masks(model, half)
    bounded = BoundMasks(masks)(model.clone()).model
    planner = HalfPlanner(bounded, find_float_nodes(model), half, rules, kept, masks)
    stats = Stats("sha256:model", "sha256:data", 1)
    for tensor, (low, high) in seen.items():
        stats.tensors[tensor] = TensorStats(2, [low], [high])
    decisions = planner.decide(stats)
    nodes, weights = planner.entries(decisions)
    labels = PlanLabels("sha256:model", name, "cpu", 13, independent=True)
    fields = {"masks": masks, "half_nodes": nodes, "half_weights": weights}
    return assemble(labels, Selection(decisions, (), {}, frozenset()), name, fields)


def reasons(plan: Plan) -> dict[str, str]:
    """Why each node that stays float32 does, by operator."""
    return {site.op: site.reason for site in plan.sites if site.decision == "float"}
