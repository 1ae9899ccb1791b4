"""``onnxq compare``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from onnxq.cli import json_output, parameters
from onnxq.cli.command import command
from onnxq.cli.outcome import Outcome
from onnxq.cli.parameters import DataArguments
from onnxq.cli.progress import bars


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments(DataArguments):
    """What ``compare`` takes; see its ``--help``."""

    models: tuple[Path, ...]
    providers: tuple[str, ...]
    labels: Path | None


def compare(arguments: Arguments) -> Outcome:
    """Compare MODELS on the same data: speed, size, memory, numerics, integer kernels.

    The first model on the first provider is the reference.
    """
    from onnxq.compare.compare import compare as compare_models

    with bars() as report:
        found = compare_models(
            arguments.models,
            arguments.reading(arguments.data),
            providers=arguments.providers,
            labels=arguments.labels,
            report=report,
        )
    from onnxq.cli.show_compare import views

    return Outcome(json_output.compared(found), lambda: views(found))


def _names(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())


COMMAND = command(
    compare,
    Arguments,
    [
        click.Argument(["models"], nargs=-1, required=True, type=click.Path(path_type=Path)),
        click.Option(
            ["--data"],
            metavar="DATA",
            required=True,
            help=f"Samples to compare and to time on: {parameters.DATA_FORMS}.",
        ),
        click.Option(
            ["--providers"],
            metavar="NAMES",
            default="cpu",
            show_default=True,
            callback=_names,
            help="Execution providers, with commas between them: cpu,cuda,tensorrt.",
        ),
        parameters.PREPROCESS,
        parameters.TOKENIZER,
        parameters.LABELS,
        parameters.CUSTOM_OPS,
    ],
)
