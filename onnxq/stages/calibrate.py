"""Calibrate: observe the model, scale its channels, observe what that changed, choose ranges.

Scaling channels changes no tensor but the scaled ones, so everything else that was observed of the
float model is carried over as it is. Two passes over the data suffice where channels are scaled,
one where they are not; candidates are compared on a few samples.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from onnxq.algorithms import range_choice
from onnxq.algorithms.build_plan import PlanLabels, decide
from onnxq.algorithms.channel_scaling import ChannelScaling, Scalings
from onnxq.algorithms.guard import (
    barred_tensors,
    kept_float,
    ruined_sites,
    too_small,
    why_ruined,
)
from onnxq.algorithms.keep_apart import find_kept_apart, find_uncovered
from onnxq.calibration.cache import load_cached, store
from onnxq.calibration.collect import collect, observed_shapes, unknown
from onnxq.calibration.requests import OutputError
from onnxq.data import limit
from onnxq.graph.edit import node_by_name
from onnxq.graph.sites import find_sites
from onnxq.graph.structure import macs
from onnxq.numerics.metrics import sqnr_db
from onnxq.passes.scale_channels import ScaleChannels
from onnxq.plan import plan_digest
from onnxq.runtime.machine import peak_rss_bytes
from onnxq.stages.trial import trials
from onnxq.verify.structure import level_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnxq.algorithms.build_plan import Rounded
    from onnxq.algorithms.range_choice import Candidate
    from onnxq.algorithms.selection import Selection
    from onnxq.algorithms.static_int8 import Int8Config
    from onnxq.calibration.requests import Half, Request
    from onnxq.calibration.stats import Stats
    from onnxq.data import DataSource
    from onnxq.plan import Plan
    from onnxq.stages.prepare import Prepared
    from onnxq.verify.verification import Report

ERROR_SAMPLES = 32
"""Calibration samples, a seeded choice, on which candidates are compared by output error: of the
site, and of the whole model. The distributions themselves count every sample."""

_TRIAL = PlanLabels("", "int8", "", 0, independent=False)

PER_SITE = "per site"
"""The choice that takes the best method of each site."""


@dataclass(frozen=True, slots=True)
class CalibrationRun:
    """How calibration went.

    Attributes:
        method: The general method of the recipe.
        chosen: What ``auto`` came to: the best of each site, or one method for all.
        samples: How many samples were seen.
        seconds: How long it took.
        peak_rss_bytes: The most memory that this process has held so far.
        reused: Whether all statistics were known from an earlier run.
        notes: What was filled, cut or left out of the data, in sentences.
    """

    method: str
    chosen: str
    samples: int
    seconds: float
    peak_rss_bytes: int
    reused: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A model with scaled channels, and the ranges that were chosen for it.

    Attributes:
        prepared: The scaled model with its sites.
        config: What static INT8 was asked to do; what calibration forbids is kept float.
        chosen: The range of each tensor that has one.
        ruined: Sites that are kept float because quantizing would ruin them, with the SQNR in
            decibels that their output would have.
        stats: What was observed of the scaled model.
        scalings: How channels were scaled.
        run: How calibration went.
    """

    prepared: Prepared
    config: Int8Config
    chosen: Mapping[str, Candidate]
    ruined: Mapping[str, float]
    stats: Stats
    scalings: Scalings
    run: CalibrationRun

    def worst_sites(self, count: int) -> tuple[str, ...]:
        """The sites whose output suffers most from the chosen range of their activation."""
        return self.config.worst_sites(self.stats, self.chosen, count)

    def plan(self, *, independent: bool) -> Plan:
        """The plan; ``independent`` says whether data was kept from calibration."""
        prepared = self.prepared
        labels = prepared.labels(prepared.static, independent=independent)
        plan = decide(prepared.model, self.config, self.chosen, self.stats, labels)
        selection, target = self.config.selection, prepared.target
        entries = (
            *find_kept_apart(prepared.model, selection, target),
            *find_uncovered(prepared.model, plan, selection, target),
        )
        # A residual Add may be both.
        apart = tuple({entry.node: entry for entry in entries}.values())
        decided = {
            "format": "qdq" if prepared.float8 else prepared.recipe.format,
            "scalings": self.scalings.entries,
            "kept_apart": apart,
            "arrays": {**plan.arrays, **self.scalings.arrays},
            "warnings": (
                *kept_float(prepared.select({}), selection),
                *self.scalings.warnings,
                *plan.warnings,
            ),
        }
        return plan.model_copy(update=decided)


@dataclass(frozen=True, slots=True)
class Stage:
    """A model as one stage observes it, and what is known of it.

    Attributes:
        prepared: The model with its sites.
        stats: What was observed.
        rounded: The best scales of its weights, as far as a plan needed them.
    """

    prepared: Prepared
    stats: Stats
    rounded: Rounded = field(default_factory=dict)


