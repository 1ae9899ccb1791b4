"""Dynamic INT8: ranges are found at run time.

With data, channels are scaled first, and sites that quantizing would ruin stay float.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from onnxq.algorithms.channel_scaling import Scalings
from onnxq.algorithms.dynamic_int8 import (
    alone_requests,
    decide_dynamic,
    input_requests,
    select_dynamic,
)
from onnxq.algorithms.guard import (
    barred_inputs,
    kept_float,
    ruined_sites,
    unseen_beside_damage,
    why_ruined,
)
from onnxq.calibration.cache import load_cached, store
from onnxq.runtime.machine import peak_rss_bytes
from onnxq.stages.calibrate import CalibrationRun, Observer, Stage, choose_scalings, scaled
from onnxq.stages.task import Decided, decided

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxq.algorithms.selection import Selection
    from onnxq.algorithms.static_int8 import Int8Config
    from onnxq.data import DataSource
    from onnxq.stages.prepare import Prepared
    from onnxq.stages.task import Task
    from onnxq.verify.verification import Report

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


def dynamic(task: Task) -> Decided:
    """The plan of dynamic INT8."""
    prepared = task.prepared
    selection = select_dynamic_of(prepared)
    if task.samples is None or not selection.chosen:
        fields = decide_dynamic(prepared.model, _config(prepared, selection))
        return decided(task, prepared, selection, "int8-dynamic", fields)
    start = time.perf_counter()
    observe = Observer(prepared, task.samples, task.report)
    found = _guarded(prepared, observe, made_up=task.data is None)
    fields = decide_dynamic(found.prepared.model, _config(found.prepared, found.selection))
    fields["warnings"] = (*kept_float(selection, found.selection), *found.scalings.warnings)
    if task.data is None:
        return decided(task, found.prepared, found.selection, "int8-dynamic", fields)
    scalings = found.scalings
    arrays = {**fields["arrays"], **scalings.arrays}
    fields |= {"scalings": scalings.entries, "arrays": arrays, "data_digest": task.data.digest()}
    plan = decided(task, found.prepared, found.selection, "int8-dynamic", fields)
    return replace(plan, run=_run(task.data, start, observe))


def select_dynamic_of(prepared: Prepared, kept: Mapping[str, str] = _NOTHING) -> Selection:
    """What dynamic INT8 quantizes.

    Args:
        prepared: The model.
        kept: Sites that stay float beside those of the recipe, with the reason.
    """
    model, sites, target = prepared.model, prepared.sites, prepared.target
    kept = {**unseen_beside_damage(sites), **kept}
    return prepared.sound(lambda both: select_dynamic(model, sites, target, both), kept)


def select_guarded(prepared: Prepared, data: DataSource, report: Report) -> Selection:
    """What dynamic INT8 quantizes after a look at the data."""
    return _guarded(prepared, Observer(prepared, data, report), made_up=False).selection


@dataclass(frozen=True, slots=True)
class _Guarded:
    """A model with scaled channels, and what is quantized of it."""

    prepared: Prepared
    selection: Selection
    scalings: Scalings


def _guarded(prepared: Prepared, observe: Observer, *, made_up: bool) -> _Guarded:
    """Scale channels, and keep float what quantizing would ruin.

    Made-up samples show where NaN and Inf come from, and nothing of channels and errors.
    """
    stage = first = Stage(prepared, load_cached(prepared.digest, observe.data_digest))
    selection = select_dynamic_of(prepared)
    scalings = Scalings()
    inputs = input_requests(selection)
    if made_up or not selection.tensors or prepared.recipe.channel_scaling == "off":
        observe(first, inputs, "calibrate")
    else:
        config = _config(prepared, selection)
        scalings = choose_scalings(first, observe, config, inputs)
    kept = barred_inputs(selection.chosen, first.stats)
    if scalings.entries:
        stage = scaled(first, scalings, observe.data_digest)
    selection = select_dynamic_of(stage.prepared, kept)
    if not made_up:
        requests = alone_requests(stage.prepared.model, _config(stage.prepared, selection))
        observe(stage, requests, "measure sites")
        ruined = ruined_sites(requests, stage.stats)
        kept |= {name: why_ruined(sqnr) for name, sqnr in ruined.items()}
        selection = select_dynamic_of(stage.prepared, kept)
    for known in {id(s): s for s in (first, stage)}.values() if observe.observed else ():
        store(known.stats)
    return _Guarded(stage.prepared, selection, scalings)


def _config(prepared: Prepared, selection: Selection) -> Int8Config:
    return prepared.config(selection, "int8-dynamic")


def _run(data: DataSource, start: float, observe: Observer) -> CalibrationRun:
    return CalibrationRun(
        method="channel scaling",
        chosen="run time",
        samples=len(data),
        seconds=time.perf_counter() - start,
        peak_rss_bytes=peak_rss_bytes(),
        reused=not observe.observed,
    )
