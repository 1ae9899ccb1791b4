"""What the inputs of language models are, told by the names that exporters give them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from onnxq.graph.structure import InputSpec

Role = Literal["ids", "mask", "types", "positions", "past", "branch"]

_NAMES: dict[str, Role] = {
    "input_ids": "ids",
    "input_word_ids": "ids",
    "attention_mask": "mask",
    "input_mask": "mask",
    "token_type_ids": "types",
    "segment_ids": "types",
    "input_type_ids": "types",
    "position_ids": "positions",
    "use_cache_branch": "branch",
}
_PAST = re.compile(r"past(_key_values?|_key|_value)?(es|s)?[._\d].*")


def role_of(spec: InputSpec) -> Role | None:
    """What an input is for; None for any other. TensorFlow's ``:0`` counts as nothing."""
    name = spec.name.removesuffix(":0")
    if name in _NAMES:
        return _NAMES[name]
    return "past" if _PAST.fullmatch(name) else None
