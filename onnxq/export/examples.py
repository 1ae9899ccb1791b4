"""Inputs that models are traced with and verified on: seeded, and padded where masks are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def token_ids(mask: Tensor, config: Any) -> Tensor:
    """Random tokens, int64 ``[batch, length]``; padding where the mask is 0, and nowhere else."""
    import torch

    generator = torch.Generator().manual_seed(1000 * mask.shape[0] + mask.shape[1])
    found = torch.randint(0, config.vocab_size, tuple(mask.shape), generator=generator)
    padding = getattr(config, "pad_token_id", None)
    if padding is None:
        return found
    other = padding - 1 if padding else 1
    return torch.where(found == padding, other, found).masked_fill(mask == 0, padding)


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


def longest(config: Any, most: int) -> int:
    """A length that the positions of a model reach, ``most`` if they do."""
    # Some models count positions from 2.
    positions = getattr(config, "max_position_embeddings", None)
    return most if positions is None else min(most, positions - 2)
