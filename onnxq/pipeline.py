"""The public API, readable top to bottom: quantize, calibrate, apply, inspect.

A model path is loaded and normalized, its sites are found, the data streams through ONNX Runtime,
statistics become a plan, passes execute the plan, and the result is verified before it is put in
place. Every function refuses with one of :mod:`onnxq.errors` and leaves nothing half-written.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnxq._version import __version__
from onnxq.algorithms.channel_scaling import ChannelScaling
from onnxq.algorithms.selection import Decision, Selection, select
from onnxq.algorithms.static_int8 import (
    PlanLabels,
    StaticInt8,
    decide,
    site_entries,
    without_nan,
    worst_sites,
)
from onnxq.algorithms.weight_statistics import WeightStatistics, describe_weight
from onnxq.calibration.cache import load_cached, store
from onnxq.calibration.collect import collect, observed_shapes, unknown
from onnxq.calibration.requests import OutputError
from onnxq.calibration.stats import Stats, save_stats
from onnxq.data import DataLike, DataSource, Labels, Split, held_out, limit, load_labels, open_data
from onnxq.errors import InternalError, ModelError, UsageError
from onnxq.graph.edit import constant_array, node_by_name
from onnxq.graph.io import digest, load, publish, save
from onnxq.graph.normalize import NormalizeResult, normalize
from onnxq.graph.opset import raise_opset
from onnxq.graph.sites import Site, find_already_quantized, find_sites
from onnxq.graph.structure import Summary, macs, signature, summary
from onnxq.numerics.metrics import sqnr_db
from onnxq.passes.execute import execute
from onnxq.passes.scale_channels import ScaleChannels
from onnxq.plan import Plan, ScalingEntry, check_digest, load_plan, save_plan
from onnxq.recipe import Recipe, RuleOutcome
from onnxq.runtime.machine import inspect_machine, peak_rss_bytes
from onnxq.runtime.timing import TimingSettings
from onnxq.targets import Target, load_target, weight_scheme
from onnxq.verify.structure import check_structure
from onnxq.verify.verification import Evidence, Verification, verify

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    import onnx_ir as ir

    from onnxq.algorithms.range_choice import Candidate
    from onnxq.calibration.requests import Request
    from onnxq.verify.kernels import KernelReport

_ERROR_SAMPLES = 32
"""Calibration samples, a seeded choice, on which candidates are compared by output error. The
distributions themselves count every sample."""

_LOW_SQNR = 10.0
"""Below this many decibels the user is warned: noise above a tenth of the signal."""

_AS_FAST = 0.97
"""From this ratio on, a model counts as at least as fast."""

Report = Callable[[str, int, int], None]
"""Called with the name of a step, how much of it is done, and all of it."""


def _quiet(step: str, done: int, total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What is asked of one run beside the recipe.

    Attributes:
        eval_data: Data to compare on; without it a part of the calibration data is held out.
        labels: A file with the right class of each row of the evaluation data.
        min_sqnr: Least SQNR in decibels that the result must reach.
        allow_miss: Write the result even where it misses a bound.
        plan_out: Folder to write the plan to.
        timing: How to time the result; None leaves timing out.
        report: Told of progress.
    """

    eval_data: DataLike | None = None
    labels: Path | None = None
    min_sqnr: float | None = None
    allow_miss: bool = False
    plan_out: Path | None = None
    timing: TimingSettings | None = field(default_factory=TimingSettings)
    report: Report = _quiet


@dataclass(frozen=True, slots=True)
class CalibrationRun:
    """How calibration went.

    Attributes:
        method: The general method of the recipe.
        samples: How many samples were seen.
        seconds: How long it took.
        peak_rss_bytes: The most memory that this process has held so far.
        reused: Whether all statistics were known from an earlier run.
    """

    method: str
    samples: int
    seconds: float
    peak_rss_bytes: int
    reused: bool


