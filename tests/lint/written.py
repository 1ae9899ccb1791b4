"""What ``quantize`` writes, in every form that a target does not advise against, and linted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, get_args

from onnxq.pipeline import RunOptions, quantize
from onnxq.recipe import Recipe
from onnxq.recipe.schema import BlockAlgorithm
from tests.lint.here import failing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from onnxq.data import DataLike

_PLAIN: Final = {"weights": {"algorithm": "rtn"}}

FORMS: Final[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {
    "cpu": {
        "int8": {"scheme": "int8"},
        "int8, qoperator": {"scheme": "int8", "format": "qoperator"},
        "int8, scaled": {"scheme": "int8", "channel_scaling": "auto"},
        "int8-dynamic": {"scheme": "int8-dynamic"},
        "int8-weights": {"scheme": "int8-weights"},
        "int8-weights, blocks": {"scheme": "int8-weights", **_PLAIN},
        "int2": {"scheme": "int2", **_PLAIN},
        "uint4": {"scheme": "uint4", **_PLAIN},
        **{
            f"int4, {name}": {"scheme": "int4", "weights": {"algorithm": name}}
            for name in get_args(BlockAlgorithm)
        },
        "int4, symmetric": {"scheme": "int4", "weights": {"algorithm": "rtn", "symmetric": True}},
        "float16": {"scheme": "float16"},
        "bfloat16": {"scheme": "bfloat16"},
        "auto": {"scheme": "auto"},
    },
    "tensorrt": {
        "int8": {"scheme": "int8"},
        "int8, scaled": {"scheme": "int8", "channel_scaling": "auto"},
        "int8-weights": {"scheme": "int8-weights"},
        "fp8": {"scheme": "fp8"},
        "int4": {"scheme": "int4", **_PLAIN},
        "float16": {"scheme": "float16"},
        "auto": {"scheme": "auto"},
    },
    "cuda": {
        "int8-weights": {"scheme": "int8-weights"},
        "int8-weights, blocks": {"scheme": "int8-weights", **_PLAIN},
        "int4": {"scheme": "int4", **_PLAIN},
        "uint4": {"scheme": "uint4", **_PLAIN},
        "float16": {"scheme": "float16"},
        "auto": {"scheme": "auto"},
    },
}
"""Parts of a recipe by target and name."""

EVERY: Final = tuple((target, form) for target, forms in FORMS.items() for form in forms)
"""Each target with each of its forms."""


def write(model: Path, data: DataLike | None, output: Path, target: str, form: str) -> None:
    """Quantize a model in a form; nothing is timed."""
    recipe = {
        "version": 1,
        "target": target,
        "channel_scaling": "off",
        "calibration": {"method": "minmax", "samples": 8},
        **FORMS[target][form],
    }
    options = RunOptions(timing=None)
    quantize(model, data, output, recipe=Recipe.model_validate(recipe), options=options)


def told(model: Path, output: Path, target: str) -> list[str]:
    """Errors and warnings of lint in a result that the float model does not have."""
    found = failing(output, target)
    if not found:
        return []
    before = {finding.rule for finding in failing(model, target)}
    return [f"{f.rule} at {f.node!r}: {f.message}" for f in found if f.rule not in before]
