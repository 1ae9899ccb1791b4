"""``onnxq doctor``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxq.cli import json_output, parameters
from onnxq.cli.command import command
from onnxq.cli.outcome import Outcome
from onnxq.cli.parameters import DataArguments
from onnxq.cli.progress import bars
from onnxq.errors import BoundMissedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxq.runtime.kernel_speed import ShapeSpeeds
    from onnxq.runtime.probe import ProbeResult
    from onnxq.stages.model_shapes import ModelShape

_MOST_SHAPES = 6
"""Of a model; those that multiply most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments(DataArguments):
    """What ``doctor`` takes; see its ``--help``."""

    probe: bool
    shapes: str | None
    model: Path | None
    fresh: bool

    @property
    def speed_asked(self) -> bool:
        """Whether kernels are to be timed."""
        return self.probe or self.shapes is not None or self.model is not None


@dataclass(frozen=True, slots=True)
class Probed:
    """What was tried out on each provider; empty where nothing was asked for.

    Attributes:
        fused: What runs in integers, by provider.
        speeds: Forms of products and convolutions.
        of_model: The shapes that were found in the model.
    """

    fused: dict[str, tuple[ProbeResult, ...]]
    speeds: tuple[ShapeSpeeds, ...]
    of_model: tuple[ModelShape, ...]


def doctor(arguments: Arguments) -> Outcome:
    """Show what onnxq sees of this machine and installation, and what to do about each lack.

    With --probe, --shapes or --model kernels are tried out on every provider that starts; what is
    measured is kept and shown again. The exit status is 1 if something is broken.
    """
    from onnxq.runtime.doctor import diagnose

    if arguments.shapes is not None and arguments.model is not None:
        code, text = "usage.arguments", "--shapes and --model are two ways to give the same"
        raise UsageError(code, text, remedy="Give one of them.")
    if arguments.data is not None and arguments.model is None:
        code, text = "usage.arguments", "--data is of a --model, and there is none"
        raise UsageError(code, text, remedy="Name the model.")
    found = diagnose()
    with bars() as report:
        probed = _probed(arguments, report)
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


def _probed(arguments: Arguments, report: Callable[[str, int, int], None]) -> Probed:
    if not arguments.speed_asked:
        return Probed({}, (), ())
    from onnxq.runtime import kernel_shapes
    from onnxq.runtime.doctor import providers_at_hand
    from onnxq.runtime.kernel_speed import kernel_speeds
    from onnxq.runtime.probe import run_probe
    from onnxq.stages.model_shapes import model_shapes

    shapes = kernel_shapes.DEFAULT_SHAPES
    of_model: tuple[ModelShape, ...] = ()
    if arguments.shapes is not None:
        shapes = kernel_shapes.parse_shapes(arguments.shapes)
    if arguments.model is not None:
        of_model = model_shapes(arguments.model, arguments.reading(arguments.data))
        shapes = tuple(entry.shape for entry in of_model[:_MOST_SHAPES])
    names = providers_at_hand()
    fused = {
        name: run_probe(name, progress=_named(f"probe {name}", report))
        for name in names
        if arguments.probe
    }
    speeds = [
        speed
        for name in names
        for speed in kernel_speeds(
            shapes,
            name,
            earlier="replace" if arguments.fresh else "reuse",
            progress=_named(f"time kernels on {name}", report),
        )
    ]
    return Probed(fused, tuple(speeds), of_model)


def _named(step: str, report: Callable[[str, int, int], None]) -> Callable[[int, int], None]:
    return lambda done, total: report(step, done, total)


COMMAND = command(
    doctor,
    Arguments,
    [
        click.Option(
            ["--probe"],
            is_flag=True,
            help="Also show which operators run in integer kernels here, and how fast the forms of "
            "some products and convolutions are. Takes minutes the first time.",
        ),
        click.Option(
            ["--shapes"],
            metavar="SHAPES",
            help="Time these shapes, with commas between them: rows x inner x columns, as "
            "128x768x3072, or conv:1x64x56x56:128x3x3[:stride[:groups]].",
        ),
        click.Option(
            ["--model"],
            type=click.Path(path_type=Path),
            metavar="MODEL",
            help=f"Time the shapes of this model; the {_MOST_SHAPES} that multiply most.",
        ),
        click.Option(
            ["--data"],
            metavar="DATA",
            help="With --model: samples, the first of which says how long inputs are; made up if "
            "left out.",
        ),
        click.Option(
            ["--fresh"], is_flag=True, help="Time again what was timed before on this machine."
        ),
        parameters.PREPROCESS,
        parameters.TOKENIZER,
        parameters.CUSTOM_OPS,
    ],
)
