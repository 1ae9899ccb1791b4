"""How many sites run in integer kernels, read from the graph that ONNX Runtime really executes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxq.errors import ModelError
from onnxq.runtime.kernels import NBITS_OPS, executed, integer_sites, tally
from onnxq.targets import load_target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from onnxq.plan import Plan
    from onnxq.runtime.kernels import ExecutedNode


_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True, slots=True)
class KernelReport:
    """Planned and real integer kernels.

    Attributes:
        planned: Sites with a weight and an activation that the plan quantizes, and for whose
            integers the provider has a kernel.
        integer: How many of them run in integer kernels.
        by_op: All integer kernels by operator, those without weights too.
        missed: Sites that were planned and run in float.
        planned_blocks: Sites, lookups too, whose weight the plan puts into blocks for a kernel.
        blocks: How many of them run in a kernel for blocks.
        conversions: QuantizeLinear and DequantizeLinear nodes that are really executed.
        behind: Float operators that read what is dequantized, by operator: what the conversions
            are for.
        mac_share: Share of the multiply-accumulates of all sites that run in integer kernels; None
            where they are not known.
        planned_folded: Weights that are integers, or of 16 bits, in the file and made float32 when
            it is loaded.
        folded: How many of them really are, and not at each inference.
        without_kernel: Sites whose activations have integers, such as uint16, that the provider has
            no kernel for: they are quantized, and run in float.
        planned_half: Nodes that the plan lets compute in 16 bits.
        counted: Whether what runs was counted; not where the model was tried on another provider
            than the one it is for, or on one that compiles kernels which cannot be read.
    """

    planned: int
    integer: int
    by_op: Mapping[str, int]
    missed: tuple[str, ...]
    planned_blocks: int
    blocks: int
    conversions: int
    behind: Mapping[str, int]
    mac_share: float | None
    planned_folded: int = 0
    folded: int = 0
    without_kernel: tuple[str, ...] = ()
    planned_half: int = 0
    counted: bool = True


def report_kernels(
    path: Path, plan: Plan, macs: Mapping[str, int], provider: str = "cpu"
) -> KernelReport:
    """Compare the plan with what ONNX Runtime executes.

    Args:
        path: The quantized model.
        plan: What was planned.
        macs: Multiply-accumulates of each site in one run, by name; may be empty.
        provider: Where it runs.
    """
    floating = _without_kernel(plan)
    every = _planned(plan)
    without_kernel = tuple(name for name in every if name in floating)
    weights = {site: name for site, name in every.items() if site not in floating}
    blocks = {entry.node for entry in plan.blocks if entry.form == "kernel"}
    blocks |= {entry.node for entry in plan.block_embeddings}
    nodes = _executed(path, plan, provider)
    if nodes is None:
        return KernelReport(
            planned=len(weights),
            integer=0,
            by_op={},
            missed=(),
            planned_blocks=len(blocks),
            blocks=0,
            conversions=0,
            behind={},
            mac_share=None,
            without_kernel=without_kernel,
            planned_half=len(plan.half_nodes),
            counted=False,
        )
    found = integer_sites(nodes, weights)
    in_blocks = {node.name for node in nodes if node.op in NBITS_OPS} & blocks
    missed = [name for name in weights if name not in found]
    folded = [entry.initializer for entry in plan.weights if entry.folded]
    folded += [entry.initializer for entry in plan.blocks if entry.form == "folded"]
    stored = {f"{name}_quantized" for name in folded}
    if not plan.half_nodes:
        stored |= {f"{entry.initializer}.{entry.type}" for entry in plan.half_weights}
    # What was computed at load is no node any more.
    computed = stored & {name for node in nodes for name in node.inputs}
    total = sum(macs.values())
    return KernelReport(
        planned=len(weights),
        integer=len(found),
        by_op=tally(nodes).by_op,
        missed=(*missed, *sorted(blocks - in_blocks), *sorted(computed)),
        planned_blocks=len(blocks),
        blocks=len(in_blocks),
        conversions=sum(node.op in _CONVERSIONS for node in nodes),
        behind=_behind(nodes),
        mac_share=sum(macs.get(name, 0) for name in found) / total if total else None,
        planned_folded=len(stored),
        folded=len(stored - computed),
        without_kernel=without_kernel,
        planned_half=len(plan.half_nodes),
    )


def _executed(path: Path, plan: Plan, provider: str) -> tuple[ExecutedNode, ...] | None:
    """The nodes that the target executes; None where they cannot be known."""
    if load_target(plan.target).provider != provider:
        return None
    try:
        return executed(path, provider)
    except ModelError:
        # It was loaded before: what fails is writing down kernels that a provider compiled.
        if provider == "cpu":
            raise
        return None


def _without_kernel(plan: Plan) -> frozenset[str]:
    """Nodes that read activations of a type that is not among those of their operator's rule."""
    target = load_target(plan.target)
    ops = {site.name: site.op for site in plan.sites}
    return frozenset(
        reader.node
        for entry in plan.activations
        for reader in entry.readers
        if reader.node in ops
        and entry.scheme.type_name not in target.rule(ops[reader.node]).activations
    )


def _planned(plan: Plan) -> dict[str, str | None]:
    """The sites that should run in integers, with the initializer of their integers."""
    chosen = {site.name for site in plan.sites if site.decision in ("int8", "fp8")}
    static = {
        reader.node: entry.initializer
        for entry in plan.weights
        for reader in entry.readers
        if reader.node in chosen
    }
    dynamic = {entry.node: entry.initializer for entry in plan.dynamic}
    recurrent = {entry.node: entry.weights[0] for entry in plan.recurrent}
    every = {**static, **dynamic, **recurrent}
    return {node: f"{name}_quantized" for node, name in every.items()}


def _behind(nodes: Sequence[ExecutedNode]) -> dict[str, int]:
    dequantized = {name for node in nodes if node.op == "DequantizeLinear" for name in node.outputs}
    counts = Counter(
        node.op
        for node in nodes
        if not node.integer
        and node.op not in _CONVERSIONS
        and any(name in dequantized for name in node.inputs)
    )
    return dict(counts.most_common())
