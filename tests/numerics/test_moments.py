"""Gram matrices of tokens that stream by, against float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.numerics.moments import SecondMoment, SplitMoments


@given(
    st.integers(0, 2**31),
    st.integers(1, 12),
    st.lists(st.integers(0, 9), min_size=1, max_size=6),
)
def test_the_gram_matrix_is_exact_however_tokens_arrive(
    seed: int, channels: int, parts: list[int]
) -> None:
    random = np.random.default_rng(seed)
    moment = SecondMoment(channels)
    tokens = [random.normal(size=(part, channels)).astype(np.float32) for part in parts]
    for rows in tokens:
        moment.add(rows)
    every = np.concatenate(tokens).astype(np.float64)
    assert moment.tokens == len(every)
    np.testing.assert_allclose(moment.take(), every.T @ every, rtol=1e-5, atol=1e-5)
    if len(every):
        np.testing.assert_allclose(moment.magnitude, np.abs(every).mean(axis=0), rtol=1e-6)


def test_tokens_are_held_while_they_take_less_than_the_matrix() -> None:
    moment = SecondMoment(64)
    for _ in range(4):
        moment.add(np.ones((16, 64), np.float32))
    assert moment.nbytes == 64 * 64 * 4
    for _ in range(40):
        moment.add(np.ones((16, 64), np.float32))
    assert moment.nbytes == 64 * 64 * 4
    np.testing.assert_array_equal(moment.take(), np.full((64, 64), 44 * 16))


def test_what_is_given_may_be_overwritten_afterwards() -> None:
    moment = SecondMoment(4)
    rows = np.ones((2, 4), np.float32)
    moment.add(rows)
    rows[:] = 7
    np.testing.assert_array_equal(moment.take(), np.full((4, 4), 2))


def test_tokens_that_are_not_finite_are_left_out_and_counted() -> None:
    moments = SplitMoments(3)
    rows = np.ones((5, 3), np.float32)
    rows[1, 2], rows[4, 0] = np.nan, np.inf
    moments.add(rows, held_out=False)
    moments.add(np.full((1, 3), 2, np.float32), held_out=True)
    assert (moments.fitted.tokens, moments.held_out.tokens, moments.left_out) == (3, 1, 2)
    np.testing.assert_allclose(moments.magnitude, (3 + 2) / 4)
    np.testing.assert_array_equal(moments.held_out.take(), np.full((3, 3), 4))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, np.finfo(np.float32).min])
@pytest.mark.parametrize("held_out", [True, False])
def test_tokens_that_no_matrix_can_hold_are_left_out(value: float, *, held_out: bool) -> None:
    rows = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    found = SplitMoments(3)
    spoiled = rows.copy()
    spoiled[7, 2] = value
    found.add(spoiled, held_out=held_out)
    assert (found.tokens, found.left_out) == (19, 1)
    kept = np.delete(rows, 7, axis=0).astype(np.float64)
    gram = found.fitted.take() + found.held_out.take()
    np.testing.assert_allclose(gram, kept.T @ kept, rtol=1e-5, atol=1e-5)
