"""The public API, readable top to bottom: quantize, calibrate, apply, inspect.

A model path is loaded and normalized, its sites are found, the data streams through ONNX Runtime,
statistics become a plan, passes execute the plan, and the result is verified before it is put in
place. Every function refuses with one of :mod:`onnxq.errors` and leaves nothing half-written.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnxq.algorithms.scheme_choice import left_out
from onnxq.algorithms.weight_statistics import WeightStatistics, describe_weight
from onnxq.calibration.stats import save_stats
from onnxq.errors import InternalError, ModelError, UsageError
from onnxq.graph.edit import constant_array
from onnxq.graph.external import external_files
from onnxq.graph.io import check_output, digest, file_bytes, load, save, staging
from onnxq.graph.parts import KEY as BUNDLE_KEY
from onnxq.graph.quantized import find_already_quantized
from onnxq.graph.structure import Summary, summary
from onnxq.numerics.half import HALF_TYPES
from onnxq.passes.execute import execute
from onnxq.passes.stamp import PREFIX, metadata
from onnxq.passes.to_qoperator import kept_in_pairs
from onnxq.plan import Plan, check_digest, check_plan_folder, load_plan, save_plan
from onnxq.recipe import Recipe, stores_blocks
from onnxq.runtime.engine_cache import of_models
from onnxq.runtime.provider_options import default_options
from onnxq.runtime.start import stand_in
from onnxq.runtime.timing import TimingSettings
from onnxq.stages import judge
from onnxq.stages.bundled import BundlePart, Opened, opened
from onnxq.stages.calibrate import CalibrationRun, observed_macs
from onnxq.stages.calibrate import calibrate as run_calibration
from onnxq.stages.learn import learn_types
from onnxq.stages.obstacles import obstacles
from onnxq.stages.prepare import (
    Prepared,
    check_survives_here,
    make_ready,
    normalized_for,
    prepare,
    untriable,
)
from onnxq.stages.provenance import with_measured, with_origin
from onnxq.stages.recipe_context import engine_remark, sessions_as_in
from onnxq.stages.samples import open_calibration, open_samples
from onnxq.stages.schemes import Measured, decide_plan, measured_selection, selection_for
from onnxq.stages.shape_profile import NO_PROFILE, ShapeProfile
from onnxq.stages.task import Decided, Task
from onnxq.targets import load_target
from onnxq.verify.structure import check_structure, level_for
from onnxq.verify.survival import check_survives
from onnxq.verify.verification import Evidence, Report, Verification, verify

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from onnxq.algorithms.scheme_choice import Trial
    from onnxq.algorithms.selection import Decision
    from onnxq.data import DataLike
    from onnxq.stages.samples import Samples
    from onnxq.targets import Target

__all__ = [
    "BundlePart",
    "CalibrationRun",
    "InspectedSite",
    "Inspection",
    "QuantizeResult",
    "Report",
    "RunOptions",
    "apply",
    "calibrate",
    "inspect",
    "quantize",
]


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
        trials: What was measured to choose among schemes or forms; empty without a choice.
        missed: The bound that was missed; empty if none was.
        left_alone: Sites of a bundle's pre- and postprocessing.
        shape_profile: Of TensorRT as the target: the shapes of the samples, which it is told of.
    """

    output: Path | None
    scheme: str
    scheme_reason: str
    target: str
    plan: Plan
    verification: Verification | None
    calibration: CalibrationRun | None
    warnings: tuple[str, ...]
    trials: tuple[Trial, ...] = ()
    missed: str = ""
    left_alone: tuple[InspectedSite, ...] = ()
    shape_profile: ShapeProfile = NO_PROFILE


