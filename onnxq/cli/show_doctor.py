"""What ``doctor`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.cli.console import line, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType
    from rich.table import Table

    from onnxq.runtime.doctor import Diagnosis
    from onnxq.runtime.probe import ProbeResult

_STYLES = {"ok": "", "warn": "yellow", "error": "bold red"}


def views(found: Diagnosis, probed: Sequence[ProbeResult]) -> Iterator[RenderableType]:
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
    if probed:
        yield ""
        yield _probed(probed)


def _probed(probed: Sequence[ProbeResult]) -> Table:
    shown = table("Kernel probe", ["form", "activation", "integer", "runs as"], [])
    for result in probed:
        runs_as = result.refused or ", ".join(result.executed_ops)
        integer = "yes" if result.integer else "no"
        shown.add_row(line(result.form), result.activation, integer, line(runs_as))
    return shown
