"""Half-quadratic ranges: the norm that they minimise, and what it is good for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.numerics.blockwise import dequantized, minmax_params
from onnxq.numerics.hqq import half_quadratic_params
from tests.numerics import references


def norm(weight: np.ndarray, params: object) -> np.ndarray:
    """``sum |e|^0.7`` of each row."""
    error = np.abs(np.float64(weight) - dequantized(weight, params))  # type: ignore[arg-type]
    return np.sum(error**0.7, axis=1)


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
def test_near_the_best_of_a_fine_grid_of_scales_and_zero_points(*, symmetric: bool) -> None:
    random = np.random.default_rng(0)
    weight = random.standard_t(4, (40, 32)).astype(np.float32)
    scheme = references.scheme(4, 32, symmetric=symmetric)
    found, start = half_quadratic_params(weight, scheme), minmax_params(weight, scheme)
    best = np.full(40, np.inf)
    wide = np.float64(weight)
    for shrink in np.linspace(0.4, 1.1, 71):
        scale = np.float64(start.scale) * shrink
        for zero in [8] if symmetric else range(16):
            q = np.clip(np.rint(wide / scale) + zero, 0, 15)
            best = np.minimum(best, np.sum(np.abs(wide - (q - zero) * scale) ** 0.7, axis=1))
    # An iteration finds a local minimum; it has to take most of the way to the global one.
    gained = norm(weight, start).sum() - norm(weight, found).sum()
    assert gained >= 0.6 * (norm(weight, start).sum() - best.sum())
