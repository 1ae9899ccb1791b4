"""A Hugging Face checkpoint folder, looked at before any library reads it.

Only ``config.json`` and the headers of safetensors files are read here. What this refuses:
    files that are missing or damaged, shards that the index names and the folder lacks;
    paths that lead out of the folder, by ``..`` or by a link (the Hub's own cache keeps files one
    level up, in ``blobs/`` beside ``snapshots/``: that counts as inside);
    pickles, unless they are asked for; adapters, which name another checkpoint;
    what :mod:`onnxq.export.config_check` finds in the configuration.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from onnxq.errors import UsageError, listed
from onnxq.export.config_check import check_config
from onnxq.files import read_regular

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxq.export.options import Code, Weights

CONFIG: Final = "config.json"
SAFETENSORS: Final = "model.safetensors"
PICKLE: Final = "pytorch_model.bin"
_JSON_LIMIT: Final = 64 << 20
_FLOATS: Final = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float32"}


@dataclass(frozen=True)
class Checkpoint:
    """A folder that may be loaded.

    Attributes:
        folder: The folder.
        config: What its ``config.json`` says.
        dtype: The type that most weights are stored in: ``"float32"``, ``"float16"`` or
            ``"bfloat16"``; empty where only a pickle knows.
        weights: The files that hold the weights, and the index that names them.
    """

    folder: Path
    config: Mapping[str, Any]
    dtype: str
    weights: tuple[Path, ...] = ()

    @property
    def architecture(self) -> str:
        """The first of ``architectures``, empty if there is none."""
        names = self.config.get("architectures")
        return str(names[0]) if isinstance(names, list) and names else ""


def open_checkpoint(folder: Path, *, weights: Weights, code: Code) -> Checkpoint:
    """Check a checkpoint folder.

    Raises:
        UsageError: If something is missing, damaged, outside the folder, or not to be trusted.
    """
    _check_links(folder)
    config = read_json(folder / CONFIG, "export.no_config")
    check_config(config, code, str(folder / CONFIG))
    if (folder / "adapter_config.json").exists():
        text = "an adapter lies in this folder, which belongs to another checkpoint"
        remedy = "merge it into its base model (peft: merge_and_unload) and save that"
        raise UsageError(code="export.adapter", message=text, where=str(folder), remedy=remedy)
    files = _weight_files(folder, weights)
    # A pickle has no header that tells a type.
    sound = [file for file in files if file.suffix == ".safetensors"]
    return Checkpoint(folder, config, _dtype(sound), tuple(files))


def _check_links(folder: Path) -> None:
    root = folder.resolve()
    if root.parent.name == "snapshots":
        root = root.parent.parent
    for entry in sorted(folder.iterdir()):
        if entry.is_symlink() and not entry.resolve().is_relative_to(root):
            text = f"{entry.name} is a link that leads out of the checkpoint's folder"
            remedy = "put the file itself there"
            raise UsageError(code="export.outside", message=text, where=str(folder), remedy=remedy)


def _weight_files(folder: Path, weights: Weights) -> list[Path]:
    """The files to read, checked, with their index."""
    if (folder / SAFETENSORS).exists():
        return [folder / SAFETENSORS]
    index = folder / f"{SAFETENSORS}.index.json"
    if index.exists():
        return _shards(index)
    pickles = [p for p in (folder / PICKLE, folder / f"{PICKLE}.index.json") if p.exists()]
    if not pickles:
        text = f"there are no weights: neither {SAFETENSORS} nor {index.name}"
        raise UsageError(
            code="export.no_weights", message=text, where=str(folder), remedy="copy the file here"
        )
    if weights != "pickle":
        text = f"the weights are a pickle ({pickles[0].name}), which can hold code"
        remedy = "save them as safetensors, or --allow-pickle reads tensors alone from it"
        raise UsageError(code="export.pickle", message=text, where=str(folder), remedy=remedy)
    return [pickles[0]] if pickles[0].name == PICKLE else _shards(pickles[0])


def _shards(index: Path) -> list[Path]:
    found = read_json(index, "export.bad_index").get("weight_map")
    where = str(index)
    if not isinstance(found, dict) or not found:
        raise UsageError(code="export.bad_index", message="it has no weight_map", where=where)
    names = sorted({str(name) for name in found.values()})
    for name in names:
        if Path(name).name != name or name in {".", ".."} or "\\" in name:
            text = f"it names {name!r}, which leads out of the checkpoint's folder"
            raise UsageError(
                code="export.outside", message=text, where=where, remedy="name files beside it"
            )
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        text = f"{len(missing)} of {len(names)} files are missing: {listed(missing, 3)}"
        raise UsageError(
            code="export.no_weights", message=text, where=where, remedy="copy them to the folder"
        )
    return [index, *(index.parent / name for name in names)]


def _dtype(files: list[Path]) -> str:
    """The type of most weights, by their number of elements."""
    counts: Counter[str] = Counter()
    for file in files:
        for kind, elements in _header(file):
            counts[_FLOATS.get(kind, "")] += elements
    del counts[""]
    return counts.most_common(1)[0][0] if counts else ""


def _header(file: Path) -> list[tuple[str, int]]:
    """Type and number of elements of each tensor in a safetensors file."""
    import math

    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as stored:
            slices = [stored.get_slice(name) for name in stored.keys()]  # noqa: SIM118
            return [(part.get_dtype(), math.prod(part.get_shape())) for part in slices]
    except (SafetensorError, OSError) as error:
        text = f"this is no sound safetensors file: {error}"
        remedy = "copy or download the file again"
        raise UsageError(
            code="export.damaged", message=text, where=str(file), remedy=remedy
        ) from error


def read_json(path: Path, code: str) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        UsageError: If it is missing, too large or something else.
    """
    try:
        content = json.loads(read_regular(path, _JSON_LIMIT))
    except FileNotFoundError as error:
        text, remedy = "the file is missing", "a checkpoint folder has one; copy it here"
        raise UsageError(code, text, where=str(path), remedy=remedy) from error
    except OSError as error:
        text = f"it cannot be read: {error.strerror or error}"
        raise UsageError(code, text, where=str(path)) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(code, f"it is no JSON: {error}", where=str(path)) from error
    if not isinstance(content, dict):
        raise UsageError(code, "it holds no JSON object", where=str(path))
    return content
