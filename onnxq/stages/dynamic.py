"""Dynamic INT8: with data, channels are scaled first; ranges are found at run time."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from onnxq.algorithms.dynamic_int8 import decide_dynamic, select_dynamic
from onnxq.calibration.cache import load_cached, store
from onnxq.runtime.machine import peak_rss_bytes
from onnxq.stages.calibrate import CalibrationRun, Observer, Stage, choose_scalings, scaled
from onnxq.stages.task import Decided, decided

if TYPE_CHECKING:
    from onnxq.algorithms.selection import Selection
    from onnxq.algorithms.static_int8 import StaticInt8
    from onnxq.data import DataSource
    from onnxq.stages.prepare import Prepared
    from onnxq.stages.task import Task


def dynamic(task: Task) -> Decided:
    """The plan of dynamic INT8."""
    prepared = task.prepared
    selection = select_dynamic_of(prepared)
    if task.data is None or not selection.tensors or prepared.recipe.channel_scaling == "off":
        fields = decide_dynamic(prepared.model, _config(prepared, selection))
        return decided(task, prepared, selection, "int8-dynamic", fields)
    start = time.perf_counter()
    observe = Observer(prepared, task.data, task.report)
    first = Stage(prepared, load_cached(prepared.digest, observe.data_digest))
    entries, factors = choose_scalings(first, observe, _config(prepared, selection))
    if observe.observed:
        store(first.stats)
    if entries:
        prepared = scaled(first, entries, factors, observe.data_digest).prepared
        selection = select_dynamic_of(prepared)
    fields = decide_dynamic(prepared.model, _config(prepared, selection))
    arrays = {**fields["arrays"], **factors}
    fields |= {"scalings": entries, "arrays": arrays, "data_digest": task.data.digest()}
    found = decided(task, prepared, selection, "int8-dynamic", fields)
    return replace(found, run=_run(task.data, start, observe))


def select_dynamic_of(prepared: Prepared) -> Selection:
    """What dynamic INT8 quantizes."""
    return select_dynamic(prepared.model, prepared.sites, prepared.target, prepared.kept())


def _config(prepared: Prepared, selection: Selection) -> StaticInt8:
    return replace(prepared.config(selection), ranges="run time")


def _run(data: DataSource, start: float, observe: Observer) -> CalibrationRun:
    return CalibrationRun(
        method="channel scaling",
        chosen="run time",
        samples=len(data),
        seconds=time.perf_counter() - start,
        peak_rss_bytes=peak_rss_bytes(),
        reused=not observe.observed,
    )
