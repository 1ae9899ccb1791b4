"""From TOML to a recipe, with errors that name the file, the key and what was meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxq.errors import RecipeError
from onnxq.recipe.schema import Recipe
from onnxq.settings import SettingsFile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_FILE = SettingsFile(
    model=Recipe,
    noun="recipe",
    code="recipe",
    error=RecipeError,
    tables="[calibration] and [[rules]]",
)


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe.

    Raises:
        RecipeError: There is no such file, it is not TOML, or it does not say what a recipe says.
    """
    return _FILE.load(path)


def parse_recipe(document: Mapping[str, Any], *, where: str = "recipe") -> Recipe:
    """Check a recipe that was read as a mapping.

    Args:
        document: The keys and values; ``version`` must be among them.
        where: The file, for messages.

    Raises:
        RecipeError: An unknown key, a missing one, or a value that is not allowed.
    """
    return _FILE.parse(document, where=where)
