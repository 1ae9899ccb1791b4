"""Inputs that models are traced with and verified on: seeded, and padded where masks are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

PADDING = 3
"""How many tokens of the last row are padding, where there is some."""


def token_ids(batch: int, length: int, vocabulary: int) -> Tensor:
    """Random tokens, int64 ``[batch, length]``."""
    import torch

    generator = torch.Generator().manual_seed(1000 * batch + length)
    return torch.randint(0, vocabulary, (batch, length), generator=generator)


def floats(*shape: int, like: Tensor) -> Tensor:
    """Random normal numbers of the type of ``like``."""
    import torch

    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator).to(like.dtype)


def mask(batch: int, length: int, *, left: int = 0, right: int = 0) -> Tensor:
    """Ones, int64 ``[batch, length]``; the last row begins or ends with zeros."""
    import torch

    found = torch.ones(batch, length, dtype=torch.int64)
    found[-1, :left] = 0
    found[-1, length - right :] = 0
    return found