@dataclass(frozen=True, slots=True)
class QuantizeResult:
    """What ``quantize`` did.

    Attributes:
        output: The file that was written; None if a bound was missed.
        scheme: The scheme that was used.
        scheme_reason: Why, in a sentence.
        target: What the model was quantized for.
        plan: What was decided.
        verification: What was measured; None where there was nothing to quantize.
        calibration: How calibration went; None where there was nothing to quantize.
        warnings: What the user should know.
        missed: The bound that was missed; empty if none was.
    """

    output: Path | None
    scheme: str
    scheme_reason: str
    target: str
    plan: Plan
    verification: Verification | None
    calibration: CalibrationRun | None
    warnings: tuple[str, ...]
    missed: str = ""


@dataclass(frozen=True, slots=True)
class InspectedSite:
    """One site, as ``inspect`` shows it.

    Attributes:
        name: The node's name.
        op: Its operator.
        decision: ``int8`` or ``float``.
        reason: Why it stays float; empty if it does not.
        macs: Multiply-accumulates, where static shapes tell.
        weight: What its weight looks like; None without a weight.
        sqnr_db: SQNR of its output when it alone is quantized; None without data.
    """

    name: str
    op: str
    decision: str
    reason: str
    macs: int | None
    weight: WeightStatistics | None
    sqnr_db: float | None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What ``inspect`` found.

    Attributes:
        summary: Operators, parameters, inputs, outputs.
        quantized_form: What kind of quantized model it is already; None for a float model.
        notes: What normalizing could not do or had to change.
        sites: Every site, in the order of the graph.
    """

    summary: Summary
    quantized_form: str | None
    notes: tuple[str, ...]
    sites: tuple[InspectedSite, ...]


def quantize(
    model: str | Path,
    data: DataLike,
    output: str | Path,
    *,
    recipe: Recipe | None = None,
    target: str | None = None,
    options: RunOptions = RunOptions(),
) -> QuantizeResult:
    """Quantize a model and prove that the result is right, smaller and faster.

    Args:
        model: The float model.
        data: Calibration data: a path, or an iterable of dicts from input name to array.
        output: The file to write. It is replaced only by a verified model.
        recipe: What is wanted; the default recipe if left out.
        target: What the model will run on; overrides the recipe's.
        options: Evaluation data, bounds, timing, progress.

    Returns:
        What was decided and measured.

    Raises:
        OnnxqError: With its own class for each kind of refusal; nothing is then written.
    """
    recipe = _with_target(recipe, target)
    source, output = Path(model), Path(output)
    prepared = _prepare(source, recipe)
    selection = prepared.select({})
    if not selection.chosen:
        return _unchanged(prepared, selection, output)
    split, labels = _open(prepared, data, options)
    found = _calibrate(prepared, split.calibration, options.report)
    plan = _plan(found, split)
    evidence = Evidence(
        data=split.evaluation,
        independent=split.independent,
        labels=labels,
        macs=_observed_macs(prepared, split.evaluation),
        provider=recipe.target,
        timing=options.timing,
    )
    with staging(output) as staged:
        save(execute(plan, prepared.model), staged)
        verification = verify(source, staged, plan, evidence, options.report)
        missed = _missed_bound(verification, options)
        if not missed or options.allow_miss:
            publish(staged, output)
    if options.plan_out is not None:
        save_plan(plan, options.plan_out)
    return QuantizeResult(
        output=output if not missed or options.allow_miss else None,
        scheme=plan.scheme,
        scheme_reason=_scheme_reason(recipe),
        target=recipe.target,
        plan=plan,
        verification=verification,
        calibration=found.run,
        warnings=(*prepared.notes, *plan.warnings, *_warnings(verification, found.stats)),
        missed=missed,
    )


def calibrate(
    model: str | Path,
    data: DataLike,
    output: str | Path,
    *,
    recipe: Recipe | None = None,
    target: str | None = None,
    report: Report = _quiet,
) -> CalibrationRun:
    """Collect the statistics that quantizing would need, and write them to ``output``.

    Args:
        model: The float model.
        data: Calibration data; all of it is used.
        output: The file of statistics to write.
        recipe: What is wanted; the default recipe if left out.
        target: What the model will run on; overrides the recipe's.
        report: Told of progress.

    Raises:
        OnnxqError: As :func:`quantize`.
    """
    prepared = _prepare(Path(model), _with_target(recipe, target))
    source = open_data(data, signature(prepared.model))
    source = limit(source, prepared.recipe.calibration.samples, seed=prepared.recipe.seed)
    found = _calibrate(prepared, source, report)
    save_stats(found.stats, Path(output))
    return found.run


def apply(model: str | Path, plan: str | Path, output: str | Path) -> Plan:
    """Execute a plan: the same model and plan give the same bytes, without data.

    Args:
        model: The float model that the plan was made for.
        plan: The folder that ``quantize`` wrote the plan to.
        output: The file to write.

    Raises:
        PlanError: The plan is damaged or was made for another model.
    """
    decided = load_plan(Path(plan))
    loaded = load(model)
    check_digest(decided, digest(loaded), str(model))
    normalized = _normalized(loaded, decided.minimum_opset).model
    with staging(Path(output)) as staged:
        save(execute(decided, normalized), staged)
        check_structure(staged)
        publish(staged, Path(output))
    return decided


def inspect(
    model: str | Path,
    data: DataLike | None = None,
    *,
    recipe: Recipe | None = None,
    target: str | None = None,
    report: Report = _quiet,
) -> Inspection:
    """Show a model's structure, its sites and why each can or cannot be quantized.

    Args:
        model: Any ONNX model, a quantized one too.
        data: With data, each site's error when it alone is quantized is measured.
        recipe: What is wanted; the default recipe if left out.
        target: What the model will run on; overrides the recipe's.
        report: Told of progress.

    Raises:
        OnnxqError: As :func:`quantize`.
    """
    recipe = _with_target(recipe, target)
    loaded = load(model)
    form = find_already_quantized(loaded)
    prepared = _prepared(Path(model), loaded, recipe)
    selection = prepared.select({})
    errors: dict[str, float] = {}
    if data is not None:
        source = open_data(data, signature(prepared.model))
        source = limit(source, recipe.calibration.samples, seed=recipe.seed)
        errors = _site_errors(prepared, source, report)
    sites = tuple(_inspected(prepared, decision, errors) for decision in selection.decisions)
    return Inspection(summary(loaded), form, prepared.notes, sites)


# What the functions above are made of, in the order of their use.


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A model made ready: normalized, its sites found, the recipe's rules resolved."""

    source: Path
    model: ir.Model
    digest: str
    notes: tuple[str, ...]
    sites: tuple[Site, ...]
    target: Target
    recipe: Recipe
    outcomes: Mapping[str, RuleOutcome]

    def select(self, more_float: Mapping[str, str]) -> Selection:
        """Choose what is quantized; ``more_float`` are sites to keep, with the reason."""
        kept = {name: rule.reason for name, rule in self.outcomes.items() if rule.keep_float}
        return select(self.model, self.sites, self.target, {**kept, **more_float})

    def config(self, selection: Selection) -> StaticInt8:
        """What static INT8 is asked to do."""
        weight = weight_scheme(self.target, inspect_machine()).scheme
        calibration = self.recipe.calibration
        return StaticInt8(selection, self.target.activation, weight, calibration, self.outcomes)


