"""Which weights are shorter than a block, whatever rules say of single ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from onnxq.algorithms.block_lengths import filled, input_channels, sizes_that_fit, too_short
from onnxq.algorithms.block_settings import block_settings, block_sizes, folded_weights
from tests.algorithms.test_block_settings import (
    CPU,
    MODEL,
    NOTHING_SAID,
    SITES,
    named,
    outcomes,
    recipe,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxq.recipe import Recipe, RuleOutcome

LENGTHS = input_channels(MODEL, SITES)


def short(wanted: Recipe, size: int, said: Mapping[str, RuleOutcome] = NOTHING_SAID) -> set[str]:
    """The operators whose weight is too short."""
    settings = block_settings(wanted, CPU, data=True)
    folded = folded_weights(MODEL, SITES, settings)
    found = too_short(LENGTHS, block_sizes(SITES, LENGTHS, folded, settings, said, size))
    return {site.op for site in SITES if site.name in found}


def test_input_channels_are_all_that_a_product_sums_over() -> None:
    assert {
        named("MatMul").name: 48,
        named("Gemm").name: 48,
        named("Conv").name: 36,
    } == LENGTHS


def test_a_weight_shorter_than_a_block_says_so() -> None:
    name = named("Conv").name
    reason = "its 36 input channels are fewer than a block of 48"
    assert too_short(LENGTHS, dict.fromkeys(LENGTHS, 48)) == {name: reason}


def test_a_size_that_is_asked_for_holds_for_all_but_rules() -> None:
    wanted = recipe(block_size=256)
    assert short(wanted, 256) == {"Conv", "Gemm", "MatMul"}
    assert short(wanted, 256, outcomes("Conv", block_size=16)) == {"Gemm", "MatMul"}
    assert short(recipe(block_size=16), 16, outcomes("Gemm", block_size=64)) == {"Gemm"}


def test_where_the_size_is_open_only_folded_weights_are_too_short() -> None:
    """Conv is folded, in blocks of 32, of which it fills one."""
    assert short(recipe(), 256) == set()
    assert short(recipe(form="dq"), 256) == set()
    lengths = {**LENGTHS, named("Conv").name: 27}
    settings = block_settings(recipe(), CPU, data=True)
    folded = folded_weights(MODEL, SITES, settings)
    sizes = block_sizes(SITES, LENGTHS, folded, settings, {}, 256)
    assert too_short(lengths, sizes).keys() == {named("Conv").name}


@pytest.mark.parametrize(
    ("size", "channels", "least", "found"),
    [(128, 128, 16, 128), (128, 127, 16, 64), (64, 17, 16, 16), (64, 3, 16, 16), (64, 17, 32, 32)],
)
def test_the_largest_size_that_is_filled(size: int, channels: int, least: int, found: int) -> None:
    assert filled(size, channels, least) == found


def test_two_bits_have_no_kernel_for_blocks_of_16() -> None:
    """What 16 channels fill stays float, and says so."""
    lengths = {**LENGTHS, named("Gemm").name: 16}
    found = {}
    for scheme in ("int2", "int4"):
        settings = block_settings(recipe(scheme), CPU, data=True)
        folded = folded_weights(MODEL, SITES, settings)
        found[scheme] = too_short(lengths, block_sizes(SITES, lengths, folded, settings, {}, 128))
    reason = "its 16 input channels are fewer than a block of 32"
    assert found["int2"][named("Gemm").name] == reason
    assert named("Gemm").name not in found["int4"]


def test_block_sizes_that_a_weight_fills() -> None:
    assert sizes_that_fit((128, 64, 32, 16), LENGTHS, {}) == (32, 16)
    assert sizes_that_fit((128,), LENGTHS, {}) == ()
    assert sizes_that_fit((128,), LENGTHS, outcomes("Conv", block_size=32)) == (128,)
    assert sizes_that_fit((16,), {}, {}) == ()
