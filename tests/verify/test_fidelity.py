"""The comparison of outputs against numpy, on models whose error is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from onnxq.data import Labels, open_data
from onnxq.graph.structure import signature
from onnxq.runtime.session import SessionSettings, open_session
from onnxq.verify.fidelity import Fidelity, compare_outputs
from tests.small_models import Feeds, normal, normalized, proto

if TYPE_CHECKING:
    from numpy.typing import NDArray

PLAIN = "g (float[N, 4] x) => (float[N, 4] y) { y = Mul(x, k) }"
ONES = np.ones(4, np.float32)


def compare(
    samples: list[Feeds],
    k: NDArray[np.float32],
    graph: str = PLAIN,
    labels: NDArray[np.int64] | None = None,
) -> Fidelity:
    """Multiply by ``k`` in the place of ones."""
    settings = SessionSettings(threads=1, spinning=False)
    reference, result = (
        open_session(proto(graph, k=factor).SerializeToString(), settings) for factor in (ONES, k)
    )
    data = open_data(samples, signature(normalized(graph, k=ONES)))
    aligned = None if labels is None else Labels.align(labels, data)
    return compare_outputs(reference, result, data, independent=True, labels=aligned)


def test_sums_are_pooled_over_samples_of_any_shape() -> None:
    samples: list[Feeds] = [{"x": normal(i, 3 + i, 4) * 10**i} for i in range(3)]
    k = np.asarray([1.01, 1, 1, 0.98], np.float32)
    found = compare(samples, k)
    rows = np.concatenate([feeds["x"] for feeds in samples]).astype(float)
    noise = rows * k.astype(float) - rows
    expected = 10 * np.log10(np.square(rows).sum() / np.square(noise).sum())
    assert found.sqnr_db == pytest.approx(expected, abs=1e-3)
    assert found.max_error == pytest.approx(np.abs(noise).max(), rel=1e-4)
    other = rows * k
    cosine = (rows * other).sum() / np.sqrt(np.square(rows).sum() * np.square(other).sum())
    assert found.cosine == pytest.approx(cosine, abs=1e-9)
    assert (found.samples, found.independent, found.not_finite) == (3, True, ())


def test_equal_outputs_have_no_noise() -> None:
    found = compare([{"x": normal(0, 3, 4)}], ONES)
    assert found.sqnr_db == np.inf
    assert (found.max_error, found.top1_agreement) == (0.0, 1.0)


def test_agreement_and_accuracy_count_rows() -> None:
    x = np.asarray([[9, 1, 0, 0], [5, 4, 0, 0], [1, 7, 0, 0], [0, 0, 1, 8]], np.float32)
    samples: list[Feeds] = [{"x": x[:3]}, {"x": x[3:]}]
    # Twice the second: the second row's argmax changes from 0 to 1.
    k = np.asarray([1, 2, 1, 1], np.float32)
    found = compare(samples, k, labels=np.asarray([0, 0, 0, 3]))
    assert found.top1_agreement == 0.75
    assert (found.float_accuracy, found.quantized_accuracy) == (0.75, 0.5)


def test_without_labels_there_is_no_accuracy() -> None:
    found = compare([{"x": normal(0, 3, 4)}], ONES)
    assert (found.float_accuracy, found.quantized_accuracy) == (None, None)


def test_padded_positions_are_left_out() -> None:
    graph = """g (float[N, L, 4] x, int64[N, L] attention_mask) => (float[N, L, 4] y) {
        m = Cast<to = 1>(attention_mask)
        axes = Constant<value_ints = [2]>()
        wide = Unsqueeze(m, axes)
        one = Constant<value = float {1.0}>()
        hidden = Sub(one, wide)
        error = Mul(hidden, k)
        y = Add(x, error)
    }"""
    mask = np.asarray([[1, 1, 0], [1, 0, 0]])
    samples: list[Feeds] = [{"x": normal(0, 2, 3, 4), "attention_mask": mask}]
    assert compare(samples, ONES * 100, graph).sqnr_db == np.inf
    whole: list[Feeds] = [{"x": normal(0, 2, 3, 4), "attention_mask": np.ones_like(mask)}]
    assert compare(whole, ONES * 100, graph).sqnr_db == np.inf


def test_every_output_is_checked_for_nan() -> None:
    graph = """g (float[N, 4] x) => (float[N, 4] y, float[N, 4] good, float[N, 4] bad) {
        y = Neg(x)
        good = Abs(x)
        bad = Log(k)
    }"""
    graph = graph.replace("bad = Log(k)", "l = Log(k) bad = Add(x, l)")
    found = compare([{"x": normal(0, 3, 4)}], -ONES, graph)
    assert found.not_finite == ("bad",)
    assert found.sqnr_db == np.inf


def test_what_is_not_finite_in_float_either_is_no_fault() -> None:
    graph = "g (float[N, 4] x) => (float[N, 4] y, float[N, 4] z) { y = Mul(x, k) z = Log(x) }"
    assert compare([{"x": normal(0, 3, 4)}], ONES, graph).not_finite == ()


@pytest.mark.parametrize(("value", "sqnr"), [(np.inf, -np.inf), (np.nan, np.nan)])
def test_a_first_output_that_is_not_finite_is_a_result_not_a_failure(
    value: float, sqnr: float
) -> None:
    """Nor a warning of numpy's: the user is told in words."""
    found = compare([{"x": np.ones((3, 4), np.float32)}] * 2, np.full(4, value, np.float32))
    assert found.not_finite == ("y",)
    np.testing.assert_equal(found.sqnr_db, sqnr)