class Observer:
    """Collects what is not known yet, and remembers whether anything had to be."""

    def __init__(self, prepared: Prepared, data: DataSource, report: Report) -> None:
        """Observe this model on this data."""
        self.budget = prepared.recipe.calibration.memory_budget
        self.data = data
        self.few = limit(data, ERROR_SAMPLES, seed=prepared.recipe.seed)
        self.halves = _halves(data, prepared.recipe.seed)
        # Candidates are compared on a part of the data that the seed chooses.
        self.data_digest = f"{data.digest()} {self.few.digest()}"
        self.report = report
        self.observed = 0

    def __call__(self, stage: Stage, requests: Sequence[Request], step: str) -> None:
        """Collect those of ``requests`` that the stage does not know yet."""
        missing = unknown(requests, stage.stats)
        if not missing:
            return
        self.observed += len(missing)
        for data, part in self._parts(missing):
            collect(
                stage.prepared.model,
                part,
                data,
                stage.stats,
                budget=self.budget,
                progress=lambda done, total: self.report(step, done, total),
            )

    def _parts(self, requests: Sequence[Request]) -> list[tuple[DataSource, list[Request]]]:
        """Which samples answer which requests."""
        errors = [request for request in requests if isinstance(request, OutputError)]
        if len(errors) < len(requests):
            return [(self.data, list(requests))]
        parts: list[tuple[DataSource, list[Request]]] = [
            (data, [request for request in errors if request.half == half])
            for half, data in ((None, self.few), *self.halves.items())
        ]
        return [(data, part) for data, part in parts if part]

    def best(
        self,
        stage: Stage,
        config: Int8Config,
        options: Mapping[str, Mapping[str, Candidate]],
    ) -> str:
        """The option under which the whole quantized model's output has the least error."""
        if len(options) == 1:
            return next(iter(options))
        known = stage.stats.trials
        plans = {name: _plan(stage, config, chosen) for name, chosen in options.items()}
        keys = {name: plan_digest(plan) for name, plan in plans.items()}
        missing = {keys[name]: plan for name, plan in plans.items() if keys[name] not in known}
        if missing:
            self.observed += len(missing)
            # They are tried on the CPU, whatever they are for.
            level = level_for(stage.prepared.target.name, "cpu")
            with trials(stage.prepared.model, self.few, level) as error:
                for done, (key, plan) in enumerate(missing.items(), start=1):
                    known[key] = error(plan)
                    self.report("compare choices", done, len(missing))
        return min(options, key=lambda name: known[keys[name]])


def _halves(data: DataSource, seed: int) -> dict[Half, DataSource]:
    """At most :data:`ERROR_SAMPLES` in all, of the first and the second half of the samples.

    Empty for a single sample.
    """
    middle = (len(data) + 1) // 2
    if middle == len(data):
        return {}
    first, second = data.subset(range(middle)), data.subset(range(middle, len(data)))
    count = ERROR_SAMPLES // 2
    return {0: limit(first, count, seed=seed), 1: limit(second, count, seed=seed)}


def calibrate(prepared: Prepared, data: DataSource, report: Report) -> Calibrated:
    """Observe a model on all of ``data``, scale its channels and choose its ranges."""
    start = time.perf_counter()
    observe = Observer(prepared, data, report)
    first = Stage(prepared, load_cached(prepared.digest, observe.data_digest))
    scalings = _choose_scalings(first, observe)
    second = scaled(first, scalings, observe.data_digest) if scalings.entries else first
    choice = _choose_ranges(second, observe)
    if observe.observed:
        store(first.stats)
        if scalings.entries:
            store(second.stats)
    run = CalibrationRun(
        method=prepared.recipe.calibration.method,
        chosen=choice.best,
        samples=len(data),
        seconds=time.perf_counter() - start,
        peak_rss_bytes=peak_rss_bytes(),
        reused=not observe.observed,
    )
    return Calibrated(
        prepared=second.prepared,
        config=choice.config,
        chosen=choice.chosen,
        ruined=choice.ruined,
        stats=second.stats,
        scalings=scalings,
        run=run,
    )


@dataclass(frozen=True, slots=True)
class MeasuredSites:
    """What calibration says of each site.

    Attributes:
        selection: What would be quantized.
        sqnr_db: SQNR in decibels of each site's output when it alone is quantized, by name; of
            those too that stay float because of it.
    """

    selection: Selection
    sqnr_db: Mapping[str, float]


def measure_sites(prepared: Prepared, data: DataSource, report: Report) -> MeasuredSites:
    """Decide what is quantized, and measure each site when it alone is."""
    found = calibrate(prepared, data, report)
    stage = Stage(found.prepared, found.stats)
    observe = Observer(found.prepared, data, report)
    errors = dict(found.ruined)
    for request in _alone(stage, observe, found.config, found.chosen):
        error = found.stats.sites[request.site]
        errors[request.site] = sqnr_db(error.signal, error.noise[request.label])
    return MeasuredSites(found.config.selection, errors)