@dataclass(frozen=True, slots=True)
class _Calibrated:
    """A model with scaled channels, and the ranges that were chosen for it."""

    prepared: _Prepared
    config: StaticInt8
    chosen: Mapping[str, Candidate]
    stats: Stats
    scalings: tuple[ScalingEntry, ...]
    arrays: Mapping[str, np.ndarray]
    run: CalibrationRun


def _with_target(recipe: Recipe | None, target: str | None) -> Recipe:
    recipe = recipe or Recipe()
    return recipe if target is None else recipe.model_copy(update={"target": target})


def _prepare(source: Path, recipe: Recipe) -> _Prepared:
    loaded = load(source)
    form = find_already_quantized(loaded)
    if form is not None:
        code, text = "model.quantized", f"the model is quantized already ({form})"
        remedy = "give the float model it was made from"
        raise ModelError(code, text, where=str(source), remedy=remedy)
    return _prepared(source, loaded, recipe)


def _prepared(source: Path, loaded: ir.Model, recipe: Recipe) -> _Prepared:
    target = load_target(recipe.target)
    normalized = _normalized(loaded, target.min_opset)
    narrow = weight_scheme(target, inspect_machine()).reason
    sites = find_sites(normalized.model)
    outcomes = recipe.resolve([(site.name, site.op) for site in sites])
    return _Prepared(
        source=source,
        model=normalized.model,
        digest=digest(loaded),
        notes=(*normalized.notes, *([narrow] if narrow else [])),
        sites=sites,
        target=target,
        recipe=recipe,
        outcomes={site.name: rule for site, rule in zip(sites, outcomes, strict=True)},
    )


