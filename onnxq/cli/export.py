"""``onnxq export``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from onnxq.cli import json_output, parameters
from onnxq.cli.command import command
from onnxq.cli.outcome import Outcome
from onnxq.cli.progress import bars
from onnxq.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from onnxq.export.options import Cache, Code, Dtype, Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What ``export`` takes; see its ``--help``."""

    source: str
    output: Path
    opset: int | None
    target: str | None
    dtype: Dtype
    task: str
    cache: Cache | None
    weights: Weights
    code: Code
    pre: Path | None
    post: Path | None
    with_preprocessing: bool
    inputs: tuple[str, ...]


def export(arguments: Arguments) -> Outcome:
    """Export a PyTorch model to ONNX and verify it against PyTorch.

    SOURCE is the folder of a Hugging Face checkpoint (config.json and safetensors), an
    ExportedProgram (.pt2) or TorchScript file, or pkg.module:factory: a function without arguments
    that returns an onnxq.export.ExportSpec, or a tuple of the module and its example inputs. An
    encoder with its decoder becomes a folder OUT with encoder.onnx and decoder.onnx. With
    --with-preprocessing, or --pre and --post, the result is a bundle, which takes JPEG bytes or
    texts (`onnxq bundle --help`).
    """
    from onnxq.export import ExportOptions, Processing, export_with_processing
    from onnxq.export import export as export_module

    options = ExportOptions(
        opset=arguments.opset,
        target=arguments.target or "cpu",
        dtype=arguments.dtype,
        task=arguments.task,
        cache=arguments.cache,
        weights=arguments.weights,
        code=arguments.code,
        inputs=arguments.inputs,
    )
    processing = Processing(arguments.pre, arguments.post)
    if arguments.with_preprocessing and processing != Processing():
        code, text = "usage.arguments", "--with-preprocessing takes both parts from the checkpoint"
        remedy = "leave it out, and name the checkpoint's folder by --pre or --post instead"
        raise UsageError(code, text, where="--with-preprocessing", remedy=remedy)
    from onnxq.cli import show

    with bars() as report:

        def progress(done: int, total: int) -> None:
            report("export", done, total)

        if arguments.with_preprocessing or processing != Processing():
            result, bundle = export_with_processing(
                arguments.source, arguments.output, processing, options=options, progress=progress
            )
            return Outcome(
                json_output.exported_bundle(result, bundle),
                lambda: show.exported_bundle(result, bundle),
            )
        result = export_module(
            arguments.source, arguments.output, options=options, progress=progress
        )
    return Outcome(json_output.exported(result), lambda: show.exported(result))


_CACHES: Final[Mapping[bool | None, Cache | None]] = {
    None: None,
    True: "with-past",
    False: "without-past",
}

COMMAND = command(
    export,
    Arguments,
    [
        click.Argument(["source"]),
        parameters.OUTPUT,
        click.Option(
            ["--opset"],
            type=click.IntRange(min=1),
            help="Operator set version.  [default: 18, or what the target needs]",
        ),
        parameters.TARGET,
        click.Option(
            ["--dtype"],
            type=click.Choice(["keep", "float32", "float16", "bfloat16"]),
            default="keep",
            help="Type of the weights and of what is computed.  [default: the source's]",
        ),
        click.Option(
            ["--task"],
            default="",
            help="What a checkpoint's model does, such as text-generation.  "
            "[default: what config.json says]",
        ),
        click.Option(
            ["--with-preprocessing"],
            is_flag=True,
            help="Put into the model what the checkpoint's folder says of its pre- and "
            "postprocessing.",
        ),
        parameters.PRE,
        parameters.POST,
        click.Option(
            ["--with-past/--without-past", "cache"],
            default=None,
            callback=lambda _context, _option, given: _CACHES[given],
            help="Whether a decoder takes and gives the keys and values of earlier tokens.  "
            "[default: with-past]",
        ),
        click.Option(
            ["--input", "inputs"],
            multiple=True,
            metavar="NAME=TYPE[AXES]",
            help="An input of a TorchScript file, such as image=float32[batch,3,224,224]; a name "
            "instead of a length lets an axis vary.",
        ),
        click.Option(
            ["--allow-pickle", "weights"],
            is_flag=True,
            callback=lambda _context, _option, given: "pickle" if given else "safetensors",
            help="Read tensors, and nothing else, from a checkpoint that is a pickle.",
        ),
        click.Option(
            ["--trust-remote-code", "code"],
            is_flag=True,
            callback=lambda _context, _option, given: "checkpoint" if given else "installed",
            help="Execute the Python files that a checkpoint brings.",
        ),
    ],
)
