"""Packed bytes against those of ONNX Runtime's own packer, and there and back again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxruntime.capi import _pybind_state as ort_packer

from onnxq.numerics.packing import (
    pack,
    pack_blocks,
    pack_zero_points,
    packed_shape,
    unpack,
    unpack_blocks,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

PEERS = {
    2: ort_packer.quantize_matmul_2bits,
    4: ort_packer.quantize_matmul_4bits,
    8: ort_packer.quantize_matmul_8bits,
}
"""What MatMulNBitsQuantizer calls."""


def peer(
    weight: NDArray[np.float32], bits: int, block_size: int, *, symmetric: bool
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
    """Packed integers, scales and packed zero points of ``[K, N]`` by ONNX Runtime."""
    length, channels = weight.shape
    blocks = -(-length // block_size)
    filled = np.pad(weight, ((0, blocks * block_size - length), (0, 0)))
    packed = np.zeros((channels, blocks, block_size * bits // 8), np.uint8)
    scale = np.zeros((channels, blocks), np.float32)
    zero = np.zeros((channels, -(-blocks * bits // 8)), np.uint8)
    PEERS[bits](packed, filled, scale, zero, block_size, channels, length, symmetric)
    return packed, scale, zero


def one_by_one(packed: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.uint8]:
    """The integers of the last axis by the definition of the layout, bit by bit."""
    stream = np.unpackbits(packed, axis=-1, bitorder="little")
    values = stream.reshape(*packed.shape[:-1], -1, bits) @ (1 << np.arange(bits))
    return values[..., :count].astype(np.uint8)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(
    ("length", "block_size"),
    [(576, 128), (64, 16), (96, 32), (40, 32), (320, 64), (1280, 256), (12, 16), (1536, 128)],
)
def test_bytes_are_those_of_the_runtimes_packer(
    bits: int, length: int, block_size: int, *, symmetric: bool
) -> None:
    """Every width; ragged K; odd numbers of blocks."""
    weight = np.random.default_rng(length).normal(size=(length, 7)).astype(np.float32)
    packed, scale, zero = peer(weight, bits, block_size, symmetric=symmetric)
    integers = one_by_one(packed.reshape(7, -1), bits, length)
    assert np.array_equal(pack_blocks(integers, bits, block_size), packed)
    assert np.array_equal(unpack_blocks(packed, bits, block_size, length), integers)
    if symmetric:
        return
    points = one_by_one(zero, bits, scale.shape[1])
    assert np.array_equal(pack_zero_points(points, bits), zero)
    # What they stand for is the weight, so the layout was read as it was meant.
    step = np.repeat(scale.astype(float), block_size, axis=1)[:, :length]
    offset = np.repeat(points.astype(float), block_size, axis=1)[:, :length]
    assert (np.abs((integers - offset) * step - weight.T) <= 0.51 * step).all()


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("length", [33, 35, 50, 577])
def test_bytes_up_to_the_last_weight_where_a_byte_ends_in_its_midst(bits: int, length: int) -> None:
    """Behind it the runtime's packer leaves what it held last; ours leaves 0."""
    weight = np.random.default_rng(length).normal(size=(length, 5)).astype(np.float32)
    packed, _, _ = peer(weight, bits, 16, symmetric=False)
    ours = pack_blocks(one_by_one(packed.reshape(5, -1), bits, length), bits, 16)
    rest = np.arange(ours.shape[1] * 16) >= length
    theirs = one_by_one(packed.reshape(5, -1), bits, rest.size)
    assert np.array_equal(
        one_by_one(ours.reshape(5, -1), bits, rest.size), np.where(rest, 0, theirs)
    )


@given(st.sampled_from([2, 4, 8]), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_unpacking_undoes_packing(bits: int, count: int, seed: int) -> None:
    integers = np.random.default_rng(seed).integers(0, 1 << bits, (3, count)).astype(np.uint8)
    packed = pack(integers, bits)
    assert packed.shape == (3, -(-count * bits // 8))
    assert np.array_equal(unpack(packed, bits, count), integers)
    assert np.array_equal(one_by_one(packed, bits, count), integers)


@given(st.sampled_from([2, 4, 8]), st.integers(1, 40), st.integers(1, 40))
def test_blocks_of_any_size(bits: int, length: int, block_size: int) -> None:
    """Each begins with a byte of its own, such as that of a whole channel of Conv."""
    integers = np.random.default_rng(length).integers(0, 1 << bits, (3, length)).astype(np.uint8)
    packed = pack_blocks(integers, bits, block_size)
    assert packed.shape == packed_shape((3, -(-length // block_size)), bits, block_size)
    assert np.array_equal(unpack_blocks(packed, bits, block_size, length), integers)
