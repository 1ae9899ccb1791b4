"""What the inputs of language models are, told by the names that exporters give them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Collection

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
    """What an input is for; None for any other."""
    return role_of_name(spec.name)


def role_of_name(name: str) -> Role | None:
    """What an input of this name is for; TensorFlow's ``:0`` counts as nothing."""
    name = name.removesuffix(":0")
    if name in _NAMES:
        return _NAMES[name]
    return "past" if _PAST.fullmatch(name) else None


def present_of(past: str, outputs: Collection[str]) -> str | None:
    """The output that is the next run's input ``past``; None if none is called so."""
    layer = re.sub("^past_key_values?", "", past)
    names = (f"present{layer}", f"present_key_values{layer}", past.replace("past", "present", 1))
    return next((name for name in names if name in outputs), None)
