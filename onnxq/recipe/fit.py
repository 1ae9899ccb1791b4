"""What a recipe says must belong to its scheme: nothing that was asked for is passed over silently.

Options of the command line override the scheme of a file, so that this is seen only in the whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from onnxq.errors import UsageError
from onnxq.numerics.half import HALF_TYPES
from onnxq.recipe.schema import ActivationOverride

if TYPE_CHECKING:
    from onnxq.recipe.schema import CalibrationMethod, Recipe, WeightOverride

BITS: Final[dict[str, int]] = {"int4": 4, "uint4": 4, "int2": 2, "int8-weights": 8}
"""The widths of the schemes that store weights in blocks."""

_SETTINGS: Final = {
    "algorithm": tuple(BITS),
    "symmetric": tuple(BITS),
    "sequential": tuple(BITS),
    "block_size": (*BITS, "auto"),
}
"""The keys of ``[weights]`` that not every scheme has, and the schemes that do."""

_OVERRIDES: Final = ("block_size", "symmetric", "algorithm")
"""The keys of a rule's ``weight`` that are of blocks alone."""


def stores_blocks(recipe: Recipe) -> bool:
    """Whether integers of weights are chosen block by block.

    ``int8-weights`` without an algorithm is rounded to the nearest in the form that is fastest.
    """
    if recipe.scheme == "int8-weights":
        return recipe.weights.algorithm is not None
    return recipe.scheme in BITS


def check_fit(recipe: Recipe) -> None:
    """Refuse what the scheme cannot heed.

    Rules about integers are no error in float16 and bfloat16, whose plans warn of them.

    Raises:
        UsageError: A key of ``[weights]`` or of a rule's ``weight`` is of other schemes.
    """
    scheme, blocks = recipe.scheme, stores_blocks(recipe)
    for key, schemes in _SETTINGS.items():
        if getattr(recipe.weights, key) == type(recipe.weights).model_fields[key].default:
            continue
        if scheme not in schemes:
            text = f"{key} says how weights in blocks are stored, {scheme} has none"
            raise _refused(text, f"weights.{key}", f"it is of --scheme {', '.join(schemes)}")
        if key in {"symmetric", "sequential"} and not blocks:
            text = f"int8-weights heeds {key} only with an algorithm"
            raise _refused(text, f"weights.{key}", "give --algorithm too, such as awq or rtn")
    unsigned = "uint4 has zero points of its own; int4 may be symmetric"
    if scheme == "uint4" and recipe.weights.symmetric:
        raise _refused(unsigned, "weights.symmetric", "give --scheme int4")
    if scheme == "fp8":
        _check_float8(recipe)
    for number, rule in enumerate(recipe.rules, start=1):
        if rule.weight is None or scheme in HALF_TYPES:
            continue
        text = _misfit(rule.weight, scheme, blocks=blocks)
        if text:
            remedy = "leave it out, or give the scheme that it belongs to"
            raise _refused(text, f"rules[{number}].weight", remedy)


def _check_float8(recipe: Recipe) -> None:
    """Refuse other integers than FP8, and the method that lays values on evenly spaced levels."""
    _check_entry_of_float8("", recipe.activation, recipe.calibration.method)
    for number, rule in enumerate(recipe.rules, start=1):
        where = f"rules[{number}]."
        _check_entry_of_float8(where, rule.activation or ActivationOverride(), rule.calibration)
        if rule.weight is not None and rule.weight.bits is not None:
            text = f"bits = {rule.weight.bits} is of integers; fp8 has 8 bits"
            raise _refused(text, f"{where}weight.bits", "leave it out, or give --scheme int8")


def _check_entry_of_float8(
    where: str, activation: ActivationOverride, method: CalibrationMethod | None
) -> None:
    if activation != ActivationOverride():
        text = "activations of fp8 have its type, which is symmetric"
        raise _refused(text, f"{where}activation", "leave it out, or give --scheme int8")
    if method == "entropy":
        text = "entropy counts evenly spaced levels, fp8 has none"
        remedy = "take auto, minmax, mse or percentile"
        raise _refused(text, f"{where}calibration", remedy)


def _misfit(weight: WeightOverride, scheme: str, *, blocks: bool) -> str:
    """What of a rule a scheme has not; empty if it has all."""
    if blocks:
        if weight.granularity is not None:
            return f"granularity is of int8, int8-dynamic and int8-weights; {scheme} has blocks"
        if weight.bits is not None and weight.bits not in BITS.values():
            return f"bits = {weight.bits} is of int8 and int8-dynamic; blocks have 2, 4 or 8"
        return ""
    own = "without an algorithm " if scheme == "int8-weights" else ""
    if weight.bits is not None and weight.bits < 7:
        return f"bits = {weight.bits} is of weights in blocks; {scheme} {own}has 7 or 8"
    given = [key for key in _OVERRIDES if getattr(weight, key) is not None]
    return f"{given[0]} is of weights in blocks; {scheme} {own}has none" if given else ""


def _refused(text: str, where: str, remedy: str) -> UsageError:
    return UsageError("usage.scheme", text, where=where, remedy=remedy)
