"""What the commands with little to say print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from onnxq.cli.console import bytes_text, line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from rich.console import RenderableType

    from onnxq.bundle import BundleResult
    from onnxq.deploy import Deployment
    from onnxq.deploy.cache import CacheGraph
    from onnxq.export import ExportResult
    from onnxq.pipeline import CalibrationRun
    from onnxq.plan import Plan
    from onnxq.stages.calibration_table import CalibrationTable

Item = TypeVar("Item")


def calibrated(
    output: Path | None, run: CalibrationRun | None, table: CalibrationTable | None
) -> Iterator[RenderableType]:
    """``calibrate``."""
    if run is not None:
        how = "reused from an earlier run" if run.reused else f"collected in {run.seconds:.1f} s"
        yield line(f"{output}: statistics of {run.samples} samples ({run.method}), {how}.")
        yield line(f"Peak memory of the process: {bytes_text(run.peak_rss_bytes)}.")
    if table is not None:
        counts = f"{table.tensors} tensors on {table.samples} samples ({table.method})"
        yield line(f"{table.path}: ranges of {counts}. TensorRT takes them with")
        for key, value in table.options.items():
            yield line(f"--provider-option tensorrt.{key}={value}")
    notes = (note for made in (run, table) if made is not None for note in made.notes)
    for text in dict.fromkeys(notes):
        yield line(f"note: {text}", style="yellow")


def applied(output: Path, plan: Plan) -> Iterator[RenderableType]:
    """``apply``."""
    count = sum(site.decision != "float" for site in plan.sites)
    yield line(
        f"{output}: {plan.scheme} for {plan.target}, {count} of {len(plan.sites)} sites quantized."
    )
    for text in plan.warnings:
        yield line(f"warning: {text}", style="yellow")


def exported(result: ExportResult) -> Iterator[RenderableType]:
    """``export``."""
    for model in result.models:
        yield line(f"{model.path}: opset {model.opset}, outputs {_short(model.outputs)}")
        for item in _cut(model.inputs):
            yield line(f"input {item.name}: {item.dtype} [{', '.join(map(str, item.shape))}]")
        if len(model.inputs) > _MANY:
            yield line(f"... {len(model.inputs)} inputs")
        shapes = "; ".join(_shapes(shapes) for shapes in model.verified_shapes)
        yield line(f"Agrees with PyTorch on {shapes}.")
        worst, tolerance = model.worst, model.tolerance
        allowed = f"{tolerance.absolute:g} + {tolerance.relative:g} max |PyTorch's|"
        yield line(
            f"Worst difference {worst.value:.3g} in {worst.output} at {_shapes(worst.shapes)}; "
            f"allowed {worst.allowed:.3g} = {allowed}."
        )
        for text in model.notes:
            yield line(f"note: {text}", style="yellow")


_MANY: Final = 6


def _cut(items: Sequence[Item]) -> Sequence[Item]:
    """The first of many."""
    return items if len(items) <= _MANY else items[: _MANY - 1]


def _short(names: Sequence[str]) -> str:
    return ", ".join(_cut(names)) + (f" ... ({len(names)})" if len(names) > _MANY else "")


def exported_bundle(result: ExportResult, bundle: BundleResult) -> Iterator[RenderableType]:
    """``export`` of a bundle."""
    yield from exported(result)
    yield from bundled(bundle)


def bundled(result: BundleResult) -> Iterator[RenderableType]:
    """``bundle``."""
    yield line(f"{result.path}")
    for kind, values in (("input", result.inputs), ("output", result.outputs)):
        for value in values:
            shape = ", ".join("?" if dim is None else str(dim) for dim in value.shape or ())
            yield line(f"{kind} {value.name}: {value.type_text} [{shape}]")
    found = result.agreement
    if found is not None and found.kind == "texts":
        yield line(f"Token ids are those of calibration on {found.samples} texts of many kinds.")
    elif found is not None:
        yield line(
            f"Pixels are those of calibration on {found.samples} images, but for "
            f"{found.levels:.2g} of 255 at most and {found.mean_levels:.2g} in the mean."
        )
    if result.needs_extensions:
        yield line("It runs with the operators of onnxruntime-extensions registered.")
    for text in result.notes:
        yield line(f"note: {text}", style="yellow")


def deployed(made: Deployment) -> Iterator[RenderableType]:
    """``deploy``."""
    yield line(f"{made.folder}: {', '.join(made.files)}")
    for text in made.notes:
        yield line(f"note: {text}")
    yield line(f"Runs, and differs from the model by {made.difference:.1g} of its greatest output.")
    yield line(f"Run it: {made.command}")


def checked(folder: Path, cache: CacheGraph) -> Iterator[RenderableType]:
    """``deploy --check``."""
    yield line(f"{folder}: whole; {cache.layers} layers, and all names are the model's.")


def _shapes(shapes: Mapping[str, tuple[int, ...]]) -> str:
    parts = [f"{name} {list(shape)}" for name, shape in shapes.items()]
    return ", ".join(_cut(parts)) + (" ..." if len(parts) > _MANY else "")
