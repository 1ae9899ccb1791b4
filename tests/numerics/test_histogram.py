"""The float histogram: exact counts, and merging in any order gives the same bits."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxq.numerics.histogram import MANTISSA_BITS, MASK_MAGNITUDE, FloatHistogram

if TYPE_CHECKING:
    from numpy.typing import NDArray

JUST_BELOW_MASK = float(np.nextafter(np.float32(MASK_MAGNITUDE), np.float32(0)))
SPECIAL = [
    0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 1.1754942e-38, -1.1754942e-38, 3.4e38, -3.4e38,
    np.nan, np.inf, -np.inf, MASK_MAGNITUDE, -MASK_MAGNITUDE, JUST_BELOW_MASK, -JUST_BELOW_MASK,
]  # fmt: skip
SPECIAL_32 = [float(np.float32(value)) for value in SPECIAL]
arrays = hnp.arrays(
    np.float32,
    st.integers(0, 120),
    elements=st.one_of(st.floats(width=32), st.sampled_from(SPECIAL_32)),
)


def counted(*samples: NDArray[np.floating]) -> FloatHistogram:
    histogram = FloatHistogram()
    for sample in samples:
        histogram.add(sample)
    return histogram


def merged(*histograms: FloatHistogram) -> FloatHistogram:
    total = FloatHistogram()
    for histogram in histograms:
        total.merge(histogram)
    return total


def bits(histogram: FloatHistogram) -> tuple[bytes, ...]:
    """All that can be seen of a histogram, bit for bit."""
    bins = histogram.bins()
    extrema = np.asarray([histogram.minimum, histogram.maximum])
    return extrema.tobytes(), bins.low.tobytes(), bins.high.tobytes(), bins.count.tobytes()


def ordinary(values: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(values[np.abs(values) < MASK_MAGNITUDE], np.float64)


def expected_bins(values: NDArray[np.float64]) -> list[tuple[float, float, int]]:
    """The same bins by float64 arithmetic: 2^9 to an octave, on each side of zero.

    Subnormals share an octave, of the width of the first normal one.
    """
    table: Counter[tuple[float, float]] = Counter()
    for value in values:
        magnitude = abs(float(value))
        exponent = int(np.frexp(magnitude)[1]) - 1 if magnitude >= 2.0**-126 else -126
        width = 2.0 ** (exponent - MANTISSA_BITS)
        inner = np.floor(magnitude / width) * width
        outer = inner + width
        table[(-outer, -inner) if np.signbit(value) else (inner, outer)] += 1
    least, greatest = values.min(initial=np.inf), values.max(initial=-np.inf)
    rows = [(max(a, least), min(b, greatest), n) for (a, b), n in table.items()]
    return sorted(rows)


@settings(deadline=None)
@given(arrays)
def test_every_value_is_counted_once(values: NDArray[np.float32]) -> None:
    histogram = FloatHistogram()
    seen = histogram.add(values)
    assert seen.nan == np.isnan(values).sum()
    assert seen.masked == (np.abs(values) >= MASK_MAGNITUDE).sum()
    assert histogram.total + seen.masked + seen.nan == values.size
    left = ordinary(values)
    assert seen.low == histogram.minimum == left.min(initial=np.inf)
    assert seen.high == histogram.maximum == left.max(initial=-np.inf)


@settings(deadline=None)
@given(arrays)
def test_bins_are_those_of_float64_arithmetic(values: NDArray[np.float32]) -> None:
    bins = counted(values).bins()
    rows = list(zip(bins.low.tolist(), bins.high.tolist(), bins.count.tolist(), strict=True))
    assert sorted(rows) == expected_bins(ordinary(values))


@settings(deadline=None)
@given(arrays)
def test_bins_ascend_and_do_not_overlap(values: NDArray[np.float32]) -> None:
    histogram = counted(values)
    bins = histogram.bins()
    assert bins.low.dtype == bins.high.dtype == bins.count.dtype == np.float64
    assert np.all(bins.low <= bins.high)
    assert np.all(bins.high[:-1] <= bins.low[1:])
    assert np.all(bins.count > 0)
    assert np.all((bins.low <= bins.centre) & (bins.centre <= bins.high))
    width = bins.high - bins.low
    nearest = np.minimum(np.abs(bins.low), np.abs(bins.high))
    assert np.all(width <= np.maximum(nearest * 2.0**-MANTISSA_BITS, 2.0 ** (-126 - MANTISSA_BITS)))
    if bins.low.size:
        assert (bins.low[0], bins.high[-1]) == (histogram.minimum, histogram.maximum)


@settings(deadline=None)
@given(st.lists(arrays, min_size=3, max_size=3), st.permutations(range(3)))
def test_merging_is_exact_associative_and_commutative(
    samples: list[NDArray[np.float32]], order: list[int]
) -> None:
    whole = bits(counted(np.concatenate(samples)))
    a, b, c = samples
    assert bits(counted(*samples)) == whole
    assert bits(counted(*(samples[i] for i in order))) == whole
    assert bits(merged(*(counted(samples[i]) for i in order))) == whole
    assert bits(merged(merged(counted(a), counted(b)), counted(c))) == whole
    assert bits(merged(counted(a), merged(counted(b), counted(c)))) == whole


@settings(deadline=None)
@given(arrays)
def test_rebuilt_from_its_parts(values: NDArray[np.float32]) -> None:
    one = counted(values)
    again = FloatHistogram(list(one.pages), one.counts.copy(), one.minimum, one.maximum)
    assert bits(again) == bits(one)
    again.add(values)
    assert again.total == 2 * one.total


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_counts_equal_numpy_histogram_over_the_same_edges(sign: float) -> None:
    values = np.abs(np.random.default_rng(0).standard_normal(100_000)).astype(np.float32)
    values[:1000] *= 300
    bins = counted(values * np.float32(sign)).bins()
    low, high = (bins.low, bins.high) if sign > 0 else (-bins.high[::-1], -bins.low[::-1])
    edges = np.unique(np.concatenate([low, high]))
    counts = np.histogram(values.astype(np.float64), edges)[0]
    count = bins.count if sign > 0 else bins.count[::-1]
    np.testing.assert_array_equal(counts[counts > 0], count)


def test_nothing_counted() -> None:
    histogram = FloatHistogram()
    seen = histogram.add(np.zeros((0, 3), np.float32))
    assert seen == (np.inf, -np.inf, 0, 0)
    assert histogram.total == 0
    assert histogram.bins().low.size == histogram.bins().count.size == 0
    seen = histogram.add(np.asarray([np.nan, np.inf, -3.4e38], np.float32))
    assert seen == (np.inf, -np.inf, 2, 1)
    assert histogram.total == 0
    assert histogram.bins().low.size == 0


@pytest.mark.parametrize("value", [0.0, -0.0, 5.0, -5.0, 1e-42, 1e30])
def test_one_value_and_equal_values(value: float) -> None:
    stored = float(np.float32(value))
    for size in (1, 1000):
        bins = counted(np.full(size, value, np.float32)).bins()
        assert (bins.low.tolist(), bins.high.tolist()) == ([stored], [stored])
        assert bins.count.tolist() == [size]


def test_the_sign_of_zero_does_not_tell_the_order() -> None:
    zero, minus = np.asarray([0.0], np.float32), np.asarray([-0.0], np.float32)
    assert bits(counted(zero, minus)) == bits(counted(minus, zero))
    assert bits(merged(counted(minus), counted(zero))) == bits(counted(minus, zero))
    assert not np.signbit([counted(minus).minimum, counted(minus).maximum]).any()


def test_mask_constants_do_not_stretch_the_range() -> None:
    values = np.asarray([-3.4028235e38, -np.inf, 1e31, 0.25, -0.5], np.float32)
    histogram = FloatHistogram()
    assert histogram.add(values) == (-0.5, 0.25, 3, 0)
    assert (histogram.minimum, histogram.maximum) == (-0.5, 0.25)


def test_layouts_and_types() -> None:
    base = np.random.default_rng(1).standard_normal((8, 9)).astype(np.float32)
    expected = bits(counted(base))
    frozen = base.copy()
    frozen.flags.writeable = False
    wide = np.repeat(base, 2, axis=1)
    for values in (base.T, np.asfortranarray(base), frozen, wide[:, ::2], base[::-1]):
        assert bits(counted(values)) == expected
    assert bits(counted(base.astype(np.float64))) == expected
    half = base.astype(np.float16)
    assert bits(counted(half)) == bits(counted(half.astype(np.float32)))
    assert counted(np.asarray(3.0, np.float32)).total == 1


def test_a_double_beyond_float32_is_a_mask_constant() -> None:
    assert FloatHistogram().add(np.asarray([1e300, -1e300, 2.0])) == (2.0, 2.0, 2, 0)


def test_threads_count_apart_and_merge() -> None:
    rng = np.random.default_rng(2)
    samples = [rng.standard_normal(20_000).astype(np.float32) * 4.0**i for i in range(8)]
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(counted, samples))
    assert bits(merged(*parts)) == bits(counted(*samples))