@dataclass(frozen=True, slots=True)
class InspectedSite:
    """One site, as ``inspect`` shows it.

    Attributes:
        name: The node's name.
        op: Its operator.
        decision: ``int8``, ``int8-dynamic``, ``int8-weights``, ``fp8``, ``int4``, ``uint4``,
            ``int2``, ``float16``, ``bfloat16`` or ``float``.
        reason: Why it stays float; empty if it does not.
        macs: Multiply-accumulates in a run of the first sample, or as static shapes tell.
        weight: What its weight looks like; None without a weight.
        sqnr_db: SQNR of its output when it alone is quantized; None without data.
        held_out: The same on tokens that were held out, under all that was tried for a weight in
            blocks, by algorithm, integers and block; empty for others.
        chosen: The best of these, which ``sqnr_db`` is of.
        exponent: That of AWQ's scaling of its input channels; None where they are not scaled.
        scaling: ``folded``, ``a Mul: REASON``, ``none: REASON``, or empty where nothing asks for
            it.
    """

    name: str
    op: str
    decision: str
    reason: str
    macs: int | None
    weight: WeightStatistics | None
    sqnr_db: float | None
    held_out: Mapping[str, float] = field(default_factory=dict)
    chosen: str = ""
    exponent: float | None = None
    scaling: str = ""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What ``inspect`` found.

    Attributes:
        summary: Operators, parameters, inputs, outputs.
        quantized_form: What kind of quantized model it is already; None for a float model.
        provenance: What onnxq wrote into the model's metadata when it made it, by key; empty for
            others.
        notes: What normalizing could not do or had to change.
        sites: Every site, in the order of the graph.
        obstacles: What would stop the model, or a part of it, from being quantized.
        bundle: The parts of a bundle, in order; empty for a plain model.
    """

    summary: Summary
    quantized_form: str | None
    provenance: Mapping[str, str]
    notes: tuple[str, ...]
    sites: tuple[InspectedSite, ...]
    obstacles: tuple[str, ...] = ()
    bundle: tuple[BundlePart, ...] = ()


def quantize(
    model: str | Path,
    data: DataLike | None,
    output: str | Path,
    *,
    recipe: Recipe | None = None,
    target: str | None = None,
    options: RunOptions = RunOptions(),
) -> QuantizeResult:
    """Quantize a model and prove that the result is right, smaller and faster.

    Args:
        model: The float model.
        data: Calibration data: a path, an iterable of dicts from input name to array, or another
            form of :data:`onnxq.data.DataLike`; a ``Reading`` where images or texts are to be read.
            None for schemes that do without; the result is then compared on made-up inputs only.
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
    check_output(output, model=source)
    check_plan_folder(options.plan_out)
    with sessions_as_in(recipe), opened(source, output) as found:
        options = replace(options, eval_data=found.reading(options.eval_data))
        return _quantize(found, found.reading(data), output, recipe, options)


def _quantize(
    opened_model: Opened,
    data: DataLike | None,
    output: Path,
    recipe: Recipe,
    options: RunOptions,
) -> QuantizeResult:
    """Quantize a model, or what a bundle holds."""
    prepared = prepare(opened_model.core, recipe)
    check_output(output, model=opened_model.core, files=prepared.files)
    samples = open_samples(prepared, data, options.eval_data, options.labels)
    prepared = replace(prepared, notes=(*prepared.notes, *samples.notes))
    written, prepared = prepared.model, learn_types(prepared, samples.first)
    profile = samples.shape_profile(prepared)
    kept = of_models({prepared.source: prepared.digest})
    with default_options(profile.provider_options), kept:
        remarks = filter(None, [profile.note, engine_remark(prepared)])
        result = _decide_and_verify(opened_model, written, prepared, samples, output, options)
    return replace(result, shape_profile=profile, warnings=(*result.warnings, *remarks))


