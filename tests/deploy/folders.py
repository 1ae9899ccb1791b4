"""A small decoder with a cache, and the checkpoint folder that belongs to it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.small_decoder import GROUPS, HEAD, HEADS, LONGEST, VOCABULARY, WIDTH, save_decoder
from tests.word_tokenizer import save_tokenizer

if TYPE_CHECKING:
    from pathlib import Path


def save_checkpoint(folder: Path, **changed: Any) -> Path:
    """Write a configuration and a tokenizer; what is None is left out."""
    config = {
        "model_type": "llama",
        "hidden_size": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": HEADS,
        "num_key_value_heads": GROUPS,
        "head_dim": HEAD,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": LONGEST,
        "bos_token_id": 1,
        "eos_token_id": 2,
    } | changed
    folder.mkdir()
    text = json.dumps({key: value for key, value in config.items() if value is not None})
    (folder / "config.json").write_text(text, encoding="utf-8")
    save_tokenizer(folder)
    (folder / "tokenizer_config.json").write_text("{}", encoding="utf-8")
    return folder


def both(folder: Path, **changed: Any) -> tuple[Path, Path]:
    """The model, and the checkpoint folder that it might come from."""
    model = save_decoder(folder / "model.onnx")
    return model, save_checkpoint(folder / "checkpoint", **changed)
