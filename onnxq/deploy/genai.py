"""A folder that onnxruntime-genai loads: ``genai_config.json``, tokenizer, ``model.onnx``.

What the configuration says comes from the checkpoint's ``config.json`` and from the graph, and
where both say something they must agree: layers, heads of the cache, head size, tokens that are
scored. (https://onnxruntime.ai/docs/genai/reference/config.html)
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from onnxq.deploy.cache import cache_of
from onnxq.deploy.checkpoint import TOKENIZER_FILES, read_json
from onnxq.errors import ModelError, UsageError
from onnxq.graph.io import load

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from onnxq.deploy.cache import CacheGraph
    from onnxq.deploy.checkpoint import Decoder

CONFIG: Final = "genai_config.json"
MODEL: Final = "model.onnx"
_ANY: Final = "decoder"
_KINDS: Final = frozenset(
    [
        "chatglm",
        "ernie4_5",
        "gemma",
        "gemma2",
        "gemma3_text",
        "gpt2",
        "gptoss",
        "granite",
        "internlm2",
        "llama",
        "mistral",
        "nemotron",
        "olmo",
        "phi",
        "phi3",
        "phi3small",
        "phimoe",
        "qwen2",
        "qwen3",
        "smollm3",
    ]
)
"""Model types that onnxruntime-genai 0.18 knows; any other decoder is just a ``decoder`` to it."""


def configuration(decoder: Decoder, cache: CacheGraph, *, shared: bool) -> dict[str, Any]:
    """What ``genai_config.json`` holds.

    Args:
        decoder: What the checkpoint says.
        cache: What the graph says; they agree.
        shared: Whether past and present may be one buffer, which GroupQueryAttention writes into.
    """
    past_key, past_value = cache.past
    present_key, present_value = cache.present
    inputs = {**cache.inputs, "past_key_names": past_key, "past_value_names": past_value}
    outputs = {
        "logits": cache.logits,
        "present_key_names": present_key,
        "present_value_names": present_value,
    }
    eos: int | list[int] = decoder.eos[0] if len(decoder.eos) == 1 else list(decoder.eos)
    begin = {} if decoder.bos is None else {"bos_token_id": decoder.bos}
    return {
        "model": {
            **begin,
            "context_length": decoder.context,
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": MODEL,
                "head_size": decoder.head_size,
                "hidden_size": decoder.hidden_size,
                "inputs": inputs,
                "outputs": outputs,
                "num_attention_heads": decoder.heads,
                "num_hidden_layers": decoder.layers,
                "num_key_value_heads": decoder.cache_heads,
            },
            "eos_token_id": eos,
            "pad_token_id": decoder.pad,
            "type": decoder.kind if decoder.kind in _KINDS else _ANY,
            "vocab_size": decoder.vocabulary,
        },
        "search": {
            "do_sample": False,
            "max_length": decoder.context,
            "num_beams": 1,
            "past_present_share_buffer": shared,
        },
    }


def check_agreement(decoder: Decoder, cache: CacheGraph, where: str, config: str) -> None:
    """Refuse a configuration that belongs to another model.

    Raises:
        UsageError: A number of the configuration is not the graph's.
    """
    pairs = {
        "num_hidden_layers": (decoder.layers, cache.layers),
        "num_key_value_heads": (decoder.cache_heads, cache.heads),
        "head_size": (decoder.head_size, cache.head_size),
        "vocab_size": (decoder.vocabulary, cache.vocabulary),
    }
    for name, (said, found) in pairs.items():
        if found is not None and said != found:
            code = "deploy.other_model"
            text = f"{name} is {said}, the model {where} has {found}"
            remedy = "name the checkpoint that the model was exported from"
            raise UsageError(code, text, where=config, remedy=remedy)


def write_text(folder: Path, config: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """Write the configuration and the tokenizer's files."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    text = json.dumps(config, indent=2)
    (folder / CONFIG).write_text(f"{text}\n", encoding="utf-8")


