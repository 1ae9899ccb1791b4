"""Weight-only INT8: the form of each weight fixed by the recipe, or measured.

With data, sites that quantizing would ruin stay float.
"""

from __future__ import annotations

import math
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

from onnxq.algorithms.guard import kept_float, ruined_sites, why_ruined
from onnxq.algorithms.scheme_choice import choose_form
from onnxq.algorithms.weights_int8 import (
    alone_requests,
    decide_blocks,
    decide_dequantized,
    forms,
    select_weights,
)
from onnxq.calibration.cache import load_cached, store
from onnxq.errors import UsageError
from onnxq.stages.calibrate import Observer, Stage
from onnxq.stages.contest import compete
from onnxq.stages.task import Decided, decided

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from onnxq.algorithms.selection import Selection
    from onnxq.algorithms.static_int8 import StaticInt8
    from onnxq.algorithms.weights_int8 import BlockForm
    from onnxq.data import DataSource
    from onnxq.plan import Plan
    from onnxq.stages.prepare import Prepared
    from onnxq.stages.task import Task
    from onnxq.verify.verification import Report

    _Decide = Callable[[StaticInt8], dict[str, Any]]

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


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
    return _all_decided(task, _forms(task.prepared))


def select_guarded(prepared: Prepared, data: DataSource, report: Report) -> Selection:
    """What weight-only INT8 quantizes in its first form after a look at the data."""
    decide = next(iter(_forms(prepared).values()))
    return _guarded(prepared, data, report, decide)[0]


def _forms(prepared: Prepared) -> dict[str, _Decide]:
    """How each form that may be measured is decided, by name."""
    settings, rules = prepared.recipe.weights, prepared.target.blocks
    if settings.form == "dq" or (rules is None and settings.form == "auto"):
        return {"int8-weights": lambda config: decide_dequantized(prepared.model, config)}
    if rules is None:
        code, text = "usage.no_kernel", f"{prepared.target.name} has no kernel for blocks"
        raise UsageError(code, text, where="weights.form", remedy='Write form = "dq".')
    level = settings.accuracy_level or rules.accuracy_levels[0]
    return _block_forms(prepared, forms(rules, settings.block_size, level))


def _exact_options(task: Task) -> dict[str, Decided]:
    """The forms of the most accurate level, where the recipe leaves the level open."""
    prepared = task.prepared
    settings, rules = prepared.recipe.weights, prepared.target.blocks
    if rules is None or settings.form == "dq" or settings.accuracy_level is not None:
        return {}
    wanted = forms(rules, settings.block_size, rules.accuracy_levels[-1])
    return _all_decided(task, _block_forms(prepared, wanted))


def _block_forms(prepared: Prepared, wanted: tuple[BlockForm, ...]) -> dict[str, _Decide]:
    def decide_as(form: BlockForm) -> _Decide:
        return lambda config: decide_blocks(prepared.model, config, form)

    return {f"int8-weights, {form.label}": decide_as(form) for form in wanted}


def _plans(options: dict[str, Decided]) -> dict[str, Plan]:
    return {name: option.plan for name, option in options.items()}


def select_weights_of(prepared: Prepared, kept: Mapping[str, str] = _NOTHING) -> Selection:
    """What weight-only INT8 quantizes in the form that the recipe asks for.

    Args:
        prepared: The model.
        kept: Sites that stay float beside those of the recipe, with the reason.
    """
    wanted = prepared.recipe.weights.form
    blocks = wanted != "dq" and prepared.target.blocks is not None
    form: Literal["blocks", "dq"] = "blocks" if blocks else "dq"
    model, sites, target = prepared.model, prepared.sites, prepared.target
    return prepared.sound(lambda k: select_weights(model, sites, target, k, form=form), kept)


def _all_decided(task: Task, wanted: Mapping[str, _Decide]) -> dict[str, Decided]:
    found = {}
    for name, decide in wanted.items():
        selection, fields = _guarded(task.prepared, task.data, task.report, decide)
        found[name] = decided(task, task.prepared, selection, "int8-weights", fields)
    return found


def _guarded(
    prepared: Prepared, data: DataSource | None, report: Report, decide: _Decide
) -> tuple[Selection, dict[str, Any]]:
    """What one form quantizes, and the fields of its plan; what it would ruin stays float."""
    wanted = selection = select_weights_of(prepared)
    fields = decide(_config(prepared, selection))
    requests = alone_requests(prepared.model, _config(prepared, selection), fields)
    if data is None or not requests:
        return selection, fields
    observe = Observer(prepared, data, report)
    stage = Stage(prepared, load_cached(prepared.digest, observe.data_digest))
    observe(stage, requests, "measure sites")
    if observe.observed:
        store(stage.stats)
    ruined = ruined_sites(requests, stage.stats)
    # NaN and Inf pass through float activations as they are; an error beside them says nothing.
    kept = {name: why_ruined(db) for name, db in ruined.items() if not math.isnan(db)}
    if kept:
        selection = select_weights_of(prepared, kept)
        fields = decide(_config(prepared, selection))
        fields["warnings"] = kept_float(wanted, selection)
    return selection, fields


def _config(prepared: Prepared, selection: Selection) -> StaticInt8:
    """Weights beside float activations have all bits: no integer kernel adds them up."""
    return replace(prepared.config(selection), weight=prepared.target.weight)
