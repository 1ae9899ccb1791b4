"""float16 and bfloat16: weights alone, or every node that 16 bits suit.

What would overflow is looked for in one pass over the data, in the float model with its masks
bounded: nothing of it is infinite yet.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnxq.algorithms.build_plan import assemble
from onnxq.algorithms.half_precision import HalfPlanner
from onnxq.algorithms.half_weights import Fits, decide_half_weights
from onnxq.algorithms.mask_constants import find_masks
from onnxq.algorithms.selection import Decision, Selection
from onnxq.calibration.cache import load_cached, store
from onnxq.errors import ModelError, UsageError, listed
from onnxq.graph.edit import all_nodes
from onnxq.numerics.half import HALF_TYPES
from onnxq.passes.bound_masks import BoundMasks
from onnxq.runtime.machine import peak_rss_bytes
from onnxq.stages.calibrate import CalibrationRun, Observer, Stage
from onnxq.stages.prepare import half_form
from onnxq.stages.task import Decided

if TYPE_CHECKING:
    from onnxq.calibration.stats import Stats
    from onnxq.data import DataSource
    from onnxq.numerics.half import HalfType
    from onnxq.plan import MaskEntry
    from onnxq.stages.prepare import Prepared
    from onnxq.stages.task import Task
    from onnxq.verify.verification import Report

_NAMED = 5


def half(task: Task) -> Decided:
    """The plan of float16 or bfloat16.

    Raises:
        ModelError: The model has no float32 and is of 16 bits already.
        UsageError: The target computes nothing of the model in the type.
    """
    prepared = task.prepared
    _refuse_narrow(prepared)
    kind = _type_of(prepared)
    if half_form(prepared.recipe, prepared.target) == "weights":
        return _decided(task, kind, *_weights(prepared, kind))
    found = _compute(prepared, task.samples, task.report)
    _refuse_uncomputed(prepared, kind, found.decisions)
    nodes, weights = found.planner.entries(found.decisions)
    fields: dict[str, Any] = {
        "masks": found.masks,
        "half_nodes": nodes,
        "half_weights": weights,
        "warnings": _told(task, kind, found),
    }
    if task.data is not None and found.stats is not None:
        fields["data_digest"] = task.data.digest()
    decided = _decided(task, kind, found.decisions, fields)
    return replace(decided, run=found.run) if task.data is not None else decided


def select_half(prepared: Prepared, data: DataSource | None, report: Report) -> Selection:
    """What float16 or bfloat16 converts; with data, less what would overflow."""
    if half_form(prepared.recipe, prepared.target) == "weights":
        return _selection(_weights(prepared, _type_of(prepared))[0])
    return _selection(_compute(prepared, data, report).decisions)


@dataclass(frozen=True, slots=True)
class _Computed:
    """What computes in 16 bits, and what was observed to decide it."""

    planner: HalfPlanner
    masks: tuple[MaskEntry, ...]
    decisions: tuple[Decision, ...]
    stats: Stats | None = None
    run: CalibrationRun | None = None


def _weights(prepared: Prepared, kind: HalfType) -> tuple[tuple[Decision, ...], dict[str, Any]]:
    entries, decisions = decide_half_weights(
        prepared.model, prepared.sites, prepared.kept(), Fits(kind)
    )
    return decisions, {"half_weights": entries}


def _compute(prepared: Prepared, samples: DataSource | None, report: Report) -> _Computed:
    kind = _type_of(prepared)
    masks = find_masks(prepared.model, kind)
    model = BoundMasks(masks)(prepared.model.clone()).model if masks else prepared.model
    rules = dict(prepared.target.half).get(kind.name)
    planner = HalfPlanner(model, prepared.sites, kind, rules, prepared.kept(), masks)
    requests = planner.requests()
    if samples is None or not requests:
        return _Computed(planner, masks, planner.decide(None))
    start = time.perf_counter()
    observe = Observer(prepared, samples, report)
    stats = load_cached(_key(prepared, masks), observe.data_digest)
    observe(Stage(replace(prepared, model=model), stats), requests, "look for overflow")
    if observe.observed:
        store(stats)
    run = CalibrationRun(
        method="extrema",
        chosen="extrema",
        samples=len(samples),
        seconds=time.perf_counter() - start,
        peak_rss_bytes=peak_rss_bytes(),
        reused=not observe.observed,
    )
    return _Computed(planner, masks, planner.decide(stats), stats, run)


def _key(prepared: Prepared, masks: tuple[MaskEntry, ...]) -> str:
    """What tells the statistics of a model with bounded masks from those of the model."""
    if not masks:
        return prepared.digest
    text = prepared.digest + "".join(entry.model_dump_json() for entry in masks)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _decided(
    task: Task, kind: HalfType, decisions: tuple[Decision, ...], fields: dict[str, Any]
) -> Decided:
    selection = _selection(decisions)
    if not selection.chosen:
        return Decided(assemble(task.labels("float"), selection, kind.name, {}), selection)
    fields["warnings"] = (*_rules_not_kept(task.prepared, kind), *fields.get("warnings", ()))
    plan = assemble(task.labels(kind.name), selection, kind.name, fields)
    return Decided(plan, selection)


def _selection(decisions: tuple[Decision, ...]) -> Selection:
    return Selection(decisions, (), {}, frozenset())


def _type_of(prepared: Prepared) -> HalfType:
    return HALF_TYPES[prepared.recipe.scheme]


def _told(task: Task, kind: HalfType, found: _Computed) -> tuple[str, ...]:
    """What the user should know of a model that computes in 16 bits."""
    texts = []
    rules = dict(task.prepared.target.half).get(kind.name)
    if rules is not None and rules.note:
        texts.append(rules.note)
    if task.data is None and found.planner.observes:
        what = "on made-up inputs only" if found.stats is not None else "on no inputs"
        texts.append(f"overflow of {kind.name} was looked for {what}; give --data")
    if found.masks:
        names = listed([repr(entry.initializer) for entry in found.masks], _NAMED)
        bound = found.masks[0].magnitude
        texts.append(f"masks beyond {kind.name} are bounded to {bound:g}: {names}")
    kept = Counter(d.site.op for d in found.decisions if not d.quantize)
    if kept:
        named = ", ".join(f"{count} {op}" for op, count in kept.most_common(_NAMED))
        more = ", ..." if len(kept) > _NAMED else ""
        texts.append(f"{kept.total()} nodes stay float32, each with its reason: {named}{more}")
    return tuple(texts)


def _rules_not_kept(prepared: Prepared, kind: HalfType) -> tuple[str, ...]:
    """What rules say of integers is not heeded."""
    names = [
        name
        for name, rule in prepared.outcomes.items()
        if rule.activation is not None or rule.weight is not None or rule.method is not None
    ]
    if not names:
        return ()
    named = listed(names, _NAMED)
    return (f"{named}: a rule says how integers are found; {kind.name} heeds keep alone",)


def _refuse_narrow(prepared: Prepared) -> None:
    """Refuse a model without float32 where there are 16 bits."""
    kinds = {value.dtype for node in all_nodes(prepared.model) for value in node.outputs}
    kinds |= {value.dtype for value in prepared.model.graph.initializers.values()}
    narrow = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16} & kinds
    if ir.DataType.FLOAT in kinds or not narrow:
        return
    named = " and ".join(sorted(kind.name.lower() for kind in narrow if kind is not None))
    code, text = "model.is_half", f"the model is {named} already and holds nothing in float32"
    remedy = "give the float32 model that it was made from, or use the model as it is"
    raise ModelError(code, text, where=str(prepared.source), remedy=remedy)


def _refuse_uncomputed(prepared: Prepared, kind: HalfType, decisions: tuple[Decision, ...]) -> None:
    """Refuse where the target has no kernels for what the model consists of."""
    rules = dict(prepared.target.half).get(kind.name)
    if rules is None or rules.kernels is None:
        return
    ops = {d.site.op for d in decisions if d.site.weight and d.site.op not in rules.kernels}
    if not ops or any(d.quantize and d.site.op in ops for d in decisions):
        return
    text = f"{prepared.target.name} has no {kind.name} kernel for {', '.join(sorted(ops))}"
    remedy = f'Write form = "weights" under [half]: they are stored in {kind.name}.'
    code = "usage.no_kernel"
    raise UsageError(code, text, where="half.form", remedy=remedy)
