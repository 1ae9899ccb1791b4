"""What several commands take from the command line, declared once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from onnxq.data import Reading
    from onnxq.recipe import CalibrationSettings, Recipe

METHODS = ("minmax", "moving-average", "percentile", "entropy", "mse", "auto")
"""``onnxq.recipe.CalibrationMethod``, not imported from there because ``--help`` shall be quick."""

SCHEMES = (
    "auto",
    "int8",
    "int8-dynamic",
    "int8-weights",
    "fp8",
    "int4",
    "uint4",
    "int2",
    "float16",
    "bfloat16",
)
"""``onnxq.recipe.Scheme``, not imported from there either."""

ALGORITHMS = (
    "auto",
    "rtn",
    "mse",
    "hqq",
    "awq",
    "gptq",
    "mse+gptq",
    "hqq+gptq",
    "awq+gptq",
)
"""``onnxq.recipe.BlockAlgorithm``, not imported from there either."""

BLOCK_SIZES = ("16", "32", "64", "128", "256")

FORMATS = ("qdq", "qoperator")

METRICS = ("auto", "perplexity", "kl", "sqnr", "top1")
"""``auto`` and ``onnxq.compare.metric.Metric``."""

_PATH = click.Path(path_type=Path)
DATA_FORMS = (
    "a folder of .npz files (one a sample) or of images; one .npz or .npy; .txt, .jsonl, .csv or "
    ".parquet"
)

MODEL = click.Argument(["model"], type=_PATH)
OUTPUT = click.Option(
    ["-o", "--output"], type=_PATH, metavar="OUT", required=True, help="File to write."
)
DATA = click.Option(["--data"], metavar="DATA", help=f"Calibration data: {DATA_FORMS}.")
DATA_REQUIRED = click.Option(["--data"], metavar="DATA", required=True, help=DATA.help)
PREPROCESS = click.Option(
    ["--preprocess"],
    type=_PATH,
    metavar="FILE",
    help="How images and texts become inputs: a TOML file of steps, a checkpoint's folder or "
    "preprocessor_config.json, or an .onnx model that takes them.",
)
PRE = click.Option(
    ["--pre"],
    type=_PATH,
    metavar="SPEC",
    help="What makes the inputs, as for --preprocess of quantize: a TOML file of steps, a "
    "preprocessor_config.json, a tokenizer.json, a checkpoint's folder, or an .onnx.",
)
POST = click.Option(
    ["--post"],
    type=_PATH,
    metavar="SPEC",
    help="What becomes of the outputs: a TOML file with [classes], [embedding] or [boxes], a "
    "checkpoint's folder or config.json, or an .onnx.",
)
TOKENIZER = click.Option(
    ["--tokenizer"],
    type=_PATH,
    metavar="PATH",
    help="How texts become inputs: a tokenizer.json, or the folder that holds it.",
)
LABELS = click.Option(
    ["--labels"],
    type=_PATH,
    metavar="FILE",
    help="The right class of each row: .npy, or .txt or .csv with one integer a line.",
)
SCHEME = click.Option(
    ["--scheme"],
    type=click.Choice(SCHEMES),
    help="What to make; auto measures those of INT8, and says what it picked and why. int4, uint4 "
    "and int2 store weights of so many bits beside float activations; fp8 is for GPUs, with "
    "--target tensorrt.  [default: auto]",
)


def block_size(default: str) -> click.Option:
    """``--block-size``, with what holds where it is left out."""
    return click.Option(
        ["--block-size"],
        type=click.Choice(BLOCK_SIZES),
        metavar="N",
        help="Input channels that share a scale where weights are stored in blocks (int4, uint4, "
        "int2, int8-weights): 16, 32, 64, 128 or 256. Weights with fewer stay float.  "
        f"[default: {default}]",
    )


def algorithm(default: str) -> click.Option:
    """``--algorithm``, with what holds where it is left out."""
    return click.Option(
        ["--algorithm"],
        type=click.Choice(ALGORITHMS),
        help="How the integers of weights in blocks (int4, uint4, int2, int8-weights) are chosen; "
        "auto takes the best for each layer on tokens held out; rtn, mse and hqq need no data.  "
        f"[default: {default}]",
    )


RECIPE = click.Option(
    ["--recipe"], type=_PATH, metavar="FILE", help="Recipe (TOML); options override it."
)
TARGET = click.Option(["--target"], metavar="NAME", help="What will run the model.  [default: cpu]")
CALIBRATION = click.Option(
    ["--calibration"], type=click.Choice(METHODS), help="How ranges are chosen.  [default: auto]"
)
SAMPLES = click.Option(
    ["--samples"],
    type=click.IntRange(min=1),
    metavar="N",
    help="Calibrate on at most so many samples.",
)
MEMORY_BUDGET = click.Option(
    ["--memory-budget"],
    metavar="BYTES",
    help="What calibration may hold at once, like 500MB.  [default: 2GiB]",
)
CUSTOM_OPS = click.Option(
    ["--custom-ops"],
    multiple=True,
    metavar="LIB",
    help=(
        "Load this library of custom operators, native code that you trust, or `extensions` for "
        "that of onnxruntime-extensions; may be given again."
    ),
)
PROVIDER_OPTION = click.Option(
    ["--provider-option"],
    multiple=True,
    metavar="PROVIDER.KEY=VALUE",
    help=(
        "Set an option of an execution provider, as in tensorrt.trt_fp16_enable=1; may be given "
        "again."
    ),
)
ENGINE_CACHE = click.Option(
    ["--engine-cache"],
    type=_PATH,
    metavar="DIR",
    help="Keep the engines that TensorRT builds, and its timings of kernels, in this folder, and "
    "take them from there; made if it is not there.",
)
SEED = click.Option(
    ["--seed"],
    type=click.IntRange(min=0),
    metavar="N",
    help="Seeds the choice of samples and the held-out split.  [default: 0]",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataArguments:
    """Data, and how it is read."""

    data: str | None = None
    preprocess: Path | None = None
    tokenizer: Path | None = None

    def reading(self, source: str | None) -> Reading | None:
        """Data read as the command line says; None where there is none."""
        from onnxq.data.reading import Reading

        return None if source is None else Reading(source, self.preprocess, self.tokenizer)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeArguments(DataArguments):
    """Data, a recipe, and what overrides it; None and empty leave the recipe's own."""

    recipe: Path | None = None
    scheme: str | None = None
    block_size: str | None = None
    algorithm: str | None = None
    format: str | None = None
    target: str | None = None
    calibration: str | None = None
    samples: int | None = None
    memory_budget: str | None = None
    seed: int | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