def _decide_and_verify(
    opened_model: Opened,
    written: ir.Model,
    prepared: Prepared,
    samples: Samples,
    output: Path,
    options: RunOptions,
) -> QuantizeResult:
    """Decide what becomes of a model, carry it out, and prove it."""
    task = _task(prepared, samples, options)
    found = decide_plan(task)
    if not found.selection.chosen:
        return _unchanged(opened_model, prepared, found, output, options)
    # What was learned from data stays out: `apply` has none and gives the same bytes.
    found = replace(found, plan=with_origin(found.plan, prepared.recipe))
    quantized = execute(found.plan, written)
    evidence = samples.evidence(task.macs, prepared.source, prepared.provider, task.timing)
    verification, plan, missed = _publish_verified(
        quantized, opened_model, output, found.plan, evidence, options
    )
    judged = (*left_out(found.trials), *judge.warnings(verification, found.worst))
    planned = (*opened_model.notes, *prepared.notes_for(plan.scheme), *plan.warnings)
    return QuantizeResult(
        output=None if missed and not options.allow_miss else output,
        scheme=plan.scheme,
        scheme_reason=found.reason,
        target=prepared.recipe.target,
        plan=plan,
        verification=verification,
        calibration=found.run,
        warnings=(*planned, *kept_in_pairs(quantized), *judged),
        trials=found.trials,
        missed=missed,
        left_alone=_left_alone(opened_model),
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
    check_output(output, model=model)
    recipe = _with_target(recipe, target)
    if recipe.scheme in HALF_TYPES or stores_blocks(recipe):
        code, text = (
            "usage.scheme",
            f"statistics are of INT8; {recipe.scheme} looks at data when it is made",
        )
        remedy = f"onnxq quantize MODEL --scheme {recipe.scheme} --data DATA -o OUT"
        raise UsageError(code, text, where="scheme", remedy=remedy)
    with sessions_as_in(recipe), opened(Path(model), Path(output)) as part:
        prepared = prepare(part.core, recipe)
        check_output(output, model=model, files=prepared.files)
        source = open_calibration(prepared, part.reading(data))
        found = run_calibration(learn_types(prepared, source), source, report)
        save_stats(replace(found.stats, model_digest=prepared.digest), Path(output))
    return replace(found.run, notes=source.notes)


def apply(model: str | Path, plan: str | Path, output: str | Path) -> Plan:
    """Execute a plan: the same model and plan give the same bytes, without data.

    Args:
        model: The float model that the plan was made for.
        plan: The folder that ``quantize`` wrote the plan to.
        output: The file to write.

    Raises:
        PlanError: The plan is damaged or was made for another model.
    """
    check_output(output, model=model)
    decided = load_plan(Path(plan))
    with opened(Path(model), Path(output)) as part:
        loaded = load(part.core)
        check_output(output, model=model, files=external_files(loaded))
        check_digest(decided, digest(loaded), str(model))
        target = load_target(decided.target)
        normalized = normalized_for(loaded, target, decided.minimum_opset, decided.scheme).model
        with staging(Path(output)) as staged:
            save(execute(decided, normalized), staged)
            _check_applied(staged, part.core, decided, target)
            part.publish(staged, Path(output), level_for(decided.target, "cpu"))
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
    with sessions_as_in(recipe), opened(Path(model)) as part:
        loaded = load(part.core)
        form = find_already_quantized(loaded)
        prepared = make_ready(part.core, loaded, recipe)
        measured = Measured(*selection_for(prepared), {}, {})
        counts: Mapping[str, int] = {site.name: site.macs for site in prepared.sites if site.macs}
        if data is not None:
            check_survives_here(prepared, loaded)
            source = open_calibration(prepared, part.reading(data))
            prepared = replace(prepared, notes=(*prepared.notes, *source.notes))
            prepared = learn_types(prepared, source)
            measured = measured_selection(prepared, source, report)
            counts = observed_macs(prepared, source)
        sites = [_inspected(prepared, d, measured, counts) for d in measured.selection.decisions]
        stops = () if form else obstacles(loaded, part.core, sites=len(sites))
        sites += _left_alone(part)
        loaded_whole = load(part.source)
        notes = (*part.notes, *prepared.notes_for(measured.decision))
    props = sorted(loaded_whole.metadata_props.items())
    return Inspection(
        summary=summary(loaded_whole),
        quantized_form=form,
        provenance={k: text for k, text in props if k.startswith(PREFIX) and k != BUNDLE_KEY},
        notes=notes,
        sites=tuple(sites),
        obstacles=stops,
        bundle=part.described,
    )


# What the functions above are made of, in the order of their use.


def _check_applied(staged: Path, source: Path, plan: Plan, target: Target) -> None:
    """Check what a plan made: on the CPU, or where it computes in what the CPU does not."""
    provider = stand_in(target.provider) if plan.scheme == "bfloat16" else "cpu"
    try:
        check_structure(staged, source, provider, level_for(plan.target, provider))
    except InternalError as error:
        if plan.scheme == "bfloat16" and provider != target.provider:
            raise untriable(target) from error
        raise


def _with_target(recipe: Recipe | None, target: str | None) -> Recipe:
    recipe = recipe or Recipe()
    return recipe if target is None else recipe.model_copy(update={"target": target})


def _task(prepared: Prepared, samples: Samples, options: RunOptions) -> Task:
    return Task(
        prepared=prepared,
        data=samples.calibration,
        samples=samples.for_choosing,
        macs=observed_macs(prepared, samples.first),
        independent=samples.independent,
        min_sqnr=options.min_sqnr,
        # What another provider takes says nothing about the target's.
        timing=options.timing if prepared.on_target else None,
        report=options.report,
    )


def _publish_verified(
    quantized: ir.Model,
    opened_model: Opened,
    output: Path,
    plan: Plan,
    evidence: Evidence,
    options: RunOptions,
) -> tuple[Verification, Plan, str]:
    """Write a model where nobody sees it, verify it, and put it in place if it may be handed over.

    What was measured is written into it, and into the plan, so that `apply` gives the same bytes.

    Returns:
        What was measured, the plan with it, and the bound that was missed; empty if none was.
    """
    with staging(output) as staged:
        save(quantized, staged)
        _check_result_survives(quantized, staged, output, evidence.provider)
        verification = verify(opened_model.core, staged, plan, evidence, options.report)
        missed = judge.missed_bound(verification, options.min_sqnr)
        plan = with_measured(plan, verification)
        if not missed or options.allow_miss:
            quantized.metadata_props.update(metadata(plan))
            save(quantized, staged)
            verification = replace(verification, quantized_bytes=file_bytes(staged))
            if options.plan_out is not None:
                save_plan(plan, options.plan_out)
            level = level_for(plan.target, evidence.provider)
            opened_model.publish(staged, output, level)
    return verification, plan, missed


def _check_result_survives(quantized: ir.Model, staged: Path, output: Path, provider: str) -> None:
    """Refuse a result that would end this process, though the float model did not."""
    if provider != "cpu":
        return
    try:
        check_survives([(staged, quantized)])
    except ModelError as error:
        text = f"quantized, the model is not written: {error.message}"
        remedy = (
            "leave the sites in front of it in float (rules in a recipe), or take another scheme"
        )
        raise ModelError(error.code, text, where=str(output), remedy=remedy) from error


def _unchanged(
    opened_model: Opened,
    prepared: Prepared,
    found: Decided,
    output: Path,
    options: RunOptions,
) -> QuantizeResult:
    """Write the model as it is: there is nothing to quantize, or nothing that pays."""
    reasons = Counter(d.reason for d in found.selection.decisions)
    why = "; ".join(f"{reason} ({n})" for reason, n in reasons.most_common(3))
    warning = f"nothing was quantized, the model is written unchanged: {why or 'it has no site'}"
    if options.plan_out is not None:
        save_plan(found.plan, options.plan_out)
    save(load(opened_model.source), output)
    return QuantizeResult(
        output=output,
        scheme="float",
        scheme_reason=found.reason if found.trials else "no site can be quantized",
        target=prepared.recipe.target,
        plan=found.plan,
        verification=None,
        calibration=None,
        warnings=(
            *opened_model.notes,
            *prepared.notes_for(prepared.recipe.scheme),
            *left_out(found.trials),
            warning,
        ),
        trials=found.trials,
        left_alone=_left_alone(opened_model),
    )


def _left_alone(opened_model: Opened) -> tuple[InspectedSite, ...]:
    return tuple(
        InspectedSite(site.name, site.op, "float", reason, site.macs, None, None)
        for site, reason in opened_model.left_alone
    )


def _inspected(
    prepared: Prepared, decision: Decision, measured: Measured, counts: Mapping[str, int]
) -> InspectedSite:
    site = decision.site
    weight = prepared.model.graph.initializers.get(site.weight or "")
    array = None if weight is None else constant_array(weight)
    found = measured.blocks.get(site.name)
    return InspectedSite(
        name=site.name,
        op=site.op,
        decision=measured.decision if decision.quantize else "float",
        reason=decision.reason,
        macs=counts.get(site.name),
        weight=None if array is None else describe_weight(array, site.weight_axis),
        sqnr_db=measured.sqnr_db.get(site.name),
        held_out={} if found is None else found.held_out,
        chosen="" if found is None else found.chosen,
        exponent=None if found is None else found.exponent,
        scaling="" if found is None else found.scaling,
    )