def check_folder(folder: Path) -> CacheGraph:
    """Check that a folder is whole and its configuration that of its model.

    Returns:
        What the model is like.

    Raises:
        UsageError: A file is missing or no JSON, or the configuration names what the model lacks.
        ModelError: The model is no decoder with a cache.
    """
    where = str(folder / CONFIG)
    if not folder.is_dir():
        what = (
            "this is a file, a folder is checked" if folder.exists() else "there is no such folder"
        )
        code, remedy = "deploy.no_folder", "write one: onnxq deploy --as genai"
        raise UsageError(code, what, where=str(folder), remedy=remedy)
    if not (folder / CONFIG).exists():
        code, text = "deploy.no_file", "the file is missing"
        remedy = "name a folder of onnxq deploy --as genai; others have nothing to check"
        raise UsageError(code, text, where=where, remedy=remedy)
    said = read_json(folder, CONFIG).get("model")
    decoder = said.get("decoder") if isinstance(said, dict) else None
    if not isinstance(said, dict) or not isinstance(decoder, dict):
        code, text = "deploy.config", "model.decoder is missing"
        raise UsageError(code, text, where=where, remedy="write the folder again")
    model = _model_of(folder, decoder, where)
    for name in TOKENIZER_FILES:
        if not (folder / name).is_file():
            code, text = "deploy.no_tokenizer", f"{name} is missing"
            remedy = "copy it from the checkpoint"
            raise UsageError(code, text, where=str(folder), remedy=remedy)
    cache = cache_of(load(model), str(model))
    _check_names(decoder, cache, where)
    numbers = {
        "num_hidden_layers": cache.layers,
        "num_key_value_heads": cache.heads,
        "head_size": cache.head_size,
    }
    for name, found in {**numbers, "vocab_size": cache.vocabulary}.items():
        given = (said if name == "vocab_size" else decoder).get(name)
        if found is not None and given != found:
            code = "deploy.other_model"
            text = f"{name} is {given}, {model.name} has {found}"
            remedy = "write the folder again from the model and its own checkpoint"
            raise UsageError(code, text, where=where, remedy=remedy)
    return cache


def _model_of(folder: Path, decoder: Mapping[str, Any], where: str) -> Path:
    name = decoder.get("filename")
    if not isinstance(name, str) or name in {"", ".", ".."} or set(name) & set("/\\\0"):
        code, text = "deploy.config", f"model.decoder.filename is {name!r}, no name of a file"
        raise UsageError(code, text, where=where, remedy="name a file in the folder")
    if not (folder / name).is_file():
        code, text = "deploy.no_model", f"{name} is missing"
        raise ModelError(code, text, where=str(folder), remedy="write the folder again")
    return folder / name


def _check_names(decoder: Mapping[str, Any], cache: CacheGraph, where: str) -> None:
    inputs, outputs = decoder.get("inputs"), decoder.get("outputs")
    wanted_in = {
        **cache.inputs,
        "past_key_names": cache.past[0],
        "past_value_names": cache.past[1],
    }
    wanted_out = {
        "logits": cache.logits,
        "present_key_names": cache.present[0],
        "present_value_names": cache.present[1],
    }
    for kind, said, wanted in (("inputs", inputs, wanted_in), ("outputs", outputs, wanted_out)):
        given = said if isinstance(said, dict) else {}
        for role in sorted(given.keys() | wanted.keys()):
            # What onnxruntime-genai calls it is the default where nothing is said.
            name = given.get(role, role)
            if name != wanted.get(role):
                has = f"the model calls it {wanted[role]!r}" if role in wanted else "there is none"
                code = "deploy.names"
                text = f"{kind}.{role} is {name!r}: {has}"
                remedy = "write the folder again, or correct the name"
                raise UsageError(code, text, where=where, remedy=remedy)
