"""What a Hugging Face checkpoint folder says of a decoder; its weights and code stay untouched.

Read are ``config.json``, ``generation_config.json`` and the tokenizer's files, each a regular file
inside the folder (the Hub's cache keeps them in ``blobs/`` beside ``snapshots/``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from onnxq.errors import UsageError
from onnxq.files import read_regular

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer_config.json")
"""Without these onnxruntime-genai makes no tokenizer."""

_FURTHER_FILES: Final = (
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
_MOST_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class Decoder:
    """A decoder as its checkpoint's configuration describes it.

    Attributes:
        kind: The ``model_type``.
        layers: Number of layers.
        heads: Heads of queries.
        cache_heads: Heads of keys and values.
        head_size: Width of a head.
        hidden_size: Width of the residual stream.
        vocabulary: Number of tokens that have a row in the table.
        context: The most tokens of a text.
        bos: The token that begins a text, if there is one.
        eos: The tokens that end one.
        pad: The token that fills up.
        windowed: Whether a layer sees only the last tokens.
    """

    kind: str
    layers: int
    heads: int
    cache_heads: int
    head_size: int
    hidden_size: int
    vocabulary: int
    context: int
    bos: int | None
    eos: tuple[int, ...]
    pad: int
    windowed: bool = False


def read_decoder(folder: Path) -> Decoder:
    """Read a decoder's configuration.

    Raises:
        UsageError: A file is missing, damaged or outside the folder, or lacks what a decoder has.
    """
    path = folder / "config.json"
    config = read_json(folder, "config.json")
    # Models of several parts keep the decoder's numbers apart.
    text = config.get("text_config", config)
    config = {**config, **text} if isinstance(text, dict) else config
    generation = {}
    if (folder / "generation_config.json").exists():
        generation = read_json(folder, "generation_config.json")
    heads = _count(config, path, "num_attention_heads", "n_head")
    hidden = _count(config, path, "hidden_size", "n_embd")
    eos = _tokens(generation.get("eos_token_id")) or _tokens(config.get("eos_token_id"))
    if not eos:
        code = "deploy.config"
        text = "eos_token_id is missing: no text would end"
        raise UsageError(code, text, where=str(path), remedy="add it to config.json")
    bos = _tokens(generation.get("bos_token_id", config.get("bos_token_id")))
    pad = _tokens(generation.get("pad_token_id")) or _tokens(config.get("pad_token_id"))
    return Decoder(
        kind=str(config.get("model_type") or ""),
        layers=_count(config, path, "num_hidden_layers", "n_layer"),
        heads=heads,
        cache_heads=_count(config, path, "num_key_value_heads", default=heads),
        head_size=_count(config, path, "head_dim", default=hidden // heads),
        hidden_size=hidden,
        vocabulary=_count(config, path, "vocab_size"),
        context=_count(config, path, "max_position_embeddings", "n_positions"),
        bos=bos[0] if bos else None,
        eos=eos,
        pad=pad[0] if pad else eos[0],
        windowed=_sees_a_window(config),
    )


def tokenizer_files(folder: Path) -> dict[str, bytes]:
    """The tokenizer's files by name.

    Raises:
        UsageError: One that is needed is missing, or one cannot be read.
    """
    for name in TOKENIZER_FILES:
        if not (folder / name).exists():
            code = "deploy.no_tokenizer"
            text = f"the tokenizer's {name} is missing"
            remedy = "save it there: AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)"
            raise UsageError(code, text, where=str(folder), remedy=remedy)
    names = (*TOKENIZER_FILES, *(name for name in _FURTHER_FILES if (folder / name).exists()))
    found = {name: _content(folder, name) for name in names}
    for name in TOKENIZER_FILES:
        read_json(folder, name)
    return found


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """An object from one of the folder's files.

    Raises:
        UsageError: It is missing, no JSON object, or lies outside the folder.
    """
    where = str(folder / name)
    try:
        found = json.loads(_content(folder, name))
    except (ValueError, RecursionError) as error:
        code, text = "deploy.no_json", f"it is no JSON: {error}"
        raise UsageError(code, text, where=where, remedy="copy the file again") from error
    if not isinstance(found, dict):
        code, text = "deploy.no_json", "it holds no JSON object"
        raise UsageError(code, text, where=where, remedy="copy the file again")
    return found


def _content(folder: Path, name: str) -> bytes:
    path, root = folder / name, folder.resolve()
    if root.parent.name == "snapshots":
        root = root.parent.parent
    try:
        if not path.resolve().is_relative_to(root):
            code, text = "deploy.outside", "it is a link that leads out of the folder"
            raise UsageError(code, text, where=str(path), remedy="put the file itself there")
        return read_regular(path, _MOST_BYTES)
    except FileNotFoundError as error:
        code, text = "deploy.no_file", "the file is missing"
        remedy = "name a Hugging Face checkpoint folder"
        raise UsageError(code, text, where=str(path), remedy=remedy) from error
    except OSError as error:
        code, text = "deploy.unreadable", f"it cannot be read: {error.strerror or error}"
        raise UsageError(code, text, where=str(path)) from error


def _count(config: Mapping[str, Any], path: Path, *names: str, default: int = 0) -> int:
    """A positive number under the first of these names that is given."""
    given = next((config[name] for name in names if config.get(name) is not None), default)
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        code, text = "deploy.config", f"{names[0]} is missing, or no positive number"
        remedy = "name the checkpoint of a decoder (a causal language model)"
        raise UsageError(code, text, where=str(path), remedy=remedy)
    return given


def _sees_a_window(config: Mapping[str, Any]) -> bool:
    kinds = config.get("layer_types")
    if isinstance(kinds, list):
        return any(kind != "full_attention" for kind in kinds)
    if config.get("use_sliding_window") is False:
        return False
    return any(config.get(name) for name in ("sliding_window", "attention_chunk_size"))


def _tokens(given: object) -> tuple[int, ...]:
    found = given if isinstance(given, list) else [given]
    return tuple(i for i in found if isinstance(i, int) and not isinstance(i, bool) and i >= 0)