def _normalized(loaded: ir.Model, minimum_opset: int) -> NormalizeResult:
    return normalize(raise_opset(loaded, minimum_opset))


def _open(prepared: _Prepared, data: DataLike, options: RunOptions) -> tuple[Split, Labels | None]:
    recipe, wanted = prepared.recipe, signature(prepared.model)
    source = open_data(data, wanted)
    if options.eval_data is None:
        split = held_out(source, fraction=recipe.eval_fraction, seed=recipe.seed)
        labelled, labels = source, load_labels(data, options.labels)
    else:
        labelled = open_data(options.eval_data, wanted)
        split = Split(source, labelled, independent=True)
        labels = load_labels(options.eval_data, options.labels)
    calibration = limit(split.calibration, recipe.calibration.samples, seed=recipe.seed)
    aligned = None if labels is None else Labels.align(labels, labelled)
    return Split(calibration, split.evaluation, split.independent), aligned


class _Observer:
    """Collects what is not known yet, and remembers whether anything had to be."""

    def __init__(self, prepared: _Prepared, data: DataSource, report: Report) -> None:
        self.prepared = prepared
        self.data = data
        self.few = limit(data, _ERROR_SAMPLES, seed=prepared.recipe.seed)
        self.report = report
        self.observed = 0

    def __call__(self, stage: _Stage, requests: Sequence[Request], step: str) -> None:
        missing = unknown(requests, stage.stats)
        self.observed += len(missing)
        errors_only = all(isinstance(request, OutputError) for request in missing)
        collect(
            stage.prepared.model,
            missing,
            self.few if errors_only else self.data,
            stage.stats,
            budget=self.prepared.recipe.calibration.memory_budget,
            progress=lambda done, total: self.report(step, done, total),
        )


@dataclass(frozen=True, slots=True)
class _Stage:
    """A model as one stage observes it, and what is known of it."""

    prepared: _Prepared
    stats: Stats


def _calibrate(prepared: _Prepared, data: DataSource, report: Report) -> _Calibrated:
    """Scale channels, then collect statistics of the scaled model and choose ranges."""
    start = time.perf_counter()
    observe = _Observer(prepared, data, report)
    first = _Stage(prepared, load_cached(prepared.digest, data.digest()))
    scalings, arrays = _choose_scalings(first, observe)
    second = first if not scalings else _scaled(first, scalings, arrays, data)
    config, chosen = _choose_ranges(second, observe)
    if observe.observed:
        store(first.stats)
        store(second.stats)
    run = CalibrationRun(
        method=prepared.recipe.calibration.method,
        samples=len(data),
        seconds=time.perf_counter() - start,
        peak_rss_bytes=peak_rss_bytes(),
        reused=not observe.observed,
    )
    return _Calibrated(second.prepared, config, chosen, second.stats, scalings, arrays, run)


