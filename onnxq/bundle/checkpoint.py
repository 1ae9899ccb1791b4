"""What a checkpoint's folder says of its model's outputs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from onnxq.bundle.postprocess import ClassSteps, EmbeddingSteps, Postprocess
from onnxq.errors import DataError
from onnxq.files import read_regular

if TYPE_CHECKING:
    from pathlib import Path

_POOLS: Final = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "first",
    "pooling_mode_max_tokens": "max",
}
_PREFIX: Final = "sentence_transformers.models."
_TOP: Final = 5
_MOST_BYTES: Final = 16 << 20


def of_checkpoint(folder: Path) -> Postprocess:
    """The steps for the outputs of the model that a folder holds.

    Raises:
        DataError: It says nothing of them, or something that onnxq does not do.
    """
    if (folder / "modules.json").is_file():
        return Postprocess(embedding=_embedding(folder))
    return of_config(folder / "config.json")


def says_outputs(folder: Path) -> bool:
    """Whether a folder says what becomes of its model's outputs."""
    if (folder / "modules.json").is_file():
        return True
    found = _read(folder / "config.json")
    return isinstance(found, dict) and bool(found.get("id2label"))


def of_config(path: Path) -> Postprocess:
    """The classes that a ``config.json`` names.

    Raises:
        DataError: It names none.
    """
    found = _read(path)
    names = found.get("id2label") if isinstance(found, dict) else None
    if not isinstance(names, dict) or not names:
        raise _refused(path, "it names no classes (id2label)")
    try:
        ordered = sorted((int(number), str(name)) for number, name in names.items())
    except ValueError as error:
        raise _refused(path, "a class in id2label has no number") from error
    if [number for number, _ in ordered] != list(range(len(ordered))):
        raise _refused(path, "the classes in id2label are not numbered from 0 on")
    labels = tuple(name for _, name in ordered)
    several = found.get("problem_type") == "multi_label_classification"
    scores = "sigmoid" if several else "softmax"
    steps = {"top": min(_TOP, len(labels)), "scores": scores, "labels": labels}
    return Postprocess(classes=ClassSteps.model_validate(steps))


def _embedding(folder: Path) -> EmbeddingSteps:
    path = folder / "modules.json"
    pool, normalize = "none", False
    modules: Any = _read(path)
    for module in modules:
        kind = str(module.get("type")).removeprefix(_PREFIX) if isinstance(module, dict) else ""
        if kind == "Pooling":
            pool = _pool(folder, str(module.get("path")))
        elif kind == "Normalize":
            normalize = True
        elif kind != "Transformer":
            raise _refused(path, f"onnxq does not do {kind or 'such a module'}")
    return EmbeddingSteps.model_validate({"pool": pool, "normalize": normalize})


def _pool(folder: Path, name: str) -> str:
    # Never outside the folder: a module's path is the name of a folder in it.
    if "/" in name or "\\" in name or name in {"", ".", ".."}:
        raise _refused(folder / "modules.json", f"{name!r} is no folder in it")
    path = folder / name / "config.json"
    found = _read(path)
    if not isinstance(found, dict):
        raise _refused(path, "it is no JSON object")
    asked = [key for key, value in found.items() if key.startswith("pooling_mode_") and value]
    if len(asked) != 1 or asked[0] not in _POOLS:
        raise _refused(path, f"onnxq does not do {' with '.join(asked) or 'no pooling'}")
    return _POOLS[asked[0]]


def _read(path: Path) -> Any:
    try:
        return json.loads(read_regular(path, _MOST_BYTES))
    except OSError as error:
        raise _refused(path, f"it cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise _refused(path, "it is no JSON") from error


def _refused(path: Path, why: str) -> DataError:
    code, remedy = "postprocess.checkpoint", "Say it in a TOML file: version = 1, [classes], ..."
    return DataError(code, why, where=str(path), remedy=remedy)