def build_recipe(arguments: RecipeArguments) -> Recipe:
    """The recipe of the file, or the default one, with what the command line says of it.

    Raises:
        RecipeError: The file, an amount of memory or a pattern is wrong.
    """
    from onnxq.recipe import Recipe, load_recipe

    recipe = Recipe() if arguments.recipe is None else load_recipe(arguments.recipe)
    top = {key: getattr(arguments, key) for key in ("scheme", "format", "target", "seed")}
    changed: dict[str, Any] = {key: value for key, value in top.items() if value is not None}
    changed["calibration"] = _calibration(arguments, recipe.calibration)
    weights: dict[str, Any] = {}
    if arguments.block_size is not None:
        weights["block_size"] = int(arguments.block_size)
    if arguments.algorithm is not None:
        weights["algorithm"] = arguments.algorithm
    changed["weights"] = recipe.weights.model_copy(update=weights)
    recipe = recipe.model_copy(update=changed)
    return recipe.narrowed(include=arguments.include, exclude=arguments.exclude)


def _calibration(arguments: RecipeArguments, settings: CalibrationSettings) -> CalibrationSettings:
    from onnxq.errors import RecipeError
    from onnxq.recipe import CalibrationSettings, parse_bytes

    changed = {
        "method": arguments.calibration,
        "samples": arguments.samples,
        "memory_budget": None,
    }
    if arguments.memory_budget is not None:
        try:
            changed["memory_budget"] = parse_bytes(arguments.memory_budget)
        except RecipeError as error:
            code, text = error.code, error.message
            raise RecipeError(code, text, where="--memory-budget", remedy=error.remedy) from error
    given = {key: value for key, value in changed.items() if value is not None}
    return CalibrationSettings.model_validate({**settings.model_dump(), **given})
