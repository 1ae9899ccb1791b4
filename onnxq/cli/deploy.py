"""``onnxq deploy``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxq.cli import json_output, parameters
from onnxq.cli.command import command
from onnxq.cli.outcome import Outcome
from onnxq.errors import UsageError

if TYPE_CHECKING:
    from onnxq.deploy import Form

FORMS = ("genai", "script", "ort", "optimized")
"""``onnxq.deploy.Form``, not imported from there because ``--help`` shall be quick."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What ``deploy`` takes; see its ``--help``."""

    model: Path
    output: Path | None
    form: Form | None
    checkpoint: Path | None
    check: bool


def deploy(arguments: Arguments) -> Outcome:
    """Write a folder that an application runs MODEL from.

    genai is a decoder with a cache for onnxruntime-genai, with the tokenizer of its checkpoint;
    script is the model and a short program that runs it; ort is ONNX Runtime's own format, for
    phones and browsers; optimized is the graph as ONNX Runtime runs it on this processor. What is
    written was run first, and compared with MODEL. Nothing in a checkpoint is executed.
    """
    from onnxq import deploy as room
    from onnxq.cli.show import checked, deployed

    if arguments.check:
        _check_alone(arguments)
        cache = room.check_folder(arguments.model)
        return Outcome(
            json_output.checked(arguments.model), lambda: checked(arguments.model, cache)
        )
    if arguments.output is None:
        code, text = "usage.output", "missing option '-o' / '--output'"
        raise UsageError(code, text, remedy="name a new folder: -o OUT")
    made = room.deploy(
        arguments.model,
        arguments.output,
        arguments.form or "script",
        checkpoint=arguments.checkpoint,
    )
    return Outcome(json_output.deployed(made), lambda: deployed(made))


def _check_alone(arguments: Arguments) -> None:
    wanted = {
        "-o": arguments.output,
        "--as": arguments.form,
        "--checkpoint": arguments.checkpoint,
    }
    for option in (name for name, value in wanted.items() if value is not None):
        code, text = "usage.arguments", f"--check writes nothing, so {option} means nothing"
        raise UsageError(code, text, where=option, remedy="leave one of the two out")


COMMAND = command(
    deploy,
    Arguments,
    [
        parameters.MODEL,
        click.Option(
            ["-o", "--output"],
            type=click.Path(path_type=Path),
            metavar="OUT",
            help="Folder to write; there is none of this name yet, or it is empty.",
        ),
        click.Option(
            ["--as", "form"],
            type=click.Choice(FORMS),
            help="What the folder is for.  [default: script]",
        ),
        click.Option(
            ["--checkpoint"],
            type=click.Path(path_type=Path),
            metavar="FOLDER",
            help="The Hugging Face folder that the decoder was exported from, for genai.",
        ),
        click.Option(
            ["--check"],
            is_flag=True,
            help="Write nothing: check that the folder MODEL is whole and what it says is right.",
        ),
        parameters.CUSTOM_OPS,
    ],
)
