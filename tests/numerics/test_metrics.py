"""Meters against numpy in float64; merged meters against one that saw everything."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxq.numerics.metrics import (
    AccuracyMeter,
    AgreementMeter,
    EqualityMeter,
    ErrorMeter,
    relative_error,
    sqnr_db,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

values = st.floats(-1e6, 1e6, width=32)
pairs = hnp.arrays(np.float32, st.tuples(st.just(2), st.integers(0, 30)), elements=values)


def measured(*samples: NDArray[np.float32]) -> ErrorMeter:
    meter = ErrorMeter()
    for reference, result in samples:
        meter.add(reference, result)
    return meter


@settings(deadline=None)
@given(st.lists(pairs, min_size=1, max_size=4))
def test_error_meter_is_numpy_in_float64(samples: list[NDArray[np.float32]]) -> None:
    meter = measured(*samples)
    a, b = np.concatenate(samples, axis=1).astype(np.float64)
    assert meter.elements == a.size
    assert meter.worst == np.abs(a - b).max(initial=0.0)
    assert meter.signal == pytest.approx(np.sum(a**2), rel=1e-12)
    assert meter.noise == pytest.approx(np.sum((a - b) ** 2), rel=1e-12)
    if meter.noise == 0:
        assert meter.sqnr_db == math.inf
    elif meter.signal == 0:
        assert meter.sqnr_db == -math.inf
    else:
        ratio = np.sum(a**2) / np.sum((a - b) ** 2)
        assert meter.sqnr_db == pytest.approx(10 * np.log10(ratio), rel=1e-9, abs=1e-9)
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    if norm > 0:
        assert meter.cosine == pytest.approx(a @ b / norm, rel=1e-9, abs=1e-12)
        assert abs(meter.cosine) <= 1 + 1e-12


@settings(deadline=None)
@given(st.lists(pairs, max_size=5), st.integers(0, 5))
def test_merged_error_meters_are_the_whole(samples: list[NDArray[np.float32]], cut: int) -> None:
    whole, left, right = measured(*samples), measured(*samples[:cut]), measured(*samples[cut:])
    left.merge(right)
    assert (left.elements, left.worst) == (whole.elements, whole.worst)
    for name in ("signal", "noise", "other", "product"):
        scale = whole.signal + whole.other
        assert getattr(left, name) == pytest.approx(
            getattr(whole, name), rel=1e-12, abs=1e-12 * scale
        )


def test_sqnr_is_pooled_and_not_a_mean_of_decibels() -> None:
    quiet = np.asarray([[1.0, 1.0], [1.1, 0.9]], np.float32)
    loud = np.asarray([[100.0, 100.0], [100.1, 99.9]], np.float32)
    pooled = 10 * math.log10((2 + 20_000) / 0.04)
    assert measured(quiet, loud).sqnr_db == pytest.approx(pooled, abs=1e-4)


def test_known_values() -> None:
    meter = measured(np.asarray([[3.0, 4.0], [4.0, 3.0]], np.float32))
    assert meter.cosine == pytest.approx(24 / 25)
    assert meter.sqnr_db == pytest.approx(10 * math.log10(25 / 2))
    assert meter.worst == 1.0
    assert sqnr_db(100.0, 1.0) == pytest.approx(20.0)
    assert sqnr_db(0.0, 0.0) == math.inf
    assert sqnr_db(0.0, 1.0) == -math.inf


@pytest.mark.parametrize(
    ("signal", "noise", "decibels"),
    [
        (1.0, math.inf, -math.inf),
        (math.inf, math.inf, -math.inf),
        (math.inf, 1.0, math.inf),
        (0.0, math.inf, -math.inf),
        (math.nan, 1.0, math.nan),
        (1.0, math.nan, math.nan),
        (math.nan, 0.0, math.nan),
        # The quotients underflow and overflow.
        (1e-300, 1e300, -6000.0),
        (1e300, 1e-300, 6000.0),
    ],
)
def test_sqnr_of_any_sums(signal: float, noise: float, decibels: float) -> None:
    assert sqnr_db(signal, noise) == pytest.approx(decibels, nan_ok=True)


sums = st.one_of(st.just(math.nan), st.floats(min_value=0, allow_infinity=True))


@settings(deadline=None)
@given(sums, sums)
def test_sqnr_never_raises(signal: float, noise: float) -> None:
    found = sqnr_db(signal, noise)
    assert math.isnan(found) == (math.isnan(signal) or math.isnan(noise))


def test_equality_counts_elements_of_any_type() -> None:
    meter = EqualityMeter()
    assert math.isnan(meter.share)
    meter.add(np.asarray([[1, 2], [3, 4]]), np.asarray([[1, 2], [3, 5]]))
    meter.add(np.asarray([True, False]), np.asarray([False, False]))
    meter.add(np.asarray(["a", "b"], object), np.asarray(["a", "c"], object))
    assert (meter.same, meter.elements, meter.share) == (5, 8, 0.625)


def test_nothing_zero_and_one_sided() -> None:
    empty = ErrorMeter()
    assert (empty.sqnr_db, empty.cosine, empty.worst, empty.elements) == (math.inf, 1.0, 0.0, 0)
    assert measured(np.zeros((2, 0), np.float32)) == empty
    one_sided = measured(np.asarray([[0.0, 0.0], [1.0, 0.0]], np.float32))
    assert (one_sided.sqnr_db, one_sided.cosine) == (-math.inf, 0.0)


@pytest.mark.parametrize("position", [0, 1])
def test_nan_is_never_lost(position: int) -> None:
    samples = [np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)]
    samples[position][1, 1] = np.nan
    whole = measured(*samples)
    assert math.isnan(whole.worst)
    assert math.isnan(whole.sqnr_db)
    assert math.isnan(whole.cosine)
    first = measured(samples[0])
    first.merge(measured(samples[1]))
    assert math.isnan(first.worst)


def test_sums_are_float64() -> None:
    """A million float32 values whose float32 sum of squares would lose its last digits."""
    a = np.full(1_000_000, 0.1, np.float32)
    meter = ErrorMeter()
    meter.add(a, a)
    assert meter.signal == pytest.approx(1e6 * float(np.float32(0.1)) ** 2, rel=1e-12)


def test_agreement_counts_rows() -> None:
    meter = AgreementMeter()
    meter.add(
        np.asarray([[0, 1], [1, 0], [1, 0]], np.float32),
        np.asarray([[0, 2], [0, 1], [3, 2]], np.float32),
    )
    assert (meter.same, meter.rows) == (2, 3)
    meter.add(np.zeros((2, 4, 5), np.float32), np.zeros((2, 4, 5), np.float32))
    assert (meter.same, meter.rows) == (10, 11)
    assert meter.agreement == pytest.approx(10 / 11)
    meter.add(np.zeros((0, 5), np.float32), np.zeros((0, 5), np.float32))
    meter.add(np.asarray([1.0, 0.0], np.float32), np.asarray([0.0, 1.0], np.float32))
    assert (meter.same, meter.rows) == (10, 12)
    assert math.isnan(AgreementMeter().agreement)


def test_accuracy_counts_hits() -> None:
    meter = AccuracyMeter()
    scores = np.asarray([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], np.float32)
    meter.add(scores, np.asarray([1, 1, 1]))
    assert (meter.correct, meter.rows) == (2, 3)
    meter.add(scores[:0], np.zeros(0, np.int64))
    assert meter.accuracy == pytest.approx(2 / 3)
    assert math.isnan(AccuracyMeter().accuracy)


def test_relative_error_is_that_of_the_norms() -> None:
    draw = np.random.default_rng(0)
    a = draw.standard_normal((3, 70_000)).astype(np.float32)
    b = a + np.float32(0.01) * draw.standard_normal(a.shape).astype(np.float32)
    wide = a.astype(np.float64)
    expected = np.linalg.norm(wide - b.astype(np.float64)) / np.linalg.norm(wide)
    assert relative_error(a, b) == pytest.approx(expected, rel=1e-9)
    assert relative_error(a, a) == 0
    assert relative_error(a.astype(np.float16), a.astype(np.float16)) == 0


@pytest.mark.parametrize(
    ("a", "b", "error"),
    [
        ([1.0, np.inf, np.nan], [1.0, np.inf, np.nan], 0.0),
        ([3.0, -np.inf, 4.0], [3.0, -np.inf, 9.0], 1.0),
        ([1.0, np.inf], [1.0, -np.inf], math.inf),
        ([1.0, np.inf], [1.0, 9.0], math.inf),
        ([1.0, 2.0], [1.0, np.nan], math.inf),
        ([1.0, 2.0], [1.0, np.inf], math.inf),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([0.0, 0.0], [0.0, 1e-9], math.inf),
        ([], [], 0.0),
    ],
)
def test_relative_error_at_the_edges(a: list[float], b: list[float], error: float) -> None:
    assert relative_error(np.asarray(a, np.float32), np.asarray(b, np.float32)) == error


def test_relative_error_of_what_is_not_float() -> None:
    assert relative_error(np.asarray([1, 2, 3, 4]), np.asarray([1, 2, 3, 9])) == 0.25
    assert relative_error(np.asarray(["a", "b"]), np.asarray(["a", "c"])) == 0.5
    assert relative_error(np.zeros(0, np.int64), np.zeros(0, np.int64)) == 0
    assert relative_error(np.zeros(2), np.zeros(3)) == math.inf
