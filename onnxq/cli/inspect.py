"""``onnxq inspect``."""

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
    """What ``inspect`` takes; see its ``--help``."""

    model: Path


def inspect(arguments: Arguments) -> Outcome:
    """Show what MODEL holds, its sites, and why each can or cannot be quantized.

    With --data, also the error of each site when it alone is quantized, the worst first: which
    layer is it? Weights in blocks (int4, uint4, int2, and int8-weights with --algorithm) are
    quantized by each algorithm, and compared on tokens that were held out.
    """
    recipe = build_recipe(arguments)
    from onnxq import pipeline

    with bars() as report:
        data = arguments.reading(arguments.data)
        found = pipeline.inspect(arguments.model, data, recipe=recipe, report=report)
    from onnxq.cli.show_inspect import views

    return Outcome(json_output.inspected(found), lambda: views(found))


COMMAND = command(
    inspect,
    Arguments,
    [
        parameters.MODEL,
        parameters.DATA,
        parameters.SCHEME,
        parameters.algorithm("auto; none for int8-weights"),
        parameters.block_size("the first that quantize measures"),
        parameters.PREPROCESS,
        parameters.TOKENIZER,
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