def observed_macs(prepared: Prepared, data: DataSource | None) -> dict[str, int]:
    """Multiply-accumulates of each site in a run of the first sample, or by declared shapes."""
    if data is None:
        return {site.name: site.macs for site in prepared.sites if site.macs is not None}
    nodes = node_by_name(prepared.model.graph)
    sites = [site for site in prepared.sites if site.activation and site.name in nodes]
    tensors = dict.fromkeys(
        value.name
        for site in sites
        for value in (*nodes[site.name].inputs, nodes[site.name].outputs[0])
        if value is not None and value.name and not value.is_initializer()
    )
    if not tensors:
        return {}
    shapes = observed_shapes(prepared.model, list(tensors), next(iter(data)))
    counts = {site.name: macs(nodes[site.name], shapes) for site in sites}
    return {name: count for name, count in counts.items() if count is not None}


def _choose_scalings(stage: Stage, observe: Observer) -> Scalings:
    # In FP8 every octave has the same steps: channels of different size lose nothing side by side.
    if stage.prepared.recipe.channel_scaling == "off" or stage.prepared.float8:
        return Scalings()
    config = stage.prepared.config(stage.prepared.select({}))
    # The distributions are wanted in any case: one pass over the data observes both.
    return choose_scalings(stage, observe, config, config.requests())


def choose_scalings(
    stage: Stage, observe: Observer, config: Int8Config, more: Sequence[Request] = ()
) -> Scalings:
    """How channels are scaled best.

    Args:
        stage: The model as it is.
        observe: What collects statistics.
        config: What is quantized, and to which integers.
        more: What else is to be observed in the same pass over the data.
    """
    scaling = ChannelScaling(stage.prepared.model, config)
    observe(stage, [*scaling.requests(), *more], "calibrate")
    observe(stage, scaling.error_requests(stage.stats), "scale channels")
    return scaling.choose(stage.stats)


def scaled(stage: Stage, scalings: Scalings, data_digest: str) -> Stage:
    """The model with its channels scaled; its sites keep their names, its weights do not."""
    entries, arrays = scalings.entries, scalings.arrays
    model = ScaleChannels(entries, arrays)(stage.prepared.model.clone()).model
    key = hashlib.sha256(stage.prepared.digest.encode())
    for entry in entries:
        key.update(entry.model_dump_json().encode())
    for name, factor in sorted(arrays.items()):
        key.update(name.encode() + factor.tobytes())
    stats = load_cached(f"sha256:{key.hexdigest()}", data_digest)
    changed = {name for entry in entries for name in (entry.tensor, *entry.between)}
    for name, tensor in stage.stats.tensors.items():
        if name not in changed:
            stats.tensors.setdefault(name, tensor)
    prepared = replace(stage.prepared, model=model, sites=find_sites(model))
    return Stage(prepared, stats)


@dataclass(frozen=True, slots=True)
class _Choice:
    """What is quantized, how, and what would have been ruined."""

    config: Int8Config
    chosen: Mapping[str, Candidate]
    best: str
    ruined: Mapping[str, float]


def _choose_ranges(stage: Stage, observe: Observer) -> _Choice:
    prepared, stats = stage.prepared, stage.stats
    kept = too_small(prepared.model, prepared.select({}))
    barred: dict[str, str] = {}
    ruined: dict[str, float] = {}
    while True:
        config = _observed(stage, observe, kept, barred)
        candidates = config.candidates(stats)
        observe(stage, config.error_requests(candidates), "choose ranges")
        options = {PER_SITE: config.choose(stats, candidates)}
        best = PER_SITE
        more = ruined_sites(_alone(stage, observe, config, options[best]), stats)
        if not more and any(len(found) > 1 for found in candidates.values()):
            options |= range_choice.uniform(candidates)
            best = observe.best(stage, config, options)
            more = ruined_sites(_alone(stage, observe, config, options[best]), stats)
        if not more:
            break
        # Fewer tensors are quantized now; what was measured of the others stays known.
        ruined |= more
        kept |= {name: why_ruined(sqnr) for name, sqnr in more.items()}
    return _Choice(config, options[best], best, ruined)


def _observed(
    stage: Stage, observe: Observer, kept: Mapping[str, str], barred: dict[str, str]
) -> Int8Config:
    """What is quantized when nothing is that cannot be; ``barred`` is added to."""
    prepared = stage.prepared
    while True:
        config = prepared.config(prepared.select(kept, barred))
        observe(stage, config.requests(), "calibrate")
        found = barred_tensors(prepared.model, config.selection, stage.stats)
        if found.keys() <= barred.keys():
            return config
        barred |= found


def _alone(
    stage: Stage, observe: Observer, config: Int8Config, chosen: Mapping[str, Candidate]
) -> list[OutputError]:
    """Measure each site when it alone is quantized, with the scales that the plan would write."""
    plan = _plan(stage, config, chosen)
    requests = config.alone_requests(stage.prepared.model, chosen, plan.arrays)
    observe(stage, requests, "measure sites")
    return requests


def _plan(stage: Stage, config: Int8Config, chosen: Mapping[str, Candidate]) -> Plan:
    """A plan to try, which says nothing of itself."""
    return decide(stage.prepared.model, config, chosen, stage.stats, _TRIAL, stage.rounded)
