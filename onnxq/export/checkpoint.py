"""A Hugging Face checkpoint folder, looked at before any library reads it.

Only ``config.json`` and the headers of safetensors files are read here. What this refuses:
    files that are missing or damaged, shards that the index names and the folder lacks;
    paths that lead out of the folder, by ``..`` or by a link (the Hub's own cache keeps files one
    level up, in ``blobs/`` beside ``snapshots/``: that counts as inside);
    pickles, unless they are asked for; code (``auto_map``), unless it is trusted;
    weights under a name of config.json's choice, which may be a pickle or lead out of the folder;
    weights that are quantized already, and adapters, which name another checkpoint.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from onnxq.errors import UsageError, listed
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
    """

    folder: Path
    config: Mapping[str, Any]
    dtype: str

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
    _check_code(folder, config, code)
    if "quantization_config" in config:
        method = config["quantization_config"]
        name = method.get("quant_method", "") if isinstance(method, dict) else ""
        text = f"the weights are quantized already{f' ({name})' if name else ''}"
        remedy = "export the float checkpoint that they were made from"
        raise UsageError(code="export.quantized", message=text, where=str(folder), remedy=remedy)
    if (folder / "adapter_config.json").exists():
        text = "an adapter lies in this folder, which belongs to another checkpoint"
        remedy = "merge it into its base model (peft: merge_and_unload) and save that"
        raise UsageError(code="export.adapter", message=text, where=str(folder), remedy=remedy)
    if config.get("transformers_weights"):
        # Transformers would read that file instead of those which are looked at here.
        text = f"it names another file of weights (transformers_weights), not {SAFETENSORS}"
        remedy = f"call that file {SAFETENSORS}, and take the entry out"
        where = str(folder / CONFIG)
        raise UsageError(code="export.other_weights", message=text, where=where, remedy=remedy)
    files = _weight_files(folder, weights)
    return Checkpoint(folder, config, _dtype(files))


def _check_links(folder: Path) -> None:
    root = folder.resolve()
    if root.parent.name == "snapshots":
        root = root.parent.parent
    for entry in sorted(folder.iterdir()):
        if entry.is_symlink() and not entry.resolve().is_relative_to(root):
            text = f"{entry.name} is a link that leads out of the checkpoint's folder"
            remedy = "put the file itself there"
            raise UsageError(code="export.outside", message=text, where=str(folder), remedy=remedy)


def _check_code(folder: Path, config: Mapping[str, Any], code: Code) -> None:
    if code == "checkpoint" or not config.get("auto_map"):
        return
    named = config["auto_map"]
    wanted = named.values() if isinstance(named, dict) else [named]
    text = f"the checkpoint brings code of its own (auto_map: {listed(list(map(str, wanted)), 3)})"
    remedy = "read that code; --trust-remote-code executes it"
    raise UsageError(
        code="export.remote_code", message=text, where=str(folder / CONFIG), remedy=remedy
    )


def _weight_files(folder: Path, weights: Weights) -> list[Path]:
    """The safetensors files, checked; none where a pickle is read."""
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
    if pickles[0].name != PICKLE:
        _shards(pickles[0])
    return []


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
    return [index.parent / name for name in names]


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
