"""Plans with weights in blocks whose integers are drawn at random, and what they stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.numerics.packing import pack_blocks
from onnxq.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from onnxq.plan import BlockEmbeddingEntry, BlockEntry

Arrays = dict[str, "NDArray[Any]"]


def plan_of(
    arrays: Arrays,
    blocks: Sequence[BlockEntry] = (),
    embeddings: Sequence[BlockEmbeddingEntry] = (),
) -> Plan:
    """A plan of nothing but these."""
    return Plan(
        onnxq_version="0",
        model_digest="sha256:model",
        data_digest="",
        scheme="test",
        target="cpu",
        minimum_opset=13,
        independent=True,
        sites=(),
        blocks=tuple(blocks),
        block_embeddings=tuple(embeddings),
        arrays=arrays,
    )


def drawn(
    name: str, channels: int, length: int, bits: int, block_size: int, *, symmetric: bool
) -> tuple[Arrays, NDArray[np.float64]]:
    """Arrays of a plan with integers of its own, and the matrix ``[N, K]`` that they stand for."""
    random = np.random.default_rng(channels * length)
    blocks = -(-length // block_size)
    integers = random.integers(0, 1 << bits, (channels, length)).astype(np.uint8)
    scale = (random.random((channels, blocks)) + 0.1).astype(np.float32)
    points = np.full((channels, blocks), 1 << (bits - 1))
    arrays: Arrays = {f"block/{name}/scale": scale}
    if not symmetric:
        points = random.integers(0, 1 << bits, (channels, blocks))
        arrays[f"block/{name}/zero_point"] = points.astype(np.uint8)
    arrays[f"block/{name}/packed"] = pack_blocks(integers, bits, block_size)
    matrix = np.empty((channels, length))
    for block in range(blocks):
        part = slice(block * block_size, (block + 1) * block_size)
        shifted = integers[:, part].astype(float) - points[:, [block]]
        matrix[:, part] = shifted * scale[:, [block]].astype(float)
    return arrays, matrix
