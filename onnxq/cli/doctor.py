"""``onnxq doctor``."""

from __future__ import annotations

from dataclasses import dataclass

import click

from onnxq.cli import json_output
from onnxq.cli.command import command
from onnxq.cli.outcome import Outcome
from onnxq.cli.progress import bars
from onnxq.errors import BoundMissedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What ``doctor`` takes; see its ``--help``."""

    probe: bool


def doctor(arguments: Arguments) -> Outcome:
    """Show what onnxq sees of this machine and installation, and what to do about each lack.

    The exit status is 1 if something is broken.
    """
    from onnxq.runtime.doctor import diagnose
    from onnxq.runtime.probe import run_probe

    found = diagnose()
    with bars() as report:
        probed = (
            run_probe(progress=lambda done, total: report("probe", done, total))
            if arguments.probe
            else ()
        )
    from onnxq.cli.show_doctor import views

    code = "doctor.broken"
    errors = [
        BoundMissedError(code, finding.what, remedy=finding.remedy)
        for finding in found.findings
        if finding.level == "error"
    ]
    return Outcome(
        json_output.diagnosed(found, probed, errors),
        lambda: views(found, probed),
        errors[0] if errors else None,
    )


COMMAND = command(
    doctor,
    Arguments,
    [
        click.Option(
            ["--probe"],
            is_flag=True,
            help="Also show which operators run in integer kernels here.",
        )
    ],
)
