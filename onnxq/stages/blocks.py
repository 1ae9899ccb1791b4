"""Weights in blocks: what is fastest is measured, statistics stream, each group is quantized.

Groups of weights are taken in chunks whose statistics fit into the memory budget together, one pass
over the data for each chunk. What was found for a group is kept on disk until all is done.
"""

from __future__ import annotations

import time
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from onnxq.algorithms.block_lengths import input_channels, sizes_that_fit, too_short
from onnxq.algorithms.block_plan import BlockPlanner, row_divisors
from onnxq.algorithms.block_settings import (
    block_settings,
    block_sizes,
    block_specs,
    folded_weights,
)
from onnxq.algorithms.guard import kept_float, unseen_beside_damage
from onnxq.algorithms.lookup_tables import embeddings, tied_lookups
from onnxq.algorithms.scheme_choice import choose_blocks
from onnxq.algorithms.weights_int8 import select_weights
from onnxq.errors import UsageError, listed
from onnxq.graph.edit import all_nodes_by_name, value_by_name
from onnxq.passes.scale_channels import ScaleChannels
from onnxq.plan import LEAST_BLOCK
from onnxq.runtime.machine import peak_rss_bytes
from onnxq.stages.block_solver import solve, why_left
from onnxq.stages.calibrate import CalibrationRun
from onnxq.stages.contest import compete
from onnxq.stages.task import Decided, decided

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import onnx_ir as ir

    from onnxq.algorithms.block_plan import BlockGroup, BlockSpec
    from onnxq.algorithms.block_settings import BlockSettings
    from onnxq.algorithms.scheme_choice import Trial
    from onnxq.algorithms.selection import Selection
    from onnxq.graph.sites import Site
    from onnxq.stages.block_solver import Solved
    from onnxq.stages.prepare import Prepared
    from onnxq.stages.task import Task

_NAMED = 3

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


def blocks(task: Task) -> Decided:
    """The plan of weights in blocks.

    Raises:
        UsageError: The target has no kernel for the width, the algorithm needs data, or no weight
            is as long as a block.
    """
    prepared = task.prepared
    settings = block_settings(prepared.recipe, prepared.target, data=task.data is not None)
    settings = _with_fitting_sizes(prepared, settings)
    size, level, trials = _measured(task, settings)
    found = _quantized(task, settings, size, level)
    if not found.selection.chosen:
        return found
    measured = ", ".join(trial.text for trial in trials)
    reason = f"asked for; measured, rounded to the nearest: {measured}" if trials else "asked for"
    return replace(found, reason=reason, trials=trials)


def _with_fitting_sizes(prepared: Prepared, settings: BlockSettings) -> BlockSettings:
    """Without the block sizes that no weight is as long as."""
    products = select_in_blocks(prepared, settings, 0).chosen
    lengths = input_channels(prepared.model, products)
    sizes = sizes_that_fit(settings.block_sizes, lengths, prepared.outcomes)
    if sizes or not lengths:
        return replace(settings, block_sizes=sizes or settings.block_sizes)
    if prepared.recipe.weights.block_size is None:
        return replace(settings, block_sizes=(min(settings.block_sizes),))
    raise _too_long(settings.block_sizes[0], max(lengths.values()))


def _too_long(size: int, longest: int) -> UsageError:
    text = f"no weight is as long as a block of {size}: the most input channels are {longest}"
    code, remedy = "usage.block_size", f"give --block-size {1 << longest.bit_length() - 1} or less"
    if longest < LEAST_BLOCK:
        remedy = f"no block has fewer than {LEAST_BLOCK}; --scheme float16 does without blocks"
    return UsageError(code, text, where="--block-size", remedy=remedy)


