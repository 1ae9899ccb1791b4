"""From TOML to a recipe, with errors that name the file, the key and what was meant."""

from __future__ import annotations

import difflib
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from onnxq.errors import RecipeError
from onnxq.recipe.schema import (
    ActivationOverride,
    CalibrationSettings,
    Recipe,
    Rule,
    WeightOverride,
    WeightSettings,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

_TABLES: dict[tuple[str, ...], type[BaseModel]] = {
    (): Recipe,
    ("activation",): ActivationOverride,
    ("calibration",): CalibrationSettings,
    ("weights",): WeightSettings,
    ("rules",): Rule,
    ("rules", "activation"): ActivationOverride,
    ("rules", "weight"): WeightOverride,
}
_VERSION = 1


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe.

    Raises:
        RecipeError: There is no such file, it is not TOML, or it does not say what a recipe says.
    """
    path = Path(path)
    try:
        document = tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        code, text = "recipe.unreadable", f"the recipe cannot be read ({error.strerror})"
        raise RecipeError(code, text, where=str(path), remedy="Name a TOML file.") from error
    except UnicodeDecodeError as error:
        code, text = "recipe.syntax", "the recipe is not UTF-8 text"
        raise RecipeError(code, text, where=str(path), remedy="Name a TOML file.") from error
    except tomllib.TOMLDecodeError as error:
        code, text = "recipe.syntax", f"the recipe is not TOML: {error}"
        remedy = "Strings stand in quotes, tables as [calibration] and [[rules]]."
        raise RecipeError(code, text, where=str(path), remedy=remedy) from error
    return parse_recipe(document, where=str(path))


def parse_recipe(document: Mapping[str, Any], *, where: str = "recipe") -> Recipe:
    """Check a recipe that was read as a mapping.

    Args:
        document: The keys and values; ``version`` must be among them.
        where: The file, for messages.

    Raises:
        RecipeError: An unknown key, a missing one, or a value that is not allowed.
    """
    version = document.get("version")
    if version is None:
        code, text = "recipe.version", "the recipe does not say its version"
        raise RecipeError(code, text, where=where, remedy="Begin it with: version = 1")
    if isinstance(version, bool) or version != _VERSION:
        code, text = "recipe.version", f"version {version!r}; this onnxq reads version {_VERSION}"
        raise RecipeError(code, text, where=where, remedy="Write it for that version.")
    try:
        return Recipe.model_validate(dict(document))
    except ValidationError as error:
        # One error at a time: an unknown key first, for a misspelt one makes others follow.
        details = error.errors(include_url=False)
        chosen = next((d for d in details if d["type"] == "extra_forbidden"), details[0])
        raise _translated(chosen, where) from error


def _translated(detail: ErrorDetails, where: str) -> RecipeError:
    kind = detail["type"]
    if kind == "extra_forbidden":
        return _unknown_key(detail["loc"], where)
    if kind == "missing":
        text, remedy = f"the key {_key(detail['loc'])} is missing", "Add it."
        return RecipeError("recipe.missing_key", text, where=where, remedy=remedy)
    reason = str(detail["msg"]).removeprefix("Value error, ")
    reason = reason[:1].lower() + reason[1:]
    if kind == "value_error":
        # The model's own sentences already say what they are about.
        place = f"{_key(detail['loc'])}: " if detail["loc"] else ""
        return RecipeError("recipe.value", f"{place}{reason}", where=where)
    text = f"{_key(detail['loc'])} = {_shown(detail['input'])}: {reason}"
    allowed = re.findall(r"'([^']*)'", str(detail.get("ctx", {}).get("expected", "")))
    close = difflib.get_close_matches(str(detail["input"]), allowed, n=1)
    remedy = f"Did you mean {close[0]!r}?" if close else ""
    return RecipeError("recipe.value", text, where=where, remedy=remedy)


def _unknown_key(loc: tuple[int | str, ...], where: str) -> RecipeError:
    table = _TABLES.get(tuple(str(part) for part in loc[:-1] if isinstance(part, str)), Recipe)
    known = list(table.model_fields)
    close = difflib.get_close_matches(str(loc[-1]), known, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    text = f"unknown key {_key(loc)}"
    remedy = f"{hint}The keys here: {', '.join(known)}."
    return RecipeError("recipe.unknown_key", text, where=where, remedy=remedy)


def _key(loc: tuple[int | str, ...]) -> str:
    """``rules[2].match``, rules counted from 1 as people do."""
    parts = [f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in loc]
    return "".join(parts).removeprefix(".")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
