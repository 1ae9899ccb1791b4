"""Weight-only INT8: the form of each weight fixed by the recipe, or measured.

With data, sites that quantizing would ruin stay float.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from onnxq.algorithms.guard import (
    kept_float,
    ruined_sites,
    unseen_beside_damage,
    why_ruined,
)
from onnxq.algorithms.scheme_choice import choose_form
from onnxq.algorithms.weights_int8 import (
    BITS,
    alone_requests,
    decide_blocks,
    decide_per_channel,
    forms,
    select_weights,
)
from onnxq.calibration.cache import load_cached, store
from onnxq.errors import UsageError
from onnxq.stages.calibrate import Observer, Stage
from onnxq.stages.contest import compete
from onnxq.stages.task import Decided, decided

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from onnxq.algorithms.selection import Selection
    from onnxq.algorithms.static_int8 import Int8Config
    from onnxq.algorithms.weights_int8 import BlockForm
    from onnxq.calibration.requests import OutputError
    from onnxq.data import DataSource
    from onnxq.plan import Plan
    from onnxq.stages.prepare import Prepared
    from onnxq.stages.task import Task
    from onnxq.verify.verification import Report

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _Form:
    """One form of weight-only INT8.

    Attributes:
        blocks: Whether it puts weights into blocks.
        decide: The fields of a plan.
    """

    blocks: bool
    decide: Callable[[Int8Config], dict[str, Any]]


def weights(task: Task) -> Decided:
    """The plan of weight-only INT8.

    Raises:
        UsageError: Blocks are asked for and the target has no kernel for them.
    """
    options = weight_options(task)
    found = {name: option for name, option in options.items() if option.selection.chosen}
    if not found:
        # The widest form comes last.
        return list(options.values())[-1]
    fixed = len(options) == 1 and task.min_sqnr is None
    if fixed or task.samples is None:
        return next(iter(found.values()))
    samples, bound = task.samples, task.min_sqnr
    trials = compete(task, _plans(found), samples)
    best = choose_form(trials, bound)
    if not best.accurate(bound) and bound is not None:
        exact = _exact_options(task)
        found |= exact
        trials += compete(task, _plans(exact), samples)
        best = choose_form(trials, bound)
    measured = ", ".join(trial.text for trial in trials)
    return replace(found[best.name], reason=f"asked for; measured {measured}", trials=trials)


def weight_options(task: Task) -> dict[str, Decided]:
    """A plan for each form that may be measured, by name; one where the recipe fixes it."""
    return _all_decided(task, _forms(task.prepared))


def select_guarded(prepared: Prepared, data: DataSource, report: Report) -> Selection:
    """What weight-only INT8 quantizes in its widest form after a look at the data."""
    (found,) = _guarded(prepared, data, report, [_widest(prepared)])
    return found.selection


def select_weights_of(prepared: Prepared) -> Selection:
    """What weight-only INT8 quantizes in its widest form."""
    return _select(prepared, _widest(prepared))


def _widest(prepared: Prepared) -> _Form:
    """Of the forms that may be measured the one that takes most operators."""
    return min(_forms(prepared).values(), key=lambda form: form.blocks)


def _forms(prepared: Prepared) -> dict[str, _Form]:
    """Each form that may be measured, by name."""
    settings, rules, model = prepared.recipe.weights, prepared.target.blocks, prepared.model
    wanted = settings.form
    if wanted == "dq" or (wanted == "auto" and rules is not None and rules.form == "dq"):
        return {"int8-weights, dq": _Form(blocks=False, decide=partial(decide_per_channel, model))}
    if wanted == "blocks" and (rules is None or rules.form != "kernel"):
        code, text = "usage.no_kernel", f"{prepared.target.name} has no kernel for blocks"
        raise UsageError(code, text, where="weights.form", remedy='Write form = "folded".')
    found = {}
    if wanted != "folded" and rules is not None:
        width = rules.widths[BITS]
        level = settings.accuracy_level or width.accuracy_levels[0]
        found = _block_forms(prepared, forms(width, settings.block_size, level))
    if wanted == "folded" or (wanted == "auto" and settings.block_size is None):
        decide = partial(decide_per_channel, model, folded=True)
        found["int8-weights, folded"] = _Form(blocks=False, decide=decide)
    return found


def _exact_options(task: Task) -> dict[str, Decided]:
    """The forms of the most accurate level, where the recipe leaves the level open."""
    prepared = task.prepared
    settings, rules = prepared.recipe.weights, prepared.target.blocks
    open_form = settings.form in ("auto", "blocks") and settings.accuracy_level is None
    if rules is None or rules.form == "dq" or not open_form:
        return {}
    width = rules.widths[BITS]
    wanted = forms(width, settings.block_size, width.accuracy_levels[-1])
    return _all_decided(task, _block_forms(prepared, wanted))


def _block_forms(prepared: Prepared, wanted: tuple[BlockForm, ...]) -> dict[str, _Form]:
    def decide_as(form: BlockForm) -> _Form:
        return _Form(blocks=True, decide=lambda config: decide_blocks(prepared.model, config, form))

    return {f"int8-weights, {form.label}": decide_as(form) for form in wanted}


def _plans(options: dict[str, Decided]) -> dict[str, Plan]:
    return {name: option.plan for name, option in options.items()}


def _select(prepared: Prepared, form: _Form, kept: Mapping[str, str] = _NOTHING) -> Selection:
    model, sites, target = prepared.model, prepared.sites, prepared.target
    kept = {**unseen_beside_damage(sites), **kept}
    return prepared.sound(
        lambda both: select_weights(
            model, sites, target, both, kernels=form.blocks, floats=not form.blocks
        ),
        kept,
    )


def _all_decided(task: Task, wanted: Mapping[str, _Form]) -> dict[str, Decided]:
    guarded = _guarded(task.prepared, task.data, task.report, list(wanted.values()))
    return {
        name: decided(task, task.prepared, found.selection, "int8-weights", found.fields)
        for name, found in zip(wanted, guarded, strict=True)
    }


@dataclass(frozen=True, slots=True)
class _Guarded:
    """What one form quantizes, and the fields of its plan."""

    selection: Selection
    fields: dict[str, Any]


def _guarded(
    prepared: Prepared, data: DataSource | None, report: Report, wanted: Sequence[_Form]
) -> list[_Guarded]:
    """What each form quantizes; what it would ruin stays float. One pass looks at all of them."""
    found = [_decide(prepared, form, _select(prepared, form)) for form in wanted]
    requests = [_requests(prepared, each) for each in found]
    if data is None or not any(requests):
        return found
    observe = Observer(prepared, data, report)
    stage = Stage(prepared, load_cached(prepared.digest, observe.data_digest))
    observe(stage, [request for each in requests for request in each], "measure sites")
    if observe.observed:
        store(stage.stats)
    for place, (form, asked) in enumerate(zip(wanted, requests, strict=True)):
        ruined = ruined_sites(asked, stage.stats)
        if ruined:
            kept = {name: why_ruined(sqnr) for name, sqnr in ruined.items()}
            before = found[place].selection
            found[place] = after = _decide(prepared, form, _select(prepared, form, kept))
            told = kept_float(before, after.selection)
            after.fields["warnings"] = (*after.fields.get("warnings", ()), *told)
    return found


def _decide(prepared: Prepared, form: _Form, selection: Selection) -> _Guarded:
    return _Guarded(selection, form.decide(_config(prepared, selection)))


def _requests(prepared: Prepared, found: _Guarded) -> list[OutputError]:
    return alone_requests(prepared.model, _config(prepared, found.selection), found.fields)


def _config(prepared: Prepared, selection: Selection) -> Int8Config:
    return prepared.config(selection, "int8-weights")
