"""What ``doctor`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.cli.console import DASH, line, ms_text, percent_text, table, times_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType
    from rich.table import Table

    from onnxq.cli.doctor import Probed
    from onnxq.runtime.doctor import Diagnosis
    from onnxq.runtime.kernel_speed import ShapeSpeeds
    from onnxq.runtime.probe import ProbeResult
    from onnxq.stages.model_shapes import ModelShape

_STYLES = {"ok": "", "warn": "yellow", "error": "bold red"}


def views(found: Diagnosis, probed: Probed) -> Iterator[RenderableType]:
    """Machine and versions, the findings with their remedies, and what was probed."""
    machine = found.machine
    yield line(f"machine: {machine.cpu}, {machine.architecture}, {machine.cores} cores")
    yield line(f"system: {machine.system}, Python {machine.python}")
    yield line(f"providers: {', '.join(found.providers)}")
    yield line("versions: " + ", ".join(f"{name} {v}" for name, v in found.versions.items()))
    yield ""
    for finding in found.findings:
        yield line(f"{finding.level}: {finding.what}", style=_STYLES[finding.level])
        if finding.remedy:
            yield line(f"  -> {finding.remedy}")
    for provider, results in probed.fused.items():
        yield ""
        yield _fused(provider, results)
    if probed.of_model:
        yield ""
        yield _shapes(probed.of_model)
    for speeds in probed.speeds:
        yield ""
        yield _speeds(speeds)
        yield from _remarks(speeds)


def _fused(provider: str, results: Sequence[ProbeResult]) -> Table:
    headers = ["form", "activation", "integer", "runs as"]
    shown = table(f"Kernel probe on {provider}", headers, [])
    for result in results:
        runs_as = result.refused or ", ".join(result.executed_ops)
        integer = "yes" if result.integer else "no"
        shown.add_row(line(result.form), result.activation, integer, line(runs_as))
    return shown


def _shapes(found: Sequence[ModelShape]) -> Table:
    headers = ["nodes", "share of multiplications"]
    shown = table("Shapes of the model", ["shape", "first node"], headers)
    for entry in found:
        cells = (str(len(entry.sites)), percent_text(entry.share))
        shown.add_row(str(entry.shape), line(entry.sites[0]), *cells)
    return shown


def _speeds(found: ShapeSpeeds) -> Table:
    provider = found.provider.removesuffix("ExecutionProvider")
    title = f"{found.shape} on {provider}, measured on {found.measured_on}"
    shown = table(title, ["kernel", "runs as"], ["median", "times float32"])
    for kernel in found.kernels:
        faster, median = kernel.faster, kernel.median_ms
        if median is None or faster is None:
            shown.add_row(kernel.name, line(kernel.refused), DASH, DASH)
            continue
        runs_as = line(", ".join(kernel.runs_as))
        cells = (ms_text(median), times_text(faster.median, faster.low, faster.high))
        shown.add_row(kernel.name, runs_as, *cells)
    return shown


def _remarks(found: ShapeSpeeds) -> Iterator[RenderableType]:
    fastest = found.fastest
    if fastest is not None:
        yield line(f"Fastest: {fastest.name}.")
    if found.unsteady:
        text = "warning: the rounds differ by more than half: the machine is busy; see --fresh"
        yield line(text, style="yellow")
