"""``onnxq compare``."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from onnxq.cli import diverge, json_output, parameters, search_session
from onnxq.cli.command import command
from onnxq.cli.diverge import DivergeArguments
from onnxq.cli.outcome import Outcome
from onnxq.cli.parameters import DataArguments
from onnxq.cli.progress import bars
from onnxq.cli.search_session import SessionArguments

if TYPE_CHECKING:
    from onnxq.compare.metric import Metric
    from onnxq.data import Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments(DataArguments, DivergeArguments, SessionArguments):
    """What ``compare`` takes; see its ``--help``."""

    models: tuple[Path, ...]
    providers: tuple[str, ...]
    labels: Path | None
    metric: Metric | Literal["auto"]
    text: str | None
    report: Path | None

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

    The first model, on the CPU, is the reference. With --metric only that number is
    measured, and nothing is timed. With --diverge the first node that differs is looked for.
    --report writes all that was found, and where the differences come from, into one HTML file
    that loads nothing.
    """
    from onnxq.runtime.engine_cache import check_used
    from onnxq.runtime.provider_options import check_heeded

    check_heeded(arguments.providers)
    check_used(arguments.providers)
    if arguments.search_asked:
        _check_search(arguments)
        return diverge.run(arguments, arguments.models, arguments.given(), arguments.providers)
    from onnxq.compare.compare import compare as compare_models
    from onnxq.compare.metric import compare_by
    from onnxq.compare.report import check_report, write_report

    models, data, providers = arguments.models, arguments.given(), arguments.providers
    if arguments.metric != "auto" and arguments.more_asked:
        _refuse_beside("--metric")
    if arguments.report is not None:
        check_report(arguments.report, models)
    search_session.check(arguments)
    with bars() as report:
        if arguments.metric == "auto":
            found = compare_models(
                models, data, providers=providers, labels=arguments.labels, report=report
            )
        else:
            found = compare_by(arguments.metric, models, data, providers=providers, report=report)
        found, files = search_session.measure(arguments, found, data, report)
        if arguments.report is not None:
            command_line = shlex.join(["onnxq", *click.get_current_context().obj])
            write_report(found, data, arguments.report, command=command_line, report=report)
    from onnxq.cli import show_compare, show_session

    return Outcome(
        {
            **json_output.compared(found, arguments.report),
            **json_output.searched_session(found, files),
        },
        lambda: chain(
            show_compare.views(found, arguments.report), show_session.views(found, files)
        ),
    )


def _check_search(arguments: Arguments) -> None:
    from onnxq.errors import UsageError

    unused = {
        "--metric": arguments.metric != "auto",
        "--labels": arguments.labels is not None,
        "--batches, --threads, --save-session": arguments.more_asked,
        "--report": arguments.report is not None,
    }
    for name in (name for name, given in unused.items() if given):
        code, text = "usage.arguments", f"{name}: --diverge measures nothing"
        raise UsageError(code, text, remedy="Run it twice.")


def _refuse_beside(name: str) -> None:
    from onnxq.errors import UsageError

    code, text = "usage.arguments", f"{name} times nothing, and there are options that do"
    remedy = "Leave it out, or --batches, --threads and --save-session."
    raise UsageError(code, text, remedy=remedy)


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
        *search_session.OPTIONS,
        *diverge.OPTIONS,
        click.Option(
            ["--report"],
            type=click.Path(path_type=Path),
            metavar="OUT.html",
            help="Also write a report: one file that opens offline.",
        ),
        parameters.PREPROCESS,
        parameters.TOKENIZER,
        parameters.LABELS,
        parameters.CUSTOM_OPS,
        parameters.PROVIDER_OPTION,
        parameters.ENGINE_CACHE,
    ],
)
