"""Min-max, moving average and percentile against naive numpy."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxq.numerics.histogram import MANTISSA_BITS, Bins, FloatHistogram
from onnxq.numerics.ranges import entropy, minmax, moving_average, mse, percentile
from onnxq.numerics.schemes import ACTIVATION_UINT8, WEIGHT_INT8

if TYPE_CHECKING:
    from numpy.typing import NDArray

values = st.floats(-1e6, 1e6, width=32)
samples = hnp.arrays(np.float32, st.integers(1, 200), elements=values)


def bins_of(data: NDArray[np.floating]) -> Bins:
    histogram = FloatHistogram()
    histogram.add(data)
    return histogram.bins()


def bin_width(value: float) -> float:
    """No bin that holds ``value`` is wider."""
    return max(abs(value) * 2.0**-MANTISSA_BITS, 2.0 ** (-126 - MANTISSA_BITS))


def test_minmax_includes_0() -> None:
    assert minmax(-1.0, 2.0) == (-1.0, 2.0)
    assert minmax(3.0, 5.0) == (0.0, 5.0)
    assert minmax(-5.0, -3.0) == (-5.0, 0.0)
    assert minmax(math.inf, -math.inf) == (0.0, 0.0)  # nothing was seen


@settings(deadline=None)
@given(hnp.arrays(np.float64, st.tuples(st.just(2), st.integers(1, 60)), elements=values))
def test_moving_average_is_the_naive_recursion(bounds: NDArray[np.float64]) -> None:
    lows, highs = np.sort(bounds, axis=0)
    for momentum in (0.0, 0.5, 0.9, 0.99):
        low, high = float(lows[0]), float(highs[0])
        for new_low, new_high in zip(lows[1:], highs[1:], strict=True):
            low = momentum * low + (1 - momentum) * float(new_low)
            high = momentum * high + (1 - momentum) * float(new_high)
        expected = (min(low, 0.0), max(high, 0.0))
        found = moving_average(lows, highs, momentum=momentum)
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9 * np.abs(bounds).max())


def test_moving_average_default_one_and_none() -> None:
    assert moving_average(np.asarray([-1.0, -2.0]), np.asarray([1.0, 3.0])) == pytest.approx(
        (-1.1, 1.2)
    )
    assert moving_average(np.asarray([2.0]), np.asarray([3.0])) == (0.0, 3.0)
    assert moving_average(np.zeros(0), np.zeros(0)) == (0.0, 0.0)


@pytest.mark.parametrize("percent", [90.0, 99.0, 99.9, 99.99])
@pytest.mark.parametrize("shift", [0.0, 50.0, -50.0])
def test_percentile_is_numpy_percentile_within_one_bin(percent: float, shift: float) -> None:
    data = np.random.default_rng(5).laplace(shift, 2.0, 400_000).astype(np.float32)
    low, high = percentile(bins_of(data), percent)
    tail = (100 - percent) / 2
    lowest, highest = np.percentile(data.astype(np.float64), [tail, 100 - tail])
    # numpy's rank is (n - 1) p and ours n p: one value apart, which is nothing where data is dense.
    gap = 0.002 if percent < 99.99 else 0.05
    assert low == pytest.approx(min(lowest, 0), abs=bin_width(lowest) + gap)
    assert high == pytest.approx(max(highest, 0), abs=bin_width(highest) + gap)


@settings(deadline=None)
@given(samples, st.floats(51, 100))
def test_percentile_lies_in_the_bin_of_its_order_statistic(
    data: NDArray[np.float32], percent: float
) -> None:
    low, high = percentile(bins_of(data), percent)
    assert low <= 0.0 <= high
    ordered = np.sort(data).astype(np.float64)
    rank = (100 - percent) / 200 * data.size
    for found, place, widen in ((low, rank, min), (high, data.size - rank, max)):
        near = [
            float(ordered[min(max(math.floor(place + slack), 0), data.size - 1)])
            for slack in (-1e-6, 1e-6)
        ]
        assert any(
            min(widen(x - bin_width(x), 0.0), widen(x + bin_width(x), 0.0))
            <= found
            <= max(widen(x - bin_width(x), 0.0), widen(x + bin_width(x), 0.0))
            for x in near
        )


@settings(deadline=None)
@given(samples)
def test_100_percent_is_minmax_and_less_is_narrower(data: NDArray[np.float32]) -> None:
    bins = bins_of(data)
    whole = percentile(bins, 100.0)
    assert whole == pytest.approx(minmax(float(data.min()), float(data.max())), rel=1e-12)
    widths = [high - low for low, high in (percentile(bins, p) for p in (60, 90, 99, 100))]
    assert all(a <= b * (1 + 1e-12) for a, b in pairwise(widths))


def test_percentile_ignores_a_rare_outlier() -> None:
    data = np.random.default_rng(6).uniform(-1, 1, 100_000).astype(np.float32)
    data[:3] = 1e6
    low, high = percentile(bins_of(data), 99.99)
    assert -1.0 <= low < -0.99
    assert 0.99 < high <= 1.0


@pytest.mark.parametrize("value", [0.0, 7.25, -7.25, 1e-42, 1e29])
@pytest.mark.parametrize("size", [1, 500])
def test_one_value_or_all_equal(value: float, size: int) -> None:
    data = np.full(size, value, np.float32)
    bins = bins_of(data)
    expected = minmax(float(data[0]), float(data[0]))
    assert percentile(bins, 99.9) == expected
    for scheme in (ACTIVATION_UINT8, WEIGHT_INT8):
        assert mse(bins, scheme) == pytest.approx(expected, rel=0.2)
        low, high = entropy(bins, scheme)
        assert expected[0] <= low <= 0.0 <= high <= expected[1]
