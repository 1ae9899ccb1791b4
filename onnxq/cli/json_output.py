"""Results as the dicts that ``--json`` prints: a contract, versioned by ``schema_version``.

``status`` is ``done``, ``missed`` (a bound that was asked for), ``error`` or ``interrupted``. JSON
has no infinity and no NaN, so both are ``null``; the SQNR of outputs that are equal is infinite,
``max_error`` is then 0; where nothing was compared ``max_error`` is ``null`` too (of ``lint``, a
``why_none`` that is not empty). Times are
milliseconds where the key says so, else seconds; sizes are bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from onnxq.bundle import BundleResult
    from onnxq.cli.doctor import Probed
    from onnxq.compare.compare import ComparedRun, Comparison
    from onnxq.compare.divergence import Agreement, CheckedSide
    from onnxq.compare.side import Side
    from onnxq.deploy import Deployment
    from onnxq.errors import OnnxqError
    from onnxq.export import ExportResult
    from onnxq.lint import LintResult
    from onnxq.pipeline import CalibrationRun, Inspection, QuantizeResult
    from onnxq.plan import Plan
    from onnxq.runtime.doctor import Diagnosis
    from onnxq.runtime.placement import Placement
    from onnxq.runtime.timing import LatencyResult
    from onnxq.stages.calibration_table import CalibrationTable
    from onnxq.stages.shape_profile import ShapeProfile
    from onnxq.verify.fidelity import Fidelity
    from onnxq.verify.next_tokens import NextTokens
    from onnxq.verify.verification import Latency, Verification

SCHEMA_VERSION = 1

_OF_QUANTIZE = (
    "scheme",
    "format",
    "target",
    "kernels",
    "metrics",
    "latency",
    "size",
    "calibration",
    "verified_on",
)
"""Keys that ``quantize`` always prints; null where there is nothing to say."""


def plain(value: object) -> object:
    """The value in JSON's own types.

    Paths become strings, frozen results dicts, what is not finite null.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {name: plain(item) for name, item in _fields(value).items()}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    msg = f"{type(value).__name__} has no form in JSON"
    raise TypeError(msg)


def _fields(value: DataclassInstance) -> dict[str, object]:
    """The fields of a result, as they are."""
    return {field.name: getattr(value, field.name) for field in fields(value)}


def document(
    output: Path | None = None,
    *,
    status: str = "done",
    warnings: Sequence[str] = (),
    errors: Sequence[OnnxqError] = (),
) -> dict[str, object]:
    """What every object begins with."""
    return {
        "schema_version": SCHEMA_VERSION,
        "status": status,
        "output": output,
        "warnings": list(warnings),
        "errors": [error_entry(error) for error in errors],
    }


def error_entry(error: OnnxqError) -> dict[str, str]:
    """The four texts of an error."""
    return {
        "code": error.code,
        "message": error.message,
        "where": error.where,
        "remedy": error.remedy,
    }


def failure(command: str, status: str, error: OnnxqError) -> dict[str, object]:
    """A command that did not run to its end; ``quantize`` has its keys all the same."""
    more: dict[str, object] = {}
    if command == "quantize":
        more = {**dict.fromkeys(_OF_QUANTIZE), "sites": []}
    return {**document(status=status, errors=[error]), **more}


def quantized(result: QuantizeResult, missed: OnnxqError | None) -> dict[str, object]:
    """``quantize``."""
    verification = result.verification
    return {
        **document(
            result.output,
            status="missed" if missed else "done",
            warnings=result.warnings,
            errors=[missed] if missed else [],
        ),
        "scheme": result.scheme,
        "scheme_reason": result.scheme_reason,
        "format": result.plan.format,
        "target": result.target,
        "sites": [*_sites(result.plan.sites), *_sites(result.left_alone)],
        "kernels": {"planned": 0, "integer": 0, "by_op": {}},
        "metrics": None,
        "latency": None,
        "size": None,
        "verified_on": None,
        "calibration": result.calibration,
        "tried": result.trials,
        "shape_profile": _profiled(result.shape_profile),
        **({} if verification is None else _verified(verification)),
    }


def _sites(sites: Sequence[object]) -> list[dict[str, object]]:
    keys = ("name", "op", "decision", "reason")
    return [{key: getattr(site, key) for key in keys} for site in sites]


def _verified(found: Verification) -> dict[str, object]:
    fidelity = found.fidelity
    return {
        "kernels": found.kernels,
        "metrics": _metrics(fidelity),
        "latency": None if found.latency is None else _latency(found.latency),
        "size": {
            "float_bytes": found.float_bytes,
            "quantized_bytes": found.quantized_bytes,
            "ratio": found.size_ratio,
        },
        "verified_on": {
            "samples": fidelity.samples,
            "independent": fidelity.independent,
            "made_up": found.made_up,
        },
    }


