"""Tiny checkpoints with random weights, written by transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def write(folder: Path, kind: str, /, dtype: str = "float32", **settings: Any) -> Path:
    """Write a checkpoint of the class ``kind``; 32 channels, two layers.

    Args:
        folder: Where to.
        kind: The name of a model class of transformers.
        dtype: Type of the weights.
        **settings: Of its configuration.
    """
    import torch
    import transformers

    model_class = getattr(transformers, kind)
    config = model_class.config_class(**{**_SETTINGS.get(kind, {}), **settings})
    torch.manual_seed(0)
    model = model_class(config).to(getattr(torch, dtype))
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        model.save_pretrained(folder)
    finally:
        if bars:
            transformers.utils.logging.enable_progress_bar()
    return folder


_LLAMA = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_SETTINGS: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": _LLAMA,
    "MistralForCausalLM": {**_LLAMA, "head_dim": 8, "sliding_window": 4},
    "GPT2LMHeadModel": {
        "vocab_size": 64,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 128,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
}
