"""Weight-only INT8: the form of each weight fixed by the recipe, or measured."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from onnxq.algorithms.scheme_choice import choose_form
from onnxq.algorithms.weights_int8 import (
    decide_blocks,
    decide_dequantized,
    forms,
    select_weights,
)
from onnxq.errors import UsageError
from onnxq.stages.contest import compete
from onnxq.stages.task import Decided, decided

if TYPE_CHECKING:
    from onnxq.algorithms.selection import Selection
    from onnxq.algorithms.static_int8 import StaticInt8
    from onnxq.algorithms.weights_int8 import BlockForm
    from onnxq.plan import Plan
    from onnxq.stages.prepare import Prepared
    from onnxq.stages.task import Task


def weights(task: Task) -> Decided:
    """The plan of weight-only INT8.

    Raises:
        UsageError: Blocks are asked for and the target has no kernel for them.
    """
    options = weight_options(task)
    first = next(iter(options.values()))
    fixed = len(options) == 1 and task.min_sqnr is None
    if fixed or not first.selection.chosen or task.samples is None:
        return first
    samples, bound = task.samples, task.min_sqnr
    trials = compete(task, _plans(options), samples)
    best = choose_form(trials, bound)
    if not best.accurate(bound) and bound is not None:
        exact = _exact_options(task)
        options |= exact
        trials += compete(task, _plans(exact), samples)
        best = choose_form(trials, bound)
    measured = ", ".join(trial.text for trial in trials)
    return replace(options[best.name], reason=f"asked for; measured {measured}", trials=trials)


def weight_options(task: Task) -> dict[str, Decided]:
    """A plan for each form that may be measured, by name; one where the recipe fixes it."""
    settings, rules = task.prepared.recipe.weights, task.prepared.target.blocks
    if settings.form == "dq" or (rules is None and settings.form == "auto"):
        return {"int8-weights": _dequantized(task)}
    if rules is None:
        code, text = "usage.no_kernel", f"{task.prepared.target.name} has no kernel for blocks"
        raise UsageError(code, text, where="weights.form", remedy='Write form = "dq".')
    level = settings.accuracy_level or rules.accuracy_levels[0]
    return _in_blocks(task, forms(rules, settings.block_size, level))


def _exact_options(task: Task) -> dict[str, Decided]:
    """The forms of the most accurate level, where the recipe leaves the level open."""
    settings, rules = task.prepared.recipe.weights, task.prepared.target.blocks
    if rules is None or settings.form == "dq" or settings.accuracy_level is not None:
        return {}
    return _in_blocks(task, forms(rules, settings.block_size, rules.accuracy_levels[-1]))


def _plans(options: dict[str, Decided]) -> dict[str, Plan]:
    return {name: option.plan for name, option in options.items()}


def select_weights_of(prepared: Prepared) -> Selection:
    """What weight-only INT8 quantizes in the form that the recipe asks for."""
    wanted = prepared.recipe.weights.form
    blocks = wanted != "dq" and prepared.target.blocks is not None
    return select_weights(
        prepared.model,
        prepared.sites,
        prepared.target,
        prepared.kept(),
        form="blocks" if blocks else "dq",
    )


def _in_blocks(task: Task, wanted: tuple[BlockForm, ...]) -> dict[str, Decided]:
    prepared = task.prepared
    selection = select_weights_of(prepared)
    config = _config(prepared, selection)
    found = {}
    for form in wanted:
        fields = decide_blocks(prepared.model, config, form)
        name = f"int8-weights, {form.label}"
        found[name] = decided(task, prepared, selection, "int8-weights", fields)
    return found


def _dequantized(task: Task) -> Decided:
    prepared = task.prepared
    selection = select_weights_of(prepared)
    fields = decide_dequantized(prepared.model, _config(prepared, selection))
    return decided(task, prepared, selection, "int8-weights", fields)


def _config(prepared: Prepared, selection: Selection) -> StaticInt8:
    """Weights beside float activations have all bits: no integer kernel adds them up."""
    return replace(prepared.config(selection), weight=prepared.target.weight)
