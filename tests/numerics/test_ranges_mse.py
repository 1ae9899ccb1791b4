"""The least-error range against direct quantization of the raw data."""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxq.numerics.affine import fake_quantize, qparams_from_range
from onnxq.numerics.histogram import Bins, FloatHistogram
from onnxq.numerics.ranges import Range, mean_squared_error, minmax, mse
from onnxq.numerics.schemes import Scheme

if TYPE_CHECKING:
    from numpy.typing import NDArray

UINT8, UINT4 = Scheme(bits=8), Scheme(bits=4)
INT8 = Scheme(bits=8, signed=True, symmetric=True, narrow=True)
INT4 = Scheme(bits=4, signed=True, symmetric=True)
UINT16 = Scheme(bits=16)
SIZE = 30_000


@cache
def distribution(name: str) -> NDArray[np.float32]:
    rng = np.random.default_rng(11)
    normal = rng.standard_normal(SIZE)
    heavy = rng.standard_t(3, SIZE)
    data = {
        "normal": normal,
        "laplace": rng.laplace(0, 1, SIZE),
        "uniform": rng.uniform(-3, 1, SIZE),
        "heavy": heavy,
        "relu": np.maximum(normal, 0),
        "silu": heavy / (1 + np.exp(-heavy)),
        "negative": -np.abs(normal),
        "low outlier": np.append(np.abs(normal), -25.0),
        "high outlier": np.append(normal, 40.0),
        "two outliers": np.append(normal * 0.1, [50.0, -5.0]),
        "tiny": normal * 1e-30,
        "far above 0": 100 + normal,
        "far below 0": -100 - normal,
    }[name]
    return np.asarray(data, np.float32)


NEAR_0 = [
    "normal", "laplace", "uniform", "heavy", "relu", "silu", "negative", "low outlier",
    "high outlier", "two outliers", "tiny",
]  # fmt: skip
FAR = ["far above 0", "far below 0"]


@cache
def bins_of(name: str) -> Bins:
    histogram = FloatHistogram()
    histogram.add(distribution(name))
    return histogram.bins()


def direct(data: NDArray[np.float32], bounds: Range, scheme: Scheme) -> float:
    """Mean squared error of quantizing every single value, in float64."""
    error = fake_quantize(data, qparams_from_range(*bounds, scheme)).astype(np.float64) - data
    return float(np.mean(error**2))


def brute_force(data: NDArray[np.float32], scheme: Scheme) -> float:
    """Least direct error on a grid of both ends, refined once; for symmetric schemes of one end."""
    low, high = minmax(float(data.min()), float(data.max()))
    if scheme.symmetric:
        low, high = -max(-low, high), max(-low, high)
    grid = np.geomspace(1.0, 2.0**-8, 20)
    single = scheme.symmetric or low == 0 or high == 0

    def best_of(base: Range, factors: NDArray[np.float64]) -> tuple[float, Range]:
        pairs = [(f, f) for f in factors] if single else list(product(factors, factors))
        candidates = [(max(base[0] * f, low), min(base[1] * g, high)) for f, g in pairs]
        return min((direct(data, bounds, scheme), bounds) for bounds in candidates)

    _, start = best_of((low, high), np.geomspace(1.0, 2.0**-8, 150) if single else grid)
    return best_of(start, np.linspace(0.8, 1.25, 150 if single else 15))[0]


@pytest.mark.parametrize("name", NEAR_0 + FAR)
@pytest.mark.parametrize("scheme", [UINT16, UINT8, INT8, UINT4, INT4], ids=lambda s: s.label)
def test_error_of_a_histogram_is_the_error_of_the_data(name: str, scheme: Scheme) -> None:
    data, bins = distribution(name), bins_of(name)
    low, high = minmax(float(data.min()), float(data.max()))
    for shrink_low, shrink_high in ((1.0, 1.0), (0.7, 0.9), (0.3, 0.1), (1.0, 0.02)):
        bounds = (low * shrink_low, high * shrink_high)
        found = mean_squared_error(bins, *bounds, scheme)
        # 30,000 values and bins of 1/512 of a value.
        assert found == pytest.approx(direct(data, bounds, scheme), rel=0.03)


