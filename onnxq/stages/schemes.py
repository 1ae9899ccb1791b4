"""From a model and a recipe to a plan: each scheme by itself, and the choice among them.

``auto`` makes a plan of each scheme of INT8 that model and data allow, measures them against each
other and against float on samples that may be used for choosing, and takes the best, or none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnxq.algorithms.build_plan import assemble
from onnxq.algorithms.scheme_choice import choose_scheme
from onnxq.errors import UsageError
from onnxq.garbage import paced_collection
from onnxq.recipe import stores_blocks
from onnxq.stages.blocks import blocks
from onnxq.stages.calibrate import calibrate, measure_sites
from onnxq.stages.contest import compete
from onnxq.stages.dynamic import dynamic, select_dynamic_of
from onnxq.stages.dynamic import select_guarded as select_dynamic_guarded
from onnxq.stages.half import half, select_half
from onnxq.stages.inspect_blocks import inspect_blocks, select_blocks_of
from onnxq.stages.task import Decided
from onnxq.stages.weights import select_guarded as select_weights_guarded
from onnxq.stages.weights import select_weights_of, weight_options, weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxq.algorithms.selection import Selection
    from onnxq.data import DataSource
    from onnxq.plan import Decision as SiteDecision
    from onnxq.stages.inspect_blocks import BlockFindings
    from onnxq.stages.prepare import Prepared
    from onnxq.stages.task import Task
    from onnxq.verify.verification import Report

WORTH_TRYING = 0.05
"""A scheme of a smaller share of the multiplications than this is not measured by ``auto``."""


def decide_plan(task: Task) -> Decided:
    """Make the plan that the recipe asks for.

    Raises:
        UsageError: The scheme needs data and there is none, or the target cannot run it.
    """
    schemes = {
        "auto": auto,
        "bfloat16": half,
        "float16": half,
        "fp8": static,
        "int2": blocks,
        "int4": blocks,
        "int8": static,
        "int8-dynamic": dynamic,
        "int8-weights": blocks if stores_blocks(task.prepared.recipe) else weights,
        "uint4": blocks,
    }
    with paced_collection(len(task.prepared.model.graph)):
        return schemes[task.prepared.recipe.scheme](task)


@dataclass(frozen=True, slots=True)
class Measured:
    """What data says of each site.

    Attributes:
        selection: What is quantized, less what that would ruin.
        decision: What it is called.
        sqnr_db: SQNR in decibels of the sites that were measured in integers, by name; of 16 bits
            nothing is.
        blocks: What was found of weights in blocks, by name of the site.
    """

    selection: Selection
    decision: SiteDecision
    sqnr_db: Mapping[str, float]
    blocks: Mapping[str, BlockFindings]


def selection_for(prepared: Prepared) -> tuple[Selection, SiteDecision]:
    """What the recipe's scheme quantizes by structure alone, and what that is called; no data.

    ``auto`` shows static INT8, which has the most to say.

    Raises:
        UsageError: The target has no kernel for the scheme.
    """
    if stores_blocks(prepared.recipe):
        return select_blocks_of(prepared)
    match prepared.recipe.scheme:
        case "int8-dynamic":
            return select_dynamic_of(prepared), "int8-dynamic"
        case "int8-weights":
            return select_weights_of(prepared), "int8-weights"
        case "float16" | "bfloat16" as scheme:
            return select_half(prepared, None, _silent), scheme
        case _:
            return prepared.select({}), prepared.static


def measured_selection(prepared: Prepared, data: DataSource, report: Report) -> Measured:
    """As :func:`selection_for`, less what the data shows that quantizing would ruin.

    Args:
        prepared: The model.
        data: Calibration samples.
        report: Told of progress.

    Raises:
        UsageError: As there.
    """
    scheme = prepared.recipe.scheme
    if stores_blocks(prepared.recipe):
        found = inspect_blocks(prepared, data, report)
        return Measured(found.selection, found.scheme, found.sqnr_db, found.sites)
    if scheme == "float16" or scheme == "bfloat16":
        return Measured(select_half(prepared, data, report), scheme, {}, {})
    measured = measure_sites(prepared, data, report)
    match scheme:
        case "int8-dynamic":
            selection = select_dynamic_guarded(prepared, data, report)
            return Measured(selection, "int8-dynamic", measured.sqnr_db, {})
        case "int8-weights":
            selection = select_weights_guarded(prepared, data, report)
            return Measured(selection, "int8-weights", measured.sqnr_db, {})
        case _:
            return Measured(measured.selection, prepared.static, measured.sqnr_db, {})


def _silent(step: str, done: int, total: int) -> None:
    """Report nothing: without data there is nothing to wait for."""


def static(task: Task) -> Decided:
    """The plan of static INT8, or of FP8.

    Raises:
        UsageError: There is no data.
    """
    if task.data is None:
        what = "FP8" if task.prepared.float8 else "static INT8"
        code, text = "usage.no_data", f"{what} needs calibration data"
        remedy = "give --data; --scheme int8-dynamic, int8-weights and float16 do without"
        raise UsageError(code, text, where=str(task.prepared.source), remedy=remedy)
    selection, decision = task.prepared.select({}), task.prepared.static
    if not selection.chosen:
        return Decided(assemble(task.labels("float"), selection, decision, {}), selection)
    found = calibrate(task.prepared, task.data, task.report)
    selection = found.config.selection
    if not selection.chosen:
        return Decided(assemble(task.labels("float"), selection, decision, {}), selection)
    plan = found.plan(independent=task.independent)
    return Decided(plan, selection, found.run, found.worst_sites(3))


def auto(task: Task) -> Decided:
    """The best of all schemes as measured; without timing the first that data allows."""
    if task.timing is None or task.samples is None:
        preferred = task.prepared.target.preferred
        if preferred:
            reason = f"{task.prepared.target.name} runs it best, and nothing was timed"
            why_not = task.prepared.target.discouraged.get("int8")
            if why_not:
                reason = f"{reason}; not int8: {why_not}"
            return replace(half(_as(task, preferred)), reason=reason)
        if task.data is None:
            return replace(dynamic(task), reason="there is no data, and nothing was timed")
        return replace(static(task), reason="calibration data was given, and nothing was timed")
    options = _options(task)
    first = next(iter(options.values()))
    tried = {name: option for name, option in options.items() if option.selection.chosen}
    if not tried:
        return first
    plans = {name: option.plan for name, option in tried.items()}
    trials = compete(task, plans, task.samples)
    best, reason = choose_scheme(trials, task.min_sqnr)
    if best is not None:
        return replace(tried[best.name], reason=reason, trials=trials)
    # Every site says why it stays float: what was measured.
    kept = first.selection.declined(reason)
    plan = assemble(task.labels("float"), kept, "int8", {})
    return Decided(plan, kept, first.run, (), reason, trials)


def _options(task: Task) -> dict[str, Decided]:
    """A plan for each scheme that is worth trying, the fastest kind first."""
    options: dict[str, Decided] = {}
    if task.data is not None:
        options["int8"] = static(task)
    others = {"int8-dynamic": dynamic(task), **weight_options(task)}
    preferred = task.prepared.target.preferred
    if preferred:
        others[preferred] = half(_as(task, preferred))
    for name, option in others.items():
        if not options or _share(task, option) >= WORTH_TRYING:
            options[name] = option
    return options


def _as(task: Task, scheme: str) -> Task:
    """The same task for a scheme whose sites are others; its plan is of the same model."""
    return replace(task, prepared=task.prepared.for_scheme(scheme))


def _share(task: Task, option: Decided) -> float:
    """The share of the multiplications that a plan quantizes."""
    chosen = {site.name for site in option.selection.chosen}
    total = sum(task.macs.values())
    covered = sum(count for name, count in task.macs.items() if name in chosen)
    return covered / total if total else float(bool(chosen))
