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
    cache: Cache
    weights: Weights
    code: Code


def export(arguments: Arguments) -> Outcome:
    """Export a PyTorch model to ONNX and verify it against PyTorch.

    SOURCE is the folder of a Hugging Face checkpoint (config.json and safetensors), or
    pkg.module:factory: a function without arguments that returns an onnxq.export.ExportSpec, or a
    tuple of the module and its example inputs.
    """
    from onnxq.export import ExportOptions
    from onnxq.export import export as export_module

    options = ExportOptions(
        opset=arguments.opset,
        target=arguments.target or "cpu",
        dtype=arguments.dtype,
        task=arguments.task,
        cache=arguments.cache,
        weights=arguments.weights,
        code=arguments.code,
    )
    with bars() as report:
        result = export_module(
            arguments.source,
            arguments.output,
            options=options,
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
            ["--with-past/--without-past", "cache"],
            default=True,
            callback=lambda _context, _option, given: "with-past" if given else "without-past",
            help="Whether a decoder takes and gives the keys and values of earlier tokens.",
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
