"""``onnxq export``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from onnxq.cli import json_output, parameters
from onnxq.cli.command import command
from onnxq.cli.outcome import Outcome
from onnxq.cli.progress import bars

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What ``export`` takes; see its ``--help``."""

    source: str
    output: Path
    opset: int | None


def export(arguments: Arguments) -> Outcome:
    """Export a PyTorch module to ONNX and verify it against PyTorch.

    SOURCE is pkg.module:factory, a function without arguments that returns an
    onnxq.export.ExportSpec, or a tuple of the module and its example inputs.
    """
    from onnxq.export import export as export_module

    with bars() as report:
        result = export_module(
            arguments.source,
            arguments.output,
            opset=arguments.opset,
            progress=lambda done, total: report("export", done, total),
        )
    from onnxq.cli.show import exported

    return Outcome(json_output.exported(result), lambda: exported(result))


COMMAND = command(
    export,
    Arguments,
    [
        click.Argument(["source"]),
        parameters.OUTPUT,
        click.Option(
            ["--opset"],
            type=click.IntRange(min=18),
            help="Operator set version.  [default: PyTorch's]",
        ),
    ],
)