def _choose_scalings(
    stage: _Stage, observe: _Observer
) -> tuple[tuple[ScalingEntry, ...], dict[str, np.ndarray]]:
    if stage.prepared.recipe.channel_scaling == "off":
        return (), {}
    config = stage.prepared.config(stage.prepared.select({}))
    scaling = ChannelScaling(stage.prepared.model, config)
    observe(stage, scaling.requests(), "observe channels")
    observe(stage, scaling.error_requests(stage.stats), "scale channels")
    return scaling.choose(stage.stats)


def _scaled(
    stage: _Stage,
    scalings: tuple[ScalingEntry, ...],
    arrays: Mapping[str, np.ndarray],
    data: DataSource,
) -> _Stage:
    """The model with its channels scaled; its sites keep their names, its weights do not."""
    model = ScaleChannels(scalings, arrays)(stage.prepared.model.clone()).model
    key = hashlib.sha256(stage.prepared.digest.encode())
    for name, factor in sorted(arrays.items()):
        key.update(name.encode() + factor.tobytes())
    scaled_digest = f"sha256:{key.hexdigest()}"
    prepared = replace(stage.prepared, model=model, sites=find_sites(model))
    return _Stage(prepared, load_cached(scaled_digest, data.digest()))


def _choose_ranges(stage: _Stage, observe: _Observer) -> tuple[StaticInt8, dict[str, Candidate]]:
    """Collect distributions and choose ranges; sites that would read NaN are kept float."""
    prepared, stats = stage.prepared, stage.stats
    config = prepared.config(prepared.select({}))
    observe(stage, config.requests(), "calibrate")
    spoilt = without_nan(config.selection, stats)
    if spoilt:
        config = prepared.config(prepared.select(spoilt))
        observe(stage, config.requests(), "calibrate")
    candidates = config.candidates(stats)
    observe(stage, config.error_requests(candidates), "choose ranges")
    return config, config.choose(stats, candidates)


def _plan(found: _Calibrated, split: Split) -> Plan:
    prepared = found.prepared
    labels = PlanLabels(
        model_digest=prepared.digest,
        scheme="int8",
        target=prepared.recipe.target,
        minimum_opset=prepared.target.min_opset,
        independent=split.independent,
    )
    plan = decide(prepared.model, found.config, found.chosen, found.stats, labels)
    arrays = {**plan.arrays, **found.arrays}
    return plan.model_copy(update={"scalings": found.scalings, "arrays": arrays})


def _observed_macs(prepared: _Prepared, data: DataSource) -> dict[str, int]:
    """Multiply-accumulates of each site in a real run of the first sample."""
    nodes = node_by_name(prepared.model.graph)
    sites = [site for site in prepared.sites if site.activation and site.name in nodes]
    tensors = dict.fromkeys(name for s in sites for name in (s.activation or "", s.output))
    shapes = observed_shapes(prepared.model, list(tensors), next(iter(data)))
    counts = {site.name: macs(nodes[site.name], shapes) for site in sites}
    return {name: count for name, count in counts.items() if count is not None}


@contextmanager
def staging(output: Path) -> Iterator[Path]:
    """A private folder beside ``output`` and in it the path to write to; gone afterwards."""
    if not output.absolute().parent.is_dir():
        code, text = "usage.no_folder", "the folder to write to does not exist"
        raise UsageError(code, text, where=str(output), remedy="create it first")
    with tempfile.TemporaryDirectory(prefix=".onnxq-", dir=output.absolute().parent) as folder:
        yield Path(folder) / output.name


