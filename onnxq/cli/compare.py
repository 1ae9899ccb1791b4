"""``onnxq compare``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from onnxq.cli import json_output, parameters
from onnxq.cli.command import command
from onnxq.cli.outcome import Outcome
from onnxq.cli.parameters import DataArguments
from onnxq.cli.progress import bars

if TYPE_CHECKING:
    from onnxq.compare.metric import Metric
    from onnxq.data import Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments(DataArguments):
    """What ``compare`` takes; see its ``--help``."""

    models: tuple[Path, ...]
    providers: tuple[str, ...]
    labels: Path | None
    metric: Metric | Literal["auto"]
    text: str | None

    def given(self) -> Reading | None:
        """What ``--data`` or ``--text`` names.

        Raises:
            OnnxqError: Both do, or neither; or the text cannot be read as text.
        """
        from onnxq.data.reading import text_reading
        from onnxq.errors import UsageError

        if (self.data is None) == (self.text is None):
            code, text = "usage.arguments", "there is no --data and no --text"
            if self.data is not None:
                text = "--data and --text are two ways to give the same"
            raise UsageError(code, text, remedy="Give one of them.")
        if self.text is None:
            return self.reading(self.data)
        return text_reading(self.text, self.models[0], self.preprocess, self.tokenizer)


def compare(arguments: Arguments) -> Outcome:
    """Compare MODELS on the same data: speed, size, memory, numerics, integer kernels.

    The first model on the first provider is the reference. With --metric only that number is
    measured, and nothing is timed.
    """
    from onnxq.compare.compare import compare as compare_models
    from onnxq.compare.metric import compare_by

    models, data, providers = arguments.models, arguments.given(), arguments.providers
    with bars() as report:
        if arguments.metric == "auto":
            found = compare_models(
                models, data, providers=providers, labels=arguments.labels, report=report
            )
        else:
            found = compare_by(arguments.metric, models, data, providers=providers, report=report)
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
            help=f"Samples to compare and to time on: {parameters.DATA_FORMS}.",
        ),
        click.Option(
            ["--text"],
            metavar="FILE",
            help="Instead of --data a file of texts, read by --tokenizer or, without it, by the "
            "tokenizer.json beside the first model.",
        ),
        click.Option(
            ["--metric"],
            type=click.Choice(parameters.METRICS),
            default="auto",
            show_default=True,
            help="Measure only this, without timing; auto measures all that the models have.",
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
        parameters.PROVIDER_OPTION,
    ],
)