def _measured(task: Task, settings: BlockSettings) -> tuple[int, int, tuple[Trial, ...]]:
    """Block size and accuracy level: those asked for, else what is fast and then accurate.

    Speed does not depend on the integers, and more accurate ones move all sizes alike, so that
    weights rounded to the nearest stand for those of the algorithm. Where nothing is timed, levels
    that the target knows to be slow are for bounds that no other reaches.
    """
    prepared, levels = task.prepared, settings.accuracy_levels
    sized = _distinct(prepared, settings, [(size, levels[0]) for size in settings.block_sizes])
    size, level = sized[0]
    leveled = _distinct(prepared, settings, [(size, each) for each in levels])
    if task.samples is None or len(sized) == len(leveled) == 1:
        return size, level, ()
    plain = replace(settings, algorithm="rtn", symmetric=bool(settings.symmetric))
    trials: tuple[Trial, ...] = ()
    pairs: dict[str, tuple[int, int]] = {}
    best: Trial | None = None
    slow = () if task.timing is not None else settings.slow_levels
    others = [(0, other) for _, other in leveled[1:]]
    # The levels are compared at the size that won, not at every one.
    for stage in (
        sized,
        [pair for pair in others if pair[1] not in slow],
        [pair for pair in others if pair[1] in slow],
    ):
        if stage and stage[0][1] in slow and not _misses(best, task.min_sqnr):
            continue
        options = {}
        for each, other in stage:
            pair = (each or size, other)
            name = f"{settings.scheme}, block {pair[0]}, accuracy level {pair[1]}"
            option = _quantized(replace(task, data=None), plain, *pair)
            if option.selection.chosen:
                options[name], pairs[name] = option.plan, pair
        if options:
            trials += compete(task, options, task.samples)
            best = choose_blocks(trials, task.min_sqnr)
            size, level = pairs[best.name]
    return size, level, trials


def _misses(best: Trial | None, bound: float | None) -> bool:
    """Whether there is a bound that the best so far does not reach."""
    return bound is not None and best is not None and not best.accurate(bound)


