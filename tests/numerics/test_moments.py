"""Gram matrices of tokens that stream by, against float64."""

from __future__ import annotations

import numpy as np
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
    np.testing.assert_allclose(moment.gram(), every.T @ every, rtol=1e-5, atol=1e-5)
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
    np.testing.assert_array_equal(moment.gram(), np.full((64, 64), 44 * 16))


def test_what_is_given_may_be_overwritten_afterwards() -> None:
    moment = SecondMoment(4)
    rows = np.ones((2, 4), np.float32)
    moment.add(rows)
    rows[:] = 7
    np.testing.assert_array_equal(moment.gram(), np.full((4, 4), 2))


def test_tokens_that_are_not_finite_are_left_out_and_counted() -> None:
    moments = SplitMoments(3)
    rows = np.ones((5, 3), np.float32)
    rows[1, 2], rows[4, 0] = np.nan, np.inf
    moments.add(rows, held_out=False)
    moments.add(np.full((1, 3), 2, np.float32), held_out=True)
    assert (moments.fitted.tokens, moments.held_out.tokens, moments.left_out) == (3, 1, 2)
    np.testing.assert_allclose(moments.magnitude, (3 + 2) / 4)
    np.testing.assert_array_equal(moments.held_out.gram(), np.full((3, 3), 4))
