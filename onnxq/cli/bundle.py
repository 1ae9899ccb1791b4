"""``onnxq bundle``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxq.cli import json_output, parameters
from onnxq.cli.command import command
from onnxq.cli.outcome import Outcome

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What ``bundle`` takes; see its ``--help``."""

    model: Path
    output: Path
    pre: Path | None
    post: Path | None
    tokenizer: Path | None


def bundle(arguments: Arguments) -> Outcome:
    """Put pre- and postprocessing into MODEL: one file that takes JPEG bytes or texts.

    The result needs the operators of onnxruntime-extensions where it runs. quantize, inspect,
    calibrate and compare take it like any model, with a folder of images or a file of texts as
    data, and leave those parts alone.
    """
    from onnxq.bundle import bundle as make

    found = make(
        arguments.model,
        arguments.output,
        pre=arguments.pre,
        post=arguments.post,
        tokenizer=arguments.tokenizer,
    )
    from onnxq.cli.show import bundled

    return Outcome(json_output.bundled(found), lambda: bundled(found))


COMMAND = command(
    bundle,
    Arguments,
    [
        parameters.MODEL,
        parameters.PRE,
        parameters.POST,
        parameters.TOKENIZER,
        parameters.OUTPUT,
        parameters.CUSTOM_OPS,
    ],
)
