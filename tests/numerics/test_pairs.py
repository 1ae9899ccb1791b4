"""Integers bounded in pairs: against the definition, one pair after another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.numerics.affine import quantize
from onnxq.numerics.schemes import PAIR_LIMIT, WEIGHT_INT8, PerAxis, QParams
from tests.rounded import rounded_to

AXES: dict[int, list[tuple[int, ...]]] = {
    1: [(0,)],
    2: [(0,), (1,), (0, 1)],
    3: [(1,), (2, 1)],
    4: [(2, 3, 1), (1,), (3,)],
}


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, ...]]:
    rank = draw(st.integers(1, 4))
    shape = [draw(st.integers(1, 5)) for _ in range(rank)]
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    spread = draw(st.sampled_from([20.0, 80.0, 200.0]))
    values = rng.normal(0, spread, shape).astype(np.float32)
    return values, draw(st.sampled_from(AXES[rank]))


def integers(values: np.ndarray, pairs: tuple[int, ...]) -> np.ndarray:
    scale = np.ones((), np.float32)
    scheme = replace(WEIGHT_INT8, pairs=pairs)
    return quantize(values, QParams(scale, np.zeros((), np.int8), scheme))


@given(cases())
def test_against_the_definition(case: tuple[np.ndarray, tuple[int, ...]]) -> None:
    values, pairs = case
    found = integers(values, pairs)
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, rounded_to(values, np.ones(()), 8, pairs))


@given(cases())
def test_the_bound_holds_and_costs_no_more_than_it_must(
    case: tuple[np.ndarray, tuple[int, ...]],
) -> None:
    values, pairs = case
    plain, found = integers(values, ()), integers(values, pairs)
    rest = [axis for axis in range(values.ndim) if axis not in pairs]

    def sums(array: np.ndarray) -> np.ndarray:
        rows = np.abs(array.astype(int)).transpose(*rest, *pairs)
        rows = rows.reshape(*rows.shape[: len(rest)], -1)
        count = rows.shape[-1] // 2 * 2
        return np.asarray(rows[..., 0:count:2] + rows[..., 1:count:2])

    # A pair that exceeds the bound is brought onto it, others stay as they are.
    np.testing.assert_array_equal(sums(found), np.minimum(sums(plain), PAIR_LIMIT))
    assert (np.abs(found.astype(int)) <= np.abs(plain.astype(int))).all()
    assert (found.astype(int) * plain >= 0).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([127.0, 127.0], [64, 64]),
        ([-127.0, 100.0], [-77, 51]),
        ([127.0, -2.0], [126, -2]),
        ([2.0, 127.0], [2, 126]),
        ([127.0, 1.0, 127.0], [127, 1, 127]),
        ([1.0, 127.0, 127.0, 1.0], [1, 127, 127, 1]),
    ],
)
def test_by_hand(values: list[float], expected: list[int]) -> None:
    assert integers(np.asarray(values, np.float32), (0,)).tolist() == expected


def test_each_channel_has_its_own_pairs() -> None:
    scheme = replace(WEIGHT_INT8, granularity=PerAxis(1), pairs=(0,))
    scale = np.asarray([1.0, 2.0], np.float32)
    values = np.asarray([[100.0, 100.0], [100.0, 100.0]], np.float32)
    found = quantize(values, QParams(scale, np.zeros(2, np.int8), scheme))
    assert found.tolist() == [[64, 50], [64, 50]]