def _metrics(found: Fidelity) -> dict[str, object]:
    task: dict[str, object] = {}
    if found.quantized_accuracy is not None:
        task = {
            "float_accuracy": found.float_accuracy,
            "quantized_accuracy": found.quantized_accuracy,
        }
    return {
        "output": found.output,
        "sqnr_db": found.sqnr_db,
        "cosine": found.cosine,
        "max_error": found.max_error,
        "equal_share": found.equal_share,
        "others": dict(found.others),
        "others_equal": dict(found.others_equal),
        "top1_agreement": found.top1_agreement,
        **_next_tokens(found.language),
        "left_out": found.left_out,
        "other_shape": found.other_shape,
        "task": task,
    }


def _next_tokens(found: NextTokens | None) -> dict[str, object]:
    """Null where the model is no language model."""
    if found is None:
        return {"kl_nats": None, "perplexity": None}
    perplexity = {"float": found.float_perplexity, "quantized": found.quantized_perplexity}
    return {"kl_nats": found.kl_nats, "perplexity": perplexity}


def _latency(found: Latency) -> dict[str, object]:
    return {
        "float_ms": found.floating.median_ms,
        "quantized_ms": found.quantized.median_ms,
        "ratio": found.ratio.median,
        "ratio_low": found.ratio.low,
        "ratio_high": found.ratio.high,
        "float": _run(found.floating),
        "quantized": _run(found.quantized),
    }


def _run(found: LatencyResult) -> dict[str, object]:
    keys = (
        "median_ms",
        "p90_ms",
        "p99_ms",
        "first_ms",
        "load_seconds",
        "peak_rss_bytes",
        "device_bytes",
        "joules",
    )
    return {key: getattr(found, key) for key in keys}


def calibrated(
    output: Path | None, run: CalibrationRun | None, table: CalibrationTable | None
) -> dict[str, object]:
    """``calibrate``; ``output`` is the file of statistics."""
    notes = dict.fromkeys(note for made in (run, table) if made is not None for note in made.notes)
    return {
        **document(output, warnings=list(notes)),
        "calibration": run,
        "calibration_table": table and {**_fields(table), "options": table.options},
    }


def applied(output: Path, plan: Plan) -> dict[str, object]:
    """``apply``."""
    return {
        **document(output, warnings=plan.warnings),
        "scheme": plan.scheme,
        "target": plan.target,
        "sites": _sites(plan.sites),
    }


def inspected(found: Inspection) -> dict[str, object]:
    """``inspect``; the sites come in the order of the graph."""
    return {
        **document(warnings=found.notes),
        "model": found.summary,
        "quantized_form": found.quantized_form,
        "obstacles": found.obstacles,
        "provenance": found.provenance,
        "bundle": found.bundle,
        "sites": found.sites,
    }


def compared(found: Comparison, report: Path | None = None) -> dict[str, object]:
    """``compare``; the reference is the run without ``metrics``, or the first model on the CPU.

    ``output`` is the report, if one was written.
    """
    return {
        **document(report, warnings=found.warnings),
        "runs": [_compared(run) for run in found.runs],
        "metric": found.metric,
        "verified_on": {"samples": found.samples, "tokens": found.tokens},
        "timing": found.timing,
        "shape_profile": _profiled(found.profile),
    }


def _profiled(found: ShapeProfile) -> dict[str, object] | None:
    """The shapes that TensorRT was told of; null where that was not derived from the data."""
    if not found.inputs:
        return None
    return {"inputs": found.inputs, "samples": found.samples, "options": found.options}


def searched_session(made: Comparison, files: Sequence[Path]) -> dict[str, object]:
    """What ``compare`` has beside; the keys are there where it was asked for."""
    found: dict[str, object] = {}
    if made.throughput:
        found["throughput"] = made.throughput
    if made.session is not None:
        session = {**_fields(made.session), "shape_profile": _profiled(made.session.profile)}
        del session["profile"]
        found["session"] = {**session, "files": files}
    return found