@pytest.mark.parametrize("name", NEAR_0)
@pytest.mark.parametrize("scheme", [UINT8, INT8, UINT4, INT4], ids=lambda s: s.label)
def test_within_1_percent_of_brute_force(name: str, scheme: Scheme) -> None:
    data = distribution(name)
    found = direct(data, mse(bins_of(name), scheme), scheme)
    assert found <= 1.01 * brute_force(data, scheme)


@pytest.mark.parametrize("name", FAR)
@pytest.mark.parametrize("scheme", [UINT8, INT8, UINT4, INT4], ids=lambda s: s.label)
def test_data_far_from_0(name: str, scheme: Scheme) -> None:
    """Few levels fall on the data, so the error has many local minima: 5 % are allowed."""
    data = distribution(name)
    low, high = mse(bins_of(name), scheme)
    assert low <= 0.0 <= high
    assert low == 0.0 or high == 0.0
    assert direct(data, (low, high), scheme) <= 1.05 * brute_force(data, scheme)


@pytest.mark.parametrize("name", NEAR_0 + FAR)
@pytest.mark.parametrize("scheme", [UINT8, INT8, UINT4, INT4], ids=lambda s: s.label)
def test_never_worse_than_minmax(name: str, scheme: Scheme) -> None:
    data, bins = distribution(name), bins_of(name)
    whole = minmax(float(data.min()), float(data.max()))
    chosen = mse(bins, scheme)
    assert whole[0] <= chosen[0] <= 0.0 <= chosen[1] <= whole[1]
    assert mean_squared_error(bins, *chosen, scheme) <= mean_squared_error(bins, *whole, scheme)
    assert direct(data, chosen, scheme) <= 1.01 * direct(data, whole, scheme)


@settings(deadline=None, max_examples=60)
@given(
    hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(-1e6, 1e6, width=32)),
    st.builds(Scheme, bits=st.sampled_from([4, 8]), signed=st.booleans(), symmetric=st.booleans()),
)
def test_never_worse_than_minmax_whatever_the_data(
    data: NDArray[np.float32], scheme: Scheme
) -> None:
    histogram = FloatHistogram()
    histogram.add(data)
    bins = histogram.bins()
    whole = minmax(float(data.min()), float(data.max()))
    chosen = mse(bins, scheme)
    assert whole[0] <= chosen[0] <= 0.0 <= chosen[1] <= whole[1]
    assert mean_squared_error(bins, *chosen, scheme) <= mean_squared_error(bins, *whole, scheme)


def test_one_sided_outlier_does_not_clip_the_other_side() -> None:
    low, high = mse(bins_of("high outlier"), UINT4)
    assert high < 5.0
    assert low < -1.5


def test_exact_integral_of_one_bin() -> None:
    """One bin [0, 12] under step 1 and range [0, 10]: 10 periods of 1/12, then (x - 10)^2."""
    bins = Bins(np.asarray([0.0]), np.asarray([12.0]), np.asarray([5.0]))
    scheme = Scheme(bits=4)
    assert mean_squared_error(bins, 0.0, 15.0, scheme) == pytest.approx(1 / 12)
    assert mean_squared_error(bins, 0.0, 7.5, scheme) == pytest.approx(
        (7.5 * 0.25 / 12 + 4.5**3 / 3) / 12
    )
    below = Bins(np.asarray([-12.0]), np.asarray([0.0]), np.asarray([2.0]))
    assert mean_squared_error(below, -7.5, 0.0, scheme) == pytest.approx(
        (7.5 * 0.25 / 12 + 4.5**3 / 3) / 12
    )