def _unchanged(prepared: _Prepared, selection: Selection, output: Path) -> QuantizeResult:
    """Write the model as it is: there is nothing to quantize."""
    save(load(prepared.source), output)
    reasons = Counter(d.reason for d in selection.decisions)
    why = "; ".join(f"{reason} ({n})" for reason, n in reasons.most_common(3))
    warning = f"nothing was quantized, the model is written unchanged: {why or 'it has no site'}"
    plan = Plan(
        onnxq_version=__version__,
        model_digest=prepared.digest,
        data_digest="",
        scheme="float",
        target=prepared.recipe.target,
        minimum_opset=prepared.target.min_opset,
        independent=False,
        sites=site_entries(selection),
    )
    return QuantizeResult(
        output=output,
        scheme="float",
        scheme_reason="no site can be quantized",
        target=prepared.recipe.target,
        plan=plan,
        verification=None,
        calibration=None,
        warnings=(*prepared.notes, warning),
    )


def _missed_bound(verification: Verification, options: RunOptions) -> str:
    found = verification.fidelity
    if found.not_finite:
        code = "verify.not_finite"
        text = f"the quantized model gives NaN or Inf in {', '.join(found.not_finite)}"
        remedy = "`onnxq inspect MODEL --data DATA` shows which site; exclude it"
        raise InternalError(code, text, remedy=remedy)
    if options.min_sqnr is not None and found.sqnr_db < options.min_sqnr:
        return f"SQNR {found.sqnr_db:.2f} dB is below the {options.min_sqnr:g} dB asked for"
    return ""


def _scheme_reason(recipe: Recipe) -> str:
    if recipe.scheme != "auto":
        return "asked for"
    return "static INT8: calibration data was given and the target has integer kernels"


def _warnings(verification: Verification, stats: Stats) -> list[str]:
    fidelity, kernels, latency = (
        verification.fidelity,
        verification.kernels,
        verification.latency,
    )
    texts = []
    if not fidelity.independent:
        texts.append("not independently verified: there was one sample, and calibration saw it")
    if fidelity.sqnr_db < _LOW_SQNR:
        worst = ", ".join(worst_sites(stats, 3))
        texts.append(
            f"low accuracy: {fidelity.sqnr_db:.1f} dB SQNR"
            + (f"; the activations that cost most are those of {worst}" if worst else "")
            + "; `onnxq inspect MODEL --data DATA` lists every site's error"
        )
    if kernels.missed:
        named = ", ".join(kernels.missed[:5])
        texts.append(
            f"{len(kernels.missed)} of {kernels.planned} planned sites run in float: {named}"
        )
    if latency is not None and latency.ratio.median < _AS_FAST:
        texts.append(_why_slow(kernels, latency.ratio.median))
    return texts


def _why_slow(kernels: KernelReport, ratio: float) -> str:
    text = f"slower than float: {ratio:.2f} times its speed"
    if kernels.missed:
        return f"{text}; the cause is the sites that run in float behind Q/DQ pairs, named above"
    return (
        f"{text}, though all {kernels.integer} planned sites run in integer kernels; the model is "
        "too small for them to outweigh the cost of quantizing its activations"
    )


def _site_errors(prepared: _Prepared, data: DataSource, report: Report) -> dict[str, float]:
    """SQNR in decibels of each site's output when it alone is quantized."""
    found = _calibrate(prepared, data, report)
    scaled = found.prepared
    stage = _Stage(scaled, Stats(scaled.digest, data.digest()))
    requests = found.config.alone_requests(scaled.model, found.chosen)
    _Observer(scaled, data, report)(stage, requests, "measure sites")
    return {
        name: sqnr_db(error.signal, next(iter(error.noise.values())))
        for name, error in stage.stats.sites.items()
    }


def _inspected(
    prepared: _Prepared, decision: Decision, errors: Mapping[str, float]
) -> InspectedSite:
    site = decision.site
    weight = prepared.model.graph.initializers.get(site.weight or "")
    array = None if weight is None else constant_array(weight)
    return InspectedSite(
        name=site.name,
        op=site.op,
        decision="int8" if decision.quantize else "float",
        reason=decision.reason,
        macs=site.macs,
        weight=None if array is None else describe_weight(array, site.weight_axis),
        sqnr_db=errors.get(site.name),
    )
