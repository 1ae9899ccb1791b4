"""What is said of a weight, against float64."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq.algorithms.weight_statistics import describe_weight
from tests.small_models import normal


@pytest.mark.parametrize("size", [1.0, 1e25, 1e-30])
@pytest.mark.parametrize("axis", [0, 1])
def test_sums_neither_overflow_nor_vanish(size: float, axis: int) -> None:
    weight = normal(0, 6, 40) * np.float32(size)
    found = describe_weight(weight, axis)
    assert found is not None
    exact = weight.astype(np.float64)
    peaks = np.abs(exact).max(axis=1 - axis)
    assert found.shape == (6, 40)
    assert found.peak == pytest.approx(peaks.max(), rel=1e-6)
    assert found.channel_spread == pytest.approx(peaks.max() / np.median(peaks), rel=1e-6)
    assert found.deviation == pytest.approx(np.sqrt(np.square(exact).mean()), rel=1e-6)
    # Half a step of 1/127 of each channel's peak, evenly spread, or less.
    step = np.expand_dims(peaks / 127, 1 - axis)
    noise = np.square(np.broadcast_to(step, exact.shape)).sum() / 12
    assert found.sqnr_db == pytest.approx(10 * np.log10(np.square(exact).sum() / noise), abs=1.5)


def test_what_is_not_finite_has_no_statistics() -> None:
    assert describe_weight(np.array([[1.0, np.nan]], np.float32), 0) is None
