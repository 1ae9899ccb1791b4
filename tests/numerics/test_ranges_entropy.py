"""The entropy range against an independent float64 implementation of its divergence.

For a candidate [b, t]: the distribution on 4,096 equal cells of [b, t]; P adds what lies outside to
the outermost cells; Q spreads each level's inside mass evenly over the level's occupied cells
(those where P > 0); both are normalised, Q is at least 1e-12; KL(P || Q) in nats.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from onnxq.numerics.histogram import Bins, FloatHistogram
from onnxq.numerics.ranges import _divergence, entropy, minmax
from onnxq.numerics.schemes import Scheme

if TYPE_CHECKING:
    from numpy.typing import NDArray

CELLS = 4096
SCHEMES = [
    Scheme(bits=8),
    Scheme(bits=8, signed=True, symmetric=True, narrow=True),
    Scheme(bits=4),
    Scheme(bits=6, signed=True),
]


def reference_divergence(bins: Bins, bottom: float, top: float, levels: int) -> float:
    """By differences of the cumulative distribution, piecewise linear within the bins."""
    knots = np.append(bins.low, bins.high[-1])
    cumulative = np.append(0.0, np.cumsum(bins.count))
    at_edges = np.interp(np.linspace(bottom, top, CELLS + 1), knots, cumulative)
    inside = np.diff(at_edges)
    inside[inside < 1e-9] = 0.0  # interpolation noise in empty cells
    p = inside.copy()
    p[0] += at_edges[0]
    p[-1] += cumulative[-1] - at_edges[-1]
    q = np.zeros(CELLS)
    level = np.arange(CELLS) * levels // CELLS
    for one in range(levels):
        occupied = (level == one) & (p > 0)
        if occupied.any():
            q[occupied] = inside[level == one].sum() / occupied.sum()
    p, q = p / p.sum(), np.maximum(q / q.sum(), 1e-12)
    terms = (a * math.log(a / b) for a, b in zip(p.tolist(), q.tolist(), strict=True) if a > 0)
    return math.fsum(terms)


def linear_bins(data: NDArray[np.float64], size: int) -> Bins:
    """An ordinary histogram of equal bins without gaps between them."""
    count, edges = np.histogram(data, size)
    return Bins(edges[:-1], edges[1:], np.maximum(count, 1).astype(np.float64))


def data_of(name: str) -> NDArray[np.float64]:
    rng = np.random.default_rng(17)
    return {
        "normal": rng.standard_normal(20_000),
        "skewed": rng.gamma(2.0, 1.0, 20_000) - 0.5,
        "positive": rng.gamma(2.0, 1.0, 20_000),
        "negative": -rng.gamma(2.0, 1.0, 20_000),
        "uniform": rng.uniform(-1, 3, 20_000),
    }[name]


NAMES = ["normal", "skewed", "positive", "negative", "uniform"]


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.label)
@pytest.mark.parametrize("name", NAMES)
def test_divergence_and_choice_equal_the_reference(name: str, scheme: Scheme) -> None:
    bins = linear_bins(data_of(name), 1500)
    low, high = minmax(float(bins.low[0]), float(bins.high[-1]))
    levels = scheme.qmax - scheme.qmin + 1
    factors = np.geomspace(1.0, 2.0**-6, 64)
    expected = [reference_divergence(bins, low * f, high * f, levels) for f in factors[::4]]
    found = [
        _divergence(bins.low, bins.high, bins.count, low * f, high * f, levels)
        for f in factors[::4]
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)

    chosen = entropy(bins, scheme)
    least = reference_divergence(bins, *chosen, levels)
    assert least <= min(expected) * (1 + 1e-6) + 1e-9
    assert min(abs(chosen[1] - high * f) + abs(chosen[0] - low * f) for f in factors) < 1e-12


def test_no_mass_is_lost_at_the_edges() -> None:
    """One bin over [-3, 5] under the candidate [-1, 1]: 1/4 below, 1/4 inside, 1/2 above."""
    bins = Bins(np.asarray([-3.0]), np.asarray([5.0]), np.asarray([8.0]))
    levels = 4
    found = _divergence(bins.low, bins.high, bins.count, -1.0, 1.0, levels)
    cell = 0.25 / CELLS
    q = 1 / CELLS
    first, last = 0.25 + cell, 0.5 + cell
    expected = (
        first * math.log(first / q) + last * math.log(last / q)
        + (CELLS - 2) * cell * math.log(cell / q)
    )  # fmt: skip
    assert found == pytest.approx(expected, rel=1e-9)


def test_clipped_mass_on_an_empty_level_meets_the_floor() -> None:
    """Ten values over [0, 1] and one near 10 under the candidate [0, 2]: Q has nothing at 2."""
    bins = Bins(np.asarray([0.0, 9.0]), np.asarray([1.0, 10.0]), np.asarray([10.0, 1.0]))
    found = _divergence(bins.low, bins.high, bins.count, 0.0, 2.0, 16)
    expected = 10 / 11 * math.log(10 / 11) + 1 / 11 * math.log(1 / 11 / 1e-12)
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("scheme", SCHEMES[:2], ids=lambda s: s.label)
def test_clips_a_heavy_tail_with_outliers(scheme: Scheme) -> None:
    rng = np.random.default_rng(18)
    data = np.append(rng.laplace(0, 1, 200_000), [70.0, -64.0, 66.0]).astype(np.float32)
    histogram = FloatHistogram()
    histogram.add(data)
    low, high = entropy(histogram.bins(), scheme)
    assert 4.0 < high < 35.0
    assert -32.0 < low < -4.0
    inside = np.mean((data >= low) & (data <= high))
    assert inside > 0.99


def test_uniform_data_is_not_clipped() -> None:
    histogram = FloatHistogram()
    histogram.add(np.random.default_rng(19).uniform(-1, 1, 400_000).astype(np.float32))
    low, high = entropy(histogram.bins(), Scheme(bits=8))
    assert low < -0.9
    assert high > 0.9


def test_16_bits_have_more_levels_than_cells_and_keep_the_range() -> None:
    bins = linear_bins(data_of("normal"), 1500)
    assert entropy(bins, Scheme(bits=16)) == minmax(float(bins.low[0]), float(bins.high[-1]))


def test_all_zero() -> None:
    histogram = FloatHistogram()
    histogram.add(np.zeros(10, np.float32))
    assert entropy(histogram.bins(), Scheme(bits=8)) == (0.0, 0.0)