def _compared(run: ComparedRun) -> dict[str, object]:
    latency: dict[str, object] | None = None
    if run.latency is not None:
        ratio = run.ratio
        latency = {
            **_run(run.latency),
            "ratio": ratio and ratio.median,
            "ratio_low": ratio and ratio.low,
            "ratio_high": ratio and ratio.high,
        }
    metrics = None
    if run.fidelity is not None:
        metrics = {**_metrics(run.fidelity), "not_finite": run.fidelity.not_finite}
        metrics["task"] = {} if run.accuracy is None else {"accuracy": run.accuracy}
    return {
        "model": run.model,
        "provider": run.provider,
        "size": {"bytes": run.file_bytes},
        "kernels": run.kernels,
        "placement": _placed(run.placement),
        "metrics": metrics,
        "accuracy": run.accuracy,
        "perplexity": run.perplexity,
        "latency": latency,
        "engine": run.engine,
    }


def diverged(found: Agreement, missed: OnnxqError | None) -> dict[str, object]:
    """``compare --diverge``; the first run is the reference."""
    return {
        **document(
            status="missed" if missed else "done",
            warnings=found.notes,
            errors=[missed] if missed else [],
        ),
        "tolerance": found.tolerance,
        "agree": found.agree,
        "runs": [_side(found.reference), *map(_checked, found.others)],
    }


def _side(side: Side) -> dict[str, object]:
    settings = side.settings
    return {"model": side.model, "provider": settings.provider, "level": settings.optimization}


def _checked(found: CheckedSide) -> dict[str, object]:
    keys = ("error", "output", "sample", "samples", "divergence")
    return {**_side(found.side), **{key: getattr(found, key) for key in keys}}


def _placed(found: Placement) -> dict[str, object]:
    """Where nodes run; those that fell back with the reason."""
    fallen = [{"name": n.name, "op": n.op, "provider": n.provider, "reason": n.reason}
              for n in found.fallen_back]  # fmt: skip
    return {"by_provider": found.by_provider, "copies": found.copies, "fallen_back": fallen}


def linted(result: LintResult, missed: OnnxqError | None) -> dict[str, object]:
    """``lint``; after a repair the findings are those that are left."""
    return {
        **document(
            result.output,
            status="missed" if missed else "done",
            errors=[missed] if missed else [],
        ),
        "model": result.model,
        "target": result.target,
        "findings": result.findings,
        "skipped": result.skipped,
        "fixed": result.fixed,
        "why_not_written": result.why_not_written,
        "verified_on": {
            "made_up": result.output is not None,
            "sqnr_db": result.sqnr_db,
            "why_none": result.why_not_compared,
        },
    }


def exported(result: ExportResult) -> dict[str, object]:
    """``export``; what is told of a single file stands at the top too."""
    (first, *others) = result.models
    alone = {} if others else {key: getattr(first, key) for key in _OF_EXPORTED_MODEL}
    return {
        **document(result.path),
        **alone,
        "task": result.task,
        "checkpoint": result.checkpoint,
        "models": result.models,
    }


def exported_bundle(result: ExportResult, bundle: BundleResult) -> dict[str, object]:
    """``export`` of a bundle."""
    return {**exported(result), **bundled(bundle)}


def bundled(result: BundleResult) -> dict[str, object]:
    """``bundle``."""
    return {
        **document(result.path, warnings=result.notes),
        "inputs": result.inputs,
        "outputs": result.outputs,
        "agreement": result.agreement,
        "needs_extensions": result.needs_extensions,
    }


def deployed(made: Deployment) -> dict[str, object]:
    """``deploy``."""
    keys = ("form", "files", "difference", "command")
    found = document(made.folder, warnings=made.notes)
    return {**found, **{key: getattr(made, key) for key in keys}}


def checked(folder: Path) -> dict[str, object]:
    """``deploy --check``."""
    return {**document(), "folder": folder}


_OF_EXPORTED_MODEL = ("opset", "inputs", "outputs", "verified_shapes", "worst", "tolerance")


def diagnosed(found: Diagnosis, probed: Probed, errors: Sequence[OnnxqError]) -> dict[str, object]:
    """``doctor``; a finding of level ``error`` is among the errors too.

    ``speed`` has an entry for each shape and provider, its kernels the fastest first.
    """
    machine = found.machine
    return {
        **document(status="missed" if errors else "done", errors=errors),
        "findings": found.findings,
        "machine": {
            **{name: getattr(machine, name) for name in _MACHINE},
            "isa": sorted(machine.isa),
        },
        "versions": found.versions,
        "providers": found.providers,
        "probe": [
            {"provider": provider, **_fields(result)}
            for provider, results in probed.fused.items()
            for result in results
        ],
        "shapes": [{**_fields(entry), "shape": str(entry.shape)} for entry in probed.of_model],
        "speed": [{**_fields(speeds), "unsteady": speeds.unsteady} for speeds in probed.speeds],
    }


_MACHINE = (
    "cpu",
    "architecture",
    "cores",
    "memory_total",
    "memory_available",
    "system",
    "python",
)
