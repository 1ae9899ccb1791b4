"""KL and perplexity against scipy and plain loops in float64."""

from __future__ import annotations

import math
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import log_softmax, rel_entr, softmax

from onnxq.numerics import token_metrics
from onnxq.numerics.token_metrics import NOTHING_FOLLOWS, TokenMeter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Logits = NDArray[np.float32]


def measured(a: Logits, b: Logits, following: NDArray[np.int64]) -> TokenMeter:
    meter = TokenMeter()
    meter.add(a, b, following)
    return meter


def random_logits(seed: int, tokens: int, vocabulary: int) -> tuple[Logits, Logits]:
    generator = np.random.default_rng(seed)
    a = (generator.standard_normal((tokens, vocabulary)) * 5).astype(np.float32)
    b = a + generator.standard_normal(a.shape) / 3
    return a, b.astype(np.float32)


def by_loops(a: Logits, b: Logits, following: list[int]) -> tuple[float, float, float]:
    """The definitions, token by token, in Python's floats."""
    kl, surprises, others = 0.0, [], []
    for one, two, token in zip(a.tolist(), b.tolist(), following, strict=True):
        log_p, log_q = (
            [x - max(row) - math.log(sum(math.exp(y - max(row)) for y in row)) for x in row]
            for row in (one, two)
        )
        kl += sum(math.exp(p) * (p - q) for p, q in zip(log_p, log_q, strict=True))
        if token != NOTHING_FOLLOWS:
            surprises.append(-log_p[token])
            others.append(-log_q[token])
    mean = [math.exp(sum(found) / len(found)) for found in (surprises, others)]
    return kl / len(following), mean[0], mean[1]


@pytest.mark.parametrize("seed", range(3))
def test_the_definitions_in_plain_loops(seed: int) -> None:
    a, b = random_logits(seed, 7, 31)
    following = [3, 0, NOTHING_FOLLOWS, 30, 5, 5, NOTHING_FOLLOWS]
    found = measured(a, b, np.asarray(following))
    assert (found.tokens, found.predicted, found.left_out) == (7, 5, 0)
    numbers = (found.kl_nats, found.perplexity, found.other_perplexity)
    assert numbers == pytest.approx(by_loops(a, b, following), rel=1e-12)


def test_scipy_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = random_logits(9, 40, 500)
    following = np.random.default_rng(1).integers(0, 500, 40)
    found = measured(a, b, following)
    p, q = (softmax(x.astype(np.float64), axis=1) for x in (a, b))
    assert found.kl_nats == pytest.approx(rel_entr(p, q).sum(axis=1).mean(), rel=1e-10)
    likelihood = log_softmax(a.astype(np.float64), axis=1)[np.arange(40), following]
    assert found.perplexity == pytest.approx(math.exp(-likelihood.mean()), rel=1e-12)
    # A chunk's end changes nothing but the order of sums.
    monkeypatch.setattr(token_metrics, "_AT_ONCE", 1500)
    chunked = measured(a, b, following)
    assert chunked.kl_nats == pytest.approx(found.kl_nats, rel=1e-12)
    assert chunked.other_perplexity == pytest.approx(found.other_perplexity, rel=1e-12)


logits = hnp.arrays(
    np.float32,
    st.tuples(st.just(2), st.integers(1, 6), st.integers(1, 9)),
    elements=st.floats(-1e4, 1e4, width=32),
)


@settings(deadline=None)
@given(logits)
def test_kl_is_never_negative_and_zero_of_equals(pair: Logits) -> None:
    a, b = pair
    nothing = np.full(len(a), NOTHING_FOLLOWS)
    found = measured(a, b, nothing)
    # The sum of products as large as 1e4 is exact to 1e-12.
    assert found.kl_nats >= -1e-10
    assert measured(a, a, nothing).kl_nats == 0
    assert math.isnan(found.perplexity)


@settings(deadline=None)
@given(logits, st.integers(0, 6))
def test_merged_meters_are_the_whole(pair: Logits, cut: int) -> None:
    a, b = pair
    following = np.zeros(len(a), np.int64)
    whole = measured(a, b, following)
    left, right = (measured(a[s], b[s], following[s]) for s in (slice(cut), slice(cut, None)))
    left.merge(right)
    assert (left.tokens, left.predicted) == (whole.tokens, whole.predicted)
    assert left.divergence == pytest.approx(whole.divergence, rel=1e-9, abs=1e-7)
    assert left.surprise == pytest.approx(whole.surprise, rel=1e-9)


def test_a_small_difference_is_not_lost() -> None:
    """KL is of second order in the logits' difference: half their variance under p."""
    a, _ = random_logits(3, 20, 1000)
    step = np.float32(2.0**-12)
    b = a + step * np.sign(np.random.default_rng(0).standard_normal(a.shape)).astype(np.float32)
    gap = a.astype(np.float64) - b
    p = softmax(a.astype(np.float64), axis=1)
    variance = (p * gap**2).sum(axis=1) - (p * gap).sum(axis=1) ** 2
    found = measured(a, b, np.full(20, NOTHING_FOLLOWS))
    assert found.kl_nats == pytest.approx(variance.mean() / 2, rel=1e-3)


def test_large_logits_do_not_overflow() -> None:
    a = np.asarray([[1e30, 0, 0], [-1e30, 0, 0]], np.float32)
    found = measured(a, a, np.asarray([0, 1]))
    assert found.kl_nats == 0
    assert found.perplexity == pytest.approx(math.sqrt(2))
    assert measured(a, a, np.asarray([1, 1])).perplexity == math.inf


def test_tokens_that_cannot_come() -> None:
    """Masked by -Inf in both; impossible for the result alone, the divergence is infinite."""
    a = np.asarray([[0, 1, -np.inf]], np.float32)
    assert measured(a, a, np.asarray([1])).kl_nats == 0
    assert measured(a, a, np.asarray([2])).perplexity == math.inf
    b = np.asarray([[0, -np.inf, -np.inf]], np.float32)
    found = measured(a, b, np.asarray([0]))
    assert (found.kl_nats, found.other_perplexity) == (math.inf, 1)
    assert measured(b, a, np.asarray([0])).kl_nats == pytest.approx(math.log(1 + math.e))


def test_what_is_not_a_number() -> None:
    a = np.zeros((4, 3), np.float32)
    a[1, 1], a[2, 0], a[3] = np.nan, np.inf, -np.inf
    found = measured(a, np.zeros_like(a), np.zeros(4, np.int64))
    assert (found.tokens, found.predicted, found.left_out) == (1, 1, 3)
    assert found.kl_nats == 0
    assert found.perplexity == pytest.approx(3)
    bad = np.full((1, 3), np.nan, np.float32)
    found = measured(a[:1], bad, np.zeros(1, np.int64))
    assert math.isnan(found.kl_nats)
    assert math.isnan(found.other_perplexity)
    assert found.perplexity == pytest.approx(3)


def test_nothing_measured() -> None:
    meter = TokenMeter()
    meter.add(np.zeros((0, 5), np.float32), np.zeros((0, 5), np.float32), np.zeros(0, np.int64))
    assert meter == TokenMeter()
    assert math.isnan(meter.kl_nats)


def test_memory_does_not_grow_with_the_window() -> None:
    """Of a window's 50 million logits a few chunks are held in float64, not 400 MB."""
    row = np.zeros(50_000, np.float32)
    a = np.broadcast_to(row, (1000, 50_000))
    following = np.zeros(1000, np.int64)
    tracemalloc.start()
    try:
        found = measured(a, a, following)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.perplexity == pytest.approx(50_000)
    assert peak < 10 << 20