def _distinct(
    prepared: Prepared, settings: BlockSettings, pairs: Iterable[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Of sizes and levels with which every weight is stored alike the last: its size is real."""
    found: list[tuple[int, int]] = []
    known: list[dict[str, BlockSpec]] = []
    for size, level in pairs:
        specs = _specs(prepared, select_in_blocks(prepared, settings, size), settings, size, level)
        if known and specs == known[-1]:
            found[-1] = size, level
        else:
            found.append((size, level))
            known.append(specs)
    return found


def _quantized(task: Task, settings: BlockSettings, size: int, level: int) -> Decided:
    """The plan of one block size and level; sites that it would ruin stay float."""
    start, prepared = time.perf_counter(), task.prepared
    wanted = selection = select_in_blocks(prepared, settings, size)
    planner = planner_for(prepared, selection, settings, size, level)
    solved = solve(task, planner)
    if solved.ruined:
        first, specs = solved, planner.specs
        kept = {name: why_left(db, specs[name].bits) for name, db in solved.ruined.items()}
        selection = select_in_blocks(prepared, settings, size, kept)
        planner = planner_for(prepared, selection, settings, size, level)
        solved = solve(task, planner)
        solved = replace(solved, reused=solved.reused and first.reused)
        first.forget()
    solved.forget()
    fields = _fields(prepared, planner, selection, solved)
    fields["warnings"] = (
        *_rules_not_kept(prepared, selection),
        *kept_float(wanted, selection),
        *_too_few(planner, solved.too_few),
    )
    if task.data is not None:
        fields["data_digest"] = task.data.digest()
    result = decided(task, prepared, selection, settings.scheme, fields)
    if task.data is None:
        return result
    run = CalibrationRun(
        method=settings.algorithm,
        chosen=solved.summary,
        samples=len(task.data),
        seconds=time.perf_counter() - start,
        peak_rss_bytes=peak_rss_bytes(),
        reused=solved.reused,
    )
    return replace(result, run=run)


def select_in_blocks(
    prepared: Prepared, settings: BlockSettings, size: int, kept: Mapping[str, str] = _NOTHING
) -> Selection:
    """What is quantized in blocks of this size by structure.

    Args:
        prepared: The model.
        settings: What is asked for.
        size: The block size.
        kept: Sites to keep float beside the recipe's, with the reason.
    """
    model, sites, target = prepared.model, prepared.sites, settings.target
    lengths, folded = input_channels(model, sites), folded_weights(model, sites, settings)
    sizes = block_sizes(sites, lengths, folded, settings, prepared.outcomes, size)
    kept = {
        **unseen_beside_damage(sites),
        **too_short(lengths, sizes),
        **kept,
    }
    kernels = settings.kernels
    floats = not kernels or (settings.folds_rest and prepared.can_fold)
    return prepared.sound(
        lambda both: select_weights(model, sites, target, both, kernels=kernels, floats=floats),
        kept,
    )


def planner_for(
    prepared: Prepared, selection: Selection, settings: BlockSettings, size: int, level: int
) -> BlockPlanner:
    """What makes the plan of a selection, for one block size and accuracy level."""
    specs = _specs(prepared, selection, settings, size, level)
    return BlockPlanner(prepared.model, prepared.sites, specs)


def _specs(
    prepared: Prepared, selection: Selection, settings: BlockSettings, size: int, level: int
) -> dict[str, BlockSpec]:
    chosen, outcomes = selection.chosen, prepared.outcomes
    return block_specs(prepared.model, chosen, settings, outcomes, size, level)


def _rules_not_kept(prepared: Prepared, selection: Selection) -> tuple[str, ...]:
    """What rules say of activations is not heeded."""
    outcomes = [(site.name, prepared.outcomes.get(site.name)) for site in selection.chosen]
    names = [
        name
        for name, rule in outcomes
        if rule and (rule.activation or rule.method or rule.percentile)
    ]
    if not names:
        return ()
    return (
        f"{listed(names, _NAMED)}: a rule says how its activation is quantized; it stays float",
    )


def _too_few(planner: BlockPlanner, tokens: Mapping[BlockGroup, int]) -> tuple[str, ...]:
    """A warning where the data is too little for statistics that an algorithm asks for."""
    missed = {group: count for group, count in tokens.items() if planner.wants_activations(group)}
    if not missed:
        return ()
    group, count = max(missed.items(), key=lambda pair: pair[0].length / (pair[1] + 1))
    what = "rows" if group.window is None else "patches"
    text = (
        f"too little data for the statistics of {listed([g.tensor for g in missed], _NAMED)}: "
        f"calibration saw {count} {what} of {group.tensor!r}, fewer than the {group.length} input "
        "channels of the weights that read it; such weights are quantized without statistics"
    )
    return (text,)


def _lookups(selection: Selection, scaled: ir.Model) -> list[Site]:
    """The lookups, by the tables that they read once channels are scaled."""
    nodes = all_nodes_by_name(scaled)
    lookups = [site for site in selection.chosen if site.activation is None]
    tables = [nodes[site.name].inputs[0] for site in lookups]
    return [
        site if table is None else replace(site, weight=table.name)
        for site, table in zip(lookups, tables, strict=True)
    ]


def _fields(
    prepared: Prepared, planner: BlockPlanner, selection: Selection, solved: Solved
) -> dict[str, Any]:
    """The entries of a plan and ``arrays``."""
    scalings, factors = planner.scalings(solved.groups)
    scaled = prepared.model
    if scalings:
        scaled = ScaleChannels(scalings, factors)(prepared.model.clone()).model
    entries, arrays = planner.blocks(solved.weights, scaled, row_divisors(scalings, factors))
    lookups = _lookups(selection, scaled)
    values = value_by_name(scaled.graph)
    tied = tied_lookups(lookups, values, entries, prepared.target)
    names = {entry.node for entry in tied}
    others = [site for site in lookups if site.name not in names]
    tables, rows = embeddings(others, values, prepared.config(selection).weight)
    return {
        "scalings": scalings,
        "blocks": entries,
        "block_embeddings": tied,
        "embeddings": tables,
        "arrays": {**factors, **arrays, **rows},
    }
