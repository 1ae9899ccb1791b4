"""What the commands with little to say print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.cli.console import bytes_text, line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from rich.console import RenderableType

    from onnxq.deploy import Deployment
    from onnxq.deploy.cache import CacheGraph
    from onnxq.export import ExportResult
    from onnxq.pipeline import CalibrationRun
    from onnxq.plan import Plan


def calibrated(output: Path, run: CalibrationRun) -> Iterator[RenderableType]:
    """``calibrate``."""
    how = "reused from an earlier run" if run.reused else f"collected in {run.seconds:.1f} s"
    yield line(f"{output}: statistics of {run.samples} samples ({run.method}), {how}.")
    yield line(f"Peak memory of the process: {bytes_text(run.peak_rss_bytes)}.")
    for text in run.notes:
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
    yield line(f"{result.path}: opset {result.opset}, outputs {', '.join(result.outputs)}")
    for item in result.inputs:
        yield line(f"input {item.name}: {item.dtype} [{', '.join(map(str, item.shape))}]")
    shapes = "; ".join(_shapes(shapes) for shapes in result.verified_shapes)
    yield line(f"Agrees with PyTorch on {shapes}.")
    worst = result.worst
    yield line(
        f"Worst difference {worst.value:.3g} (allowed {worst.allowed:.3g}) "
        f"in {worst.output} at {_shapes(worst.shapes)}."
    )


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
    return ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
