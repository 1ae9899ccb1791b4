"""The size of the images that a checkpoint's model looks at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from onnxq.errors import UsageError
from onnxq.export.checkpoint import read_json

if TYPE_CHECKING:
    from pathlib import Path

PREPROCESSOR: Final = "preprocessor_config.json"


def image_size(config: Any, folder: Path) -> tuple[int, int]:
    """Return height and width: ``image_size`` of the model, else what the preprocessor makes.

    Raises:
        UsageError: If neither says it.
    """
    found = _size(getattr(config, "image_size", None))
    if found is None and (folder / PREPROCESSOR).exists():
        steps = read_json(folder / PREPROCESSOR, "export.bad_preprocessor")
        names = ("crop_size", "size") if steps.get("do_center_crop", True) else ("size",)
        found = next((size for name in names if (size := _size(steps.get(name)))), None)
    if found is None:
        text = f"the size of its images is unknown: neither image_size nor {PREPROCESSOR} says it"
        remedy = f"copy {PREPROCESSOR} into the folder"
        raise UsageError(code="export.image_size", message=text, where=str(folder), remedy=remedy)
    return found


def _size(given: object) -> tuple[int, int] | None:
    if isinstance(given, int):
        return (given, given)
    if isinstance(given, list | tuple) and len(given) == 2:
        return (int(given[0]), int(given[1]))
    if isinstance(given, dict) and {"height", "width"} <= given.keys():
        return (int(given["height"]), int(given["width"]))
    if isinstance(given, dict) and "shortest_edge" in given:
        return (int(given["shortest_edge"]),) * 2
    return None
