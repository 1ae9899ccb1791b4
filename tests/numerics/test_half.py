"""What rounding to 16 bits does: against numpy's own float16 and bfloat16 by truncated bits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from onnxq.numerics.half import HALF_TYPES, half_fit

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """By the bits of float32: to the nearest, to the even one of two."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return rounded.astype(np.uint32).view(np.float32)


def test_ends_of_the_types() -> None:
    assert HALF_TYPES["float16"].greatest == 65504
    assert HALF_TYPES["float16"].normal == 2.0**-14
    assert HALF_TYPES["bfloat16"].greatest == (2 - 2.0**-7) * 2.0**127
    assert HALF_TYPES["bfloat16"].normal == 2.0**-126


@pytest.mark.parametrize("name", HALF_TYPES)
@given(values=npst.arrays(np.float32, st.integers(1, 40), elements=FLOATS))
def test_counts_and_error(name: str, values: np.ndarray) -> None:
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float16) if name == "float16" else to_bfloat16(values)
    exact, wide = values.astype(np.float64), narrow.astype(np.float64)
    fits = np.isfinite(wide)
    found = half_fit([values[:7], values[7:]], HALF_TYPES[name])
    assert found.overflowing == int((~fits).sum())
    lost = (wide == 0) & (exact != 0)
    assert found.flushed == lost.sum() / max(np.count_nonzero(exact[fits]), 1)
    signal = math.fsum(exact[fits] ** 2)
    noise = math.fsum((exact[fits] - wide[fits]) ** 2)
    if signal > 0 and noise > 0:
        expected = 10 * (math.log10(signal) - math.log10(noise))
        assert found.sqnr_db == pytest.approx(expected, abs=1e-6)
    elif noise == 0:
        assert found.sqnr_db == math.inf


def test_precision_of_ordinary_weights() -> None:
    weights = np.random.default_rng(0).normal(0, 0.05, 20000).astype(np.float32)
    assert 72 < half_fit([weights], HALF_TYPES["float16"]).sqnr_db < 75
    assert 54 < half_fit([weights], HALF_TYPES["bfloat16"]).sqnr_db < 57


def test_nan_and_inf_are_exact() -> None:
    found = half_fit([np.array([np.nan, np.inf, -np.inf, 1.0], np.float32)], HALF_TYPES["float16"])
    assert (found.overflowing, found.flushed, found.sqnr_db) == (0, 0.0, math.inf)


def test_nothing_at_all() -> None:
    assert half_fit([], HALF_TYPES["float16"]).sqnr_db == math.inf
