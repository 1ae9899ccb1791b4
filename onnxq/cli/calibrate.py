"""``onnxq calibrate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from onnxq.cli import json_output, parameters
from onnxq.cli.command import command
from onnxq.cli.outcome import Outcome
from onnxq.cli.parameters import RecipeArguments, build_recipe
from onnxq.cli.progress import bars

_PATH = click.Path(path_type=Path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments(RecipeArguments):
    """What ``calibrate`` takes; see its ``--help``."""

    model: Path
    output: Path | None
    calibration_table: Path | None


def calibrate(arguments: Arguments) -> Outcome:
    """Collect the statistics that quantizing MODEL needs, or a table of ranges for TensorRT."""
    recipe = build_recipe(arguments)
    _check(arguments)
    from onnxq import pipeline
    from onnxq.stages.calibration_table import export_calibration_table

    run = table = None
    with bars() as report:
        model, data = arguments.model, arguments.reading(arguments.data)
        if arguments.output is not None:
            run = pipeline.calibrate(model, data, arguments.output, recipe=recipe, report=report)
        if arguments.calibration_table is not None:
            table = export_calibration_table(
                model, data, arguments.calibration_table, recipe=recipe, report=report
            )
    from onnxq.cli.show import calibrated

    return Outcome(
        json_output.calibrated(arguments.output, run, table),
        lambda: calibrated(arguments.output, run, table),
    )


def _check(arguments: Arguments) -> None:
    """Refuse before the first of two passes what could only fail at the second."""
    from onnxq.errors import UsageError
    from onnxq.graph.io import check_output

    output, table = arguments.output, arguments.calibration_table
    if output is None and table is None:
        code, text = "usage.arguments", "there is nothing to write"
        raise UsageError(code, text, remedy="Give -o STATS, --calibration-table TABLE, or both.")
    if table is not None:
        if output is not None and output.absolute() == table.absolute():
            code, text = "usage.arguments", "-o and --calibration-table name the same file"
            raise UsageError(code, text, where=str(table), remedy="Name two files.")
        check_output(table, model=arguments.model)


COMMAND = command(
    calibrate,
    Arguments,
    [
        parameters.MODEL,
        parameters.DATA_REQUIRED,
        parameters.PREPROCESS,
        parameters.TOKENIZER,
        click.Option(
            ["-o", "--output"], type=_PATH, metavar="STATS", help="File of statistics to write."
        ),
        click.Option(
            ["--calibration-table"],
            type=_PATH,
            metavar="TABLE",
            help="Write the ranges of all activations of MODEL as it is, for TensorRT's implicit "
            "INT8 (trt_int8_calibration_table_name). auto takes those of least squared error.",
        ),
        parameters.RECIPE,
        parameters.TARGET,
        parameters.CALIBRATION,
        parameters.SAMPLES,
        parameters.MEMORY_BUDGET,
        parameters.CUSTOM_OPS,
        parameters.PROVIDER_OPTION,
        parameters.SEED,
    ],
)
