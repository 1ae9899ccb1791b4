"""AWQ's scaling and clipping against loops in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.numerics import awq
from onnxq.numerics.blockwise import dequantized, minmax_params, output_error, residual, steps
from onnxq.numerics.clip import SHRINKS, clipped_params
from tests.numerics import references
from tests.numerics.test_gptq import layer

if TYPE_CHECKING:
    from onnxq.numerics.schemes import QParams


@pytest.mark.parametrize(("bits", "size", "columns"), [(4, 16, 48), (3, 16, 40), (4, 64, 50)])
def test_the_error_of_every_exponent_is_that_of_loops_in_float64(
    bits: int, size: int, columns: int
) -> None:
    first, activations = layer(bits, 9, columns, 60)
    second, _ = layer(bits + 1, 5, columns, 1)
    gram = activations.T @ activations
    magnitude = np.abs(activations).mean(axis=0, dtype=np.float64)
    scheme = references.scheme(bits, size)
    exponents = [0.0, 0.3, 0.7, 1.0]
    wide = [array.astype(np.float64) for array in (first, second)]
    tokens = activations.astype(np.float64)
    best, expected = references.awq_exponent(wide, tokens, bits, size, exponents)
    both = [(first, scheme), (second, scheme)]
    found = awq.search_scaling(both, gram, magnitude, exponents)
    for exponent, error in zip(exponents, expected, strict=True):
        factor = awq.channel_factor(magnitude, exponent)
        np.testing.assert_allclose(factor, references.awq_factor(magnitude, exponent), rtol=1e-5)
        ours = sum(output_error(residual(w, factor, scheme), gram) for w in (first, second))
        # A weight at a rounding boundary may fall to either side.
        assert ours == pytest.approx(error, rel=2e-2)
    assert found.exponent == best
    assert found.plain_error == pytest.approx(expected[0], rel=1e-3)


def nearest(values: np.ndarray, scale: float, zero: float, bits: int) -> np.ndarray:
    return np.asarray([references.rounded(v, scale, zero, 2**bits - 1) for v in values])


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("bits", "size", "columns"), [(4, 16, 48), (4, 32, 40), (2, 16, 16)])
def test_every_block_gets_the_range_that_loops_in_float64_find(
    bits: int, size: int, columns: int, *, symmetric: bool
) -> None:
    weight, activations = layer(7, 8, columns, 80)
    gram = activations.T @ activations
    scheme = references.scheme(bits, size, symmetric=symmetric)
    found = clipped_params(weight, gram, scheme)
    for n in range(len(weight)):
        for block, start in enumerate(range(0, columns, size)):
            values = weight[n, start : start + size].astype(np.float64)
            part = gram[start : start + size, start : start + size].astype(np.float64)
            errors = []
            for shrink in SHRINKS:
                ends = np.asarray([values.min(), values.max()]) * shrink
                scale, zero = references.covering(ends, bits, symmetric=symmetric)
                rounded = nearest(values, scale, zero, bits)
                errors.append((rounded - values) @ part @ (rounded - values))
            scale, zero = found.scale[n, block], float(found.zero_point[n, block])
            rounded = nearest(values, float(scale), zero, bits)
            error = (rounded - values) @ part @ (rounded - values)
            assert error <= min(errors) * (1 + 1e-3) + 1e-6


@settings(deadline=None)  # the first call compiles
@given(st.integers(0, 2**31), st.sampled_from([2, 3, 4, 8]), st.booleans(), st.integers(1, 70))
def test_clipping_never_costs_more_than_covering_the_range(
    seed: int, bits: int, symmetric: bool, columns: int
) -> None:
    random = np.random.default_rng(seed)
    weight = (random.standard_t(2, (3, columns)) * random.choice([1e-6, 1, 1e4])).astype(np.float32)
    scheme = references.scheme(bits, 16, symmetric=symmetric)

    def error(params: QParams) -> float:
        return float(np.sum(np.square(dequantized(weight, params) - weight, dtype=np.float64)))

    assert error(clipped_params(weight, None, scheme)) <= error(minmax_params(weight, scheme)) * (
        1 + 1e-4
    )


def test_the_steps_are_those_of_quantizing() -> None:
    from onnxq.numerics.affine import quantize

    weight, _ = layer(1, 7, 45, 1)
    params = minmax_params(weight, references.scheme(4, 16))
    expected = quantize(weight, params).astype(np.float32)
    zero = np.repeat(params.zero_point, 16, axis=1)[:, :45]
    np.testing.assert_array_equal(steps(weight, params) + zero, expected)


def test_channels_that_are_never_active_are_scaled_to_something() -> None:
    magnitude = np.array([0.0, 1.0, 100.0])
    assert (awq.channel_factor(magnitude, 0.5) > 0).all()
    np.testing.assert_array_equal(awq.channel_factor(np.zeros(3), 0.5), 1)
    np.testing.assert_array_equal(awq.channel_factor(np.array([1, np.nan]), 0.5), 1)
