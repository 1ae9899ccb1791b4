"""Half-quadratic ranges: the norm that they minimise, and what it is good for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.numerics.blockwise import dequantized, minmax_params
from onnxq.numerics.hqq import half_quadratic_params
from tests.numerics import references

if TYPE_CHECKING:
    from onnxq.numerics.schemes import QParams


def norm(weight: np.ndarray, params: QParams) -> np.ndarray:
    """``sum |e|^0.7`` of each row."""
    error = np.abs(weight.astype(np.float64) - dequantized(weight, params))
    return np.asarray(np.sum(error**0.7, axis=1))


@settings(deadline=None)  # the first call compiles
@given(st.integers(0, 2**31), st.sampled_from([2, 4, 8]), st.booleans(), st.integers(1, 70))
def test_never_worse_in_its_norm_than_covering_the_range(
    seed: int, bits: int, symmetric: bool, columns: int
) -> None:
    random = np.random.default_rng(seed)
    size = random.choice([1e-6, 1, 1e4])
    weight = (random.standard_t(3, (2, columns)) * size).astype(np.float32)
    scheme = references.scheme(bits, 16, symmetric=symmetric)
    found, start = half_quadratic_params(weight, scheme), minmax_params(weight, scheme)
    assert (found.scale > 0).all()
    assert (norm(weight, found) <= norm(weight, start) * (1 + 1e-3) + 1e-12).all()


@pytest.mark.parametrize("symmetric", [False, True])
def test_errs_less_than_the_range_that_covers_weights_with_outliers(*, symmetric: bool) -> None:
    random = np.random.default_rng(0)
    weight = random.standard_t(5, (200, 64)).astype(np.float32)
    scheme = references.scheme(4, 64, symmetric=symmetric)
    found, start = half_quadratic_params(weight, scheme), minmax_params(weight, scheme)
    assert norm(weight, found).sum() < 0.98 * norm(weight, start).sum()
    squared = [
        np.sum(np.square(np.float64(weight) - dequantized(weight, p))) for p in (found, start)
    ]
    assert squared[0] < squared[1]
