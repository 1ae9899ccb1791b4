"""Which weights are shorter than a block, whatever rules say of single ones."""

from __future__ import annotations

from onnxq.algorithms.block_lengths import WantedSize, input_channels, sizes_that_fit, too_short
from tests.algorithms.test_block_settings import MODEL, SITES, named, outcomes


def test_input_channels_are_all_that_a_product_sums_over() -> None:
    found = input_channels(MODEL, SITES)
    assert found == {named("MatMul").name: 48, named("Gemm").name: 48, named("Conv").name: 36}


def test_weights_shorter_than_a_block() -> None:
    name = named("Conv").name
    assert too_short(MODEL, SITES, {}, WantedSize(32)) == {}
    reason = "its 36 input channels are fewer than a block of 48"
    assert too_short(MODEL, SITES, {}, WantedSize(48)) == {name: reason}
    said = outcomes("Conv", block_size=16)
    assert too_short(MODEL, SITES, said, WantedSize(256)).keys() == {
        named("MatMul").name,
        named("Gemm").name,
    }
    assert too_short(MODEL, SITES, {}, WantedSize(256, fixed=False)) == {}
    said = outcomes("Gemm", block_size=64)
    assert too_short(MODEL, SITES, said, WantedSize(16)).keys() == {named("Gemm").name}


def test_block_sizes_that_a_weight_fills() -> None:
    lengths = input_channels(MODEL, SITES)
    assert sizes_that_fit((128, 64, 32, 16), lengths, {}) == (32, 16)
    assert sizes_that_fit((128,), lengths, {}) == ()
    assert sizes_that_fit((128,), lengths, outcomes("Conv", block_size=32)) == (128,)
    assert sizes_that_fit((16,), {}, {}) == ()
