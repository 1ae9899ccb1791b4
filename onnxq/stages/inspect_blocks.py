"""What ``inspect`` says of weights in blocks: each layer's error under whatever was tried.

Where the recipe names no algorithm, all of ``auto`` are tried, with zero points that are fixed and
that are free. Of several block sizes the first is taken: the one that is fastest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxq.algorithms.block_settings import block_settings
from onnxq.numerics.metrics import sqnr_db
from onnxq.stages.block_solver import HELD_OUT, solve, why_left
from onnxq.stages.blocks import planner_for, select_in_blocks
from onnxq.stages.task import Task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxq.algorithms.block_group import GroupResult
    from onnxq.algorithms.block_plan import BlockGroup
    from onnxq.algorithms.block_settings import BlockSettings
    from onnxq.algorithms.selection import Selection
    from onnxq.data import DataSource
    from onnxq.plan import Decision
    from onnxq.stages.block_solver import Solved
    from onnxq.stages.prepare import Prepared
    from onnxq.verify.verification import Report


@dataclass(frozen=True, slots=True)
class BlockFindings:
    """What was found of the weight of one site.

    Attributes:
        chosen: The algorithm, integers and block that are best; empty where none was compared.
        held_out: SQNR in decibels of the site's output on tokens held out, the weight quantized, by
            algorithm, integers and block; of earlier runs on the same data too.
        exponent: AWQ's exponent; None where channels are not scaled.
        scaling: Where the division of channels goes, or why they are not scaled; empty where no
            algorithm asked.
    """

    chosen: str
    held_out: Mapping[str, float]
    exponent: float | None
    scaling: str


@dataclass(frozen=True, slots=True)
class InspectedBlocks:
    """What was found of all sites.

    Attributes:
        selection: What would be quantized.
        scheme: What that is called.
        sqnr_db: Of each site's output with what is best, or would ruin it; by name.
        sites: What was found of each weight, by the site's name.
    """

    selection: Selection
    scheme: Decision
    sqnr_db: Mapping[str, float]
    sites: Mapping[str, BlockFindings]


def select_blocks_of(prepared: Prepared) -> tuple[Selection, Decision]:
    """What is quantized in blocks by structure alone, and what that is called.

    Raises:
        UsageError: The target has no kernel for the width.
    """
    settings = _settings(prepared)
    return select_in_blocks(prepared, settings, settings.block_sizes[0]), settings.scheme


def inspect_blocks(prepared: Prepared, data: DataSource, report: Report) -> InspectedBlocks:
    """Quantize every weight in blocks in all ways that the recipe allows, and compare.

    Args:
        prepared: The model.
        data: Calibration samples.
        report: Told of progress.

    Raises:
        UsageError: The target has no kernel for the width.
    """
    settings = _settings(prepared)
    size, level = settings.block_sizes[0], settings.accuracy_levels[0]
    selection = select_in_blocks(prepared, settings, size)
    task = Task(
        prepared=prepared,
        data=data,
        samples=None,
        macs={},
        independent=False,
        min_sqnr=None,
        timing=None,
        report=report,
    )
    planner = planner_for(prepared, selection, settings, size, level)
    solved = solve(task, planner)
    sites = {
        site.name: _findings(site.name, site.weight or "", group, solved)
        for group in planner.groups
        for site in group.sites
    }
    best = {name: found.held_out.get(found.chosen, math.nan) for name, found in sites.items()}
    solved.forget()
    if solved.ruined:
        kept = {name: why_left(db, planner.specs[name].bits) for name, db in solved.ruined.items()}
        selection = select_in_blocks(prepared, settings, size, kept)
    known = {name: db for name, db in best.items() if not math.isnan(db)}
    return InspectedBlocks(selection, settings.scheme, known, sites)


def _settings(prepared: Prepared) -> BlockSettings:
    recipe = prepared.recipe
    weights = recipe.weights.model_copy(update={"algorithm": recipe.weights.algorithm or "auto"})
    everything = recipe.model_copy(update={"weights": weights})
    # Without data an algorithm may need it all the same: what is selected does not depend on it.
    return block_settings(everything, prepared.target, data=True)


def _findings(name: str, weight: str, group: BlockGroup, solved: Solved) -> BlockFindings:
    result, error = solved.groups.get(group), solved.errors.get(name)
    if group in solved.too_few:
        count, length = solved.too_few[group], group.length
        text = f"no statistics: calibration saw {count} rows or patches, fewer than {length}"
        return BlockFindings("", {}, None, text)
    if result is None or error is None:
        return BlockFindings("", {}, None, group.reason and f"none: {group.reason}")
    held_out = {
        label.removeprefix(HELD_OUT): sqnr_db(error.signal, noise)
        for label, noise in error.noise.items()
        if label.startswith(HELD_OUT)
    }
    chosen = solved.labels[name].removeprefix(HELD_OUT)
    exponent = None if result.factor is None else result.exponent
    return BlockFindings(chosen, held_out, exponent, _scaling(group, result))


def _scaling(group: BlockGroup, result: GroupResult) -> str:
    if result.factor is None or group.scaling is None:
        reason = result.reason or group.reason
        return f"none: {reason}" if reason else ""
    fold = group.scaling.fold
    return "folded" if fold.parameters else f"a Mul: {fold.reason}"
