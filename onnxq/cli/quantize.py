"""``onnxq quantize``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import click

from onnxq.cli import json_output, parameters
from onnxq.cli.command import command
from onnxq.cli.outcome import Outcome
from onnxq.cli.parameters import RecipeArguments, build_recipe
from onnxq.cli.progress import bars
from onnxq.errors import BoundMissedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments(RecipeArguments):
    """What ``quantize`` takes; see its ``--help``."""

    model: Path
    output: Path
    eval_data: str | None
    labels: Path | None
    plan_out: Path | None
    min_sqnr: float | None
    allow_miss: bool


def quantize(arguments: Arguments) -> Outcome:
    """Quantize MODEL and prove that the result is right, smaller and faster."""
    recipe = build_recipe(arguments)
    from onnxq import pipeline

    with bars() as report:
        options = pipeline.RunOptions(
            eval_data=arguments.reading(arguments.eval_data),
            labels=arguments.labels,
            min_sqnr=arguments.min_sqnr,
            allow_miss=arguments.allow_miss,
            plan_out=arguments.plan_out,
            report=report,
        )
        data = arguments.reading(arguments.data)
        result = pipeline.quantize(
            arguments.model, data, arguments.output, recipe=recipe, options=options
        )
    from onnxq.cli.show_quantize import views

    missed = None
    if result.missed:
        written = result.output is not None
        remedy = (
            "it is written all the same, because of --allow-miss"
            if written
            else "nothing is written; exclude the sites that cost most (`onnxq inspect MODEL "
            "--data DATA` lists them), or give --allow-miss"
        )
        code, where = "verify.bound_missed", str(arguments.output)
        missed = BoundMissedError(code, result.missed, where=where, remedy=remedy)
    return Outcome(json_output.quantized(result, missed), lambda: views(result), missed)


def _number(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        msg = f"{value} is not a number of decibels"
        raise click.BadParameter(msg)
    return value


_SITES = "a glob for a site's name, op:TYPE or re:REGEX; may be given again"

COMMAND = command(
    quantize,
    Arguments,
    [
        parameters.MODEL,
        parameters.OUTPUT,
        parameters.SCHEME,
        parameters.algorithm("awq+gptq with data, hqq without; rtn for int8-weights"),
        parameters.block_size("measured"),
        click.Option(
            ["--format"],
            type=click.Choice(parameters.FORMATS),
            help="How integers of int8 are written: float operators between QuantizeLinear and "
            "DequantizeLinear, or operators on integers, which only ONNX Runtime knows (domain "
            "com.microsoft).  [default: qdq]",
        ),
        parameters.RECIPE,
        parameters.DATA,
        click.Option(
            ["--eval-data"],
            metavar="DATA",
            help="Data to compare on; without it a part of DATA is kept from calibration.",
        ),
        parameters.PREPROCESS,
        parameters.TOKENIZER,
        parameters.LABELS,
        parameters.TARGET,
        parameters.CALIBRATION,
        parameters.SAMPLES,
        parameters.MEMORY_BUDGET,
        click.Option(
            ["--include"],
            multiple=True,
            metavar="PATTERN",
            help=f"Quantize only these sites: {_SITES}.",
        ),
        click.Option(
            ["--exclude"],
            multiple=True,
            metavar="PATTERN",
            help=f"Keep these sites float: {_SITES}.",
        ),
        click.Option(
            ["--plan-out"],
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="Folder for the plan, which `onnxq apply` executes.",
        ),
        click.Option(
            ["--min-sqnr"],
            type=float,
            metavar="DB",
            callback=_number,
            help="Least SQNR in dB; below it nothing is written and the exit status is 1.",
        ),
        click.Option(
            ["--allow-miss"], is_flag=True, help="Write the result even if it misses --min-sqnr."
        ),
        parameters.CUSTOM_OPS,
        parameters.PROVIDER_OPTION,
        parameters.ENGINE_CACHE,
        parameters.SEED,
    ],
)
