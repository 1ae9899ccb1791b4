"""``onnxq apply``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from onnxq.cli import json_output, parameters
from onnxq.cli.command import command
from onnxq.cli.outcome import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What ``apply`` takes; see its ``--help``."""

    model: Path
    plan: Path
    output: Path


def apply(arguments: Arguments) -> Outcome:
    """Execute PLAN, a folder that `quantize --plan-out` wrote, on MODEL, without data."""
    from onnxq import pipeline

    plan = pipeline.apply(arguments.model, arguments.plan, arguments.output)
    from onnxq.cli.show import applied

    return Outcome(
        json_output.applied(arguments.output, plan), lambda: applied(arguments.output, plan)
    )


COMMAND = command(
    apply,
    Arguments,
    [
        parameters.MODEL,
        click.Argument(["plan"], type=click.Path(path_type=Path)),
        parameters.OUTPUT,
        parameters.CUSTOM_OPS,
    ],
)
