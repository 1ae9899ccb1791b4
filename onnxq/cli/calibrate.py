"""``onnxq calibrate``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxq.cli import json_output, parameters
from onnxq.cli.command import command
from onnxq.cli.outcome import Outcome
from onnxq.cli.parameters import RecipeArguments, build_recipe
from onnxq.cli.progress import bars

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments(RecipeArguments):
    """What ``calibrate`` takes; see its ``--help``."""

    model: Path
    output: Path


def calibrate(arguments: Arguments) -> Outcome:
    """Collect the statistics that quantizing MODEL needs."""
    recipe = build_recipe(arguments)
    from onnxq import pipeline

    with bars() as report:
        data = arguments.reading(arguments.data)
        run = pipeline.calibrate(
            arguments.model, data, arguments.output, recipe=recipe, report=report
        )
    from onnxq.cli.show import calibrated

    return Outcome(
        json_output.calibrated(arguments.output, run), lambda: calibrated(arguments.output, run)
    )


COMMAND = command(
    calibrate,
    Arguments,
    [
        parameters.MODEL,
        parameters.DATA_REQUIRED,
        parameters.PREPROCESS,
        parameters.TOKENIZER,
        parameters.OUTPUT,
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
