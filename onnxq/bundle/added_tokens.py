"""Tokens that a tokenizer looks for in a text before anything else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def is_odd(token: Mapping[str, Any]) -> bool:
    """Whether it takes blanks beside it, or only stands alone: a graph does not look for it."""
    return any(token.get(key) for key in ("lstrip", "rstrip", "single_word"))
