"""Integers of 2, 4 and 8 bits in the bytes of ONNX Runtime's ``com.microsoft.MatMulNBits``.

A byte holds ``8 / bits`` neighbours along the last axis, the first in the lowest bits::

    byte = q[0] + q[1] 2^bits + ... + q[8/bits - 1] 2^(8 - bits)

A weight of N output and K input channels is ``[N, blocks, ceil(block_size · bits / 8)]`` with
``blocks = ceil(K / block_size)``; what the last block has more than K is 0. Zero points are
``[N, ceil(blocks · bits / 8)]``; what the last byte has more than ``blocks`` is ``2^(bits - 1)``.

Source: ONNX Runtime, contributed operators, MatMulNBits. Its own packer, ``quantize_matmul_4bits``
and the like, leaves behind an odd K whatever it held last in the rest of that byte; no kernel reads
it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from onnxq.numerics.schemes import middle_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


def pack(integers: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Put neighbours along the last axis into bytes.

    Args:
        integers: ``[..., count]``, each below ``2^bits``.
        bits: 2, 4 or 8.

    Returns:
        ``[..., ceil(count · bits / 8)]``; the rest of the last byte is 0.
    """
    lanes = 8 // bits
    rest = -integers.shape[-1] % lanes
    if rest:
        integers = np.pad(integers, [(0, 0)] * (integers.ndim - 1) + [(0, rest)])
    shifted = (integers[..., lane::lanes] << np.uint8(lane * bits) for lane in range(lanes))
    return functools.reduce(np.bitwise_or, shifted)


def unpack(packed: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.uint8]:
    """The ``count`` integers that :func:`pack` put into the bytes of the last axis."""
    lanes = 8 // bits
    result = np.empty((*packed.shape[:-1], packed.shape[-1] * lanes), np.uint8)
    for lane in range(lanes):
        result[..., lane::lanes] = (packed >> np.uint8(lane * bits)) & np.uint8((1 << bits) - 1)
    return result[..., :count]


def pack_blocks(integers: NDArray[np.uint8], bits: int, block_size: int) -> NDArray[np.uint8]:
    """Pack a weight.

    Args:
        integers: ``[N, K]``, output channels first.
        bits: 2, 4 or 8.
        block_size: Input channels to a block.

    Returns:
        ``[N, blocks, ceil(block_size · bits / 8)]``.
    """
    channels, length = integers.shape
    rest = -length % block_size
    filled = np.pad(integers, ((0, 0), (0, rest))) if rest else integers
    return pack(filled.reshape(channels, -1, block_size), bits)


def unpack_blocks(
    packed: NDArray[np.uint8], bits: int, block_size: int, length: int
) -> NDArray[np.uint8]:
    """The integers ``[N, length]`` that :func:`pack_blocks` packed."""
    return unpack(packed, bits, block_size).reshape(len(packed), -1)[:, :length]


def packed_shape(blocks: tuple[int, int], bits: int, block_size: int) -> tuple[int, int, int]:
    """The shape of a packed weight of ``[N, blocks]`` blocks."""
    return (*blocks, -(-block_size * bits // 8))


def pack_zero_points(zero_points: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Zero points ``[N, blocks]`` as ``[N, ceil(blocks · bits / 8)]``."""
    rest = -zero_points.shape[-1] % (8 // bits)
    filled = np.pad(zero_points, ((0, 0), (0, rest)), constant_values=middle_of(bits))
    return pack(filled, bits)
