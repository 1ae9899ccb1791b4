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


def test_positions_that_are_not_finite_in_float_are_left_out() -> None:
    """As of masked logits; the others are measured, and rows keep their ranks."""
    graph = """g (float[N, 4] x, bool[N, 4] keep) => (float[N, 4] y) {
        zero = Constant<value = float {0.0}>()
        low = Log(zero)
        all = Mul(x, k)
        y = Where(keep, all, low)
    }"""
    x, keep = normal(0, 3, 4), np.ones((3, 4), bool)
    keep[0, 1] = keep[2, 3] = False
    k = np.asarray([1.01, 1, 1, 0.98], np.float32)
    found = compare([{"x": x, "keep": keep}, {"x": x, "keep": keep}], k, graph)
    noise = (x * k - x)[keep]
    expected = 10 * np.log10(np.square(x[keep]).sum() / np.square(noise).sum())
    assert found.sqnr_db == pytest.approx(expected, abs=1e-3)
    assert found.max_error == pytest.approx(np.abs(noise).max(), rel=1e-4)
    assert (found.left_out, found.not_finite, found.top1_agreement) == (4, (), 1.0)
    (remark,) = found.remarks
    assert remark.startswith("4 elements are Inf or NaN")


def test_an_output_that_is_nan_in_float_too_is_not_compared() -> None:
    graph = "g (float[N, 4] x) => (float[N, 4] y) { m = Mul(x, k) y = Log(m) }"
    found = compare([{"x": -np.ones((3, 4), np.float32)}], ONES * 2, graph)
    assert (found.sqnr_db, found.cosine, found.max_error) == (None, None, None)
    assert (found.output, found.left_out, found.top1_agreement) == ("", 12, None)
    assert found.remarks[0].startswith("not compared: 12 elements")


CLASS = "c = ArgMax<axis = -1, keepdims = 0>(s)"
SWAPPED = np.asarray([1, 2, 1, 1], np.float32)
"""Changes the class of the second of four rows of :data:`ROWS`."""
ROWS = np.asarray([[9, 1, 0, 0], [5, 4, 0, 0], [1, 7, 0, 0], [0, 0, 1, 8]], np.float32)


@pytest.mark.parametrize(
    ("declared", "nodes"),
    [
        ("int64[N] y", "y = Identity(c)"),
        ("bool[N] y", "one = Constant<value = int64 {1}>() y = Equal(c, one)"),
        ("string[N] y", "y = Cast<to = 8>(c)"),
    ],
)
def test_an_output_that_is_not_float_is_compared_for_equality(declared: str, nodes: str) -> None:
    graph = f"g (float[N, 4] x) => ({declared}) {{ s = Mul(x, k) {CLASS} {nodes} }}"
    found = compare([{"x": ROWS[:3]}, {"x": ROWS[3:]}], SWAPPED, graph)
    assert (found.output, found.equal_share) == ("y", 0.75)
    assert (found.sqnr_db, found.cosine, found.max_error) == (None, None, None)
    assert found.remarks == ("25 % of the elements of y differ from the float model's",)
    same = compare([{"x": ROWS}], ONES, graph)
    assert (same.equal_share, same.remarks) == (1.0, ())


def test_the_first_float_output_is_measured() -> None:
    graph = f"g (float[N, 4] x) => (int64[N] c, float[N, 4] s) {{ s = Mul(x, k) {CLASS} }}"
    found = compare([{"x": ROWS}], SWAPPED, graph, labels=np.asarray([0, 0, 1, 3]))
    error = ROWS * (SWAPPED - 1)
    expected = 10 * np.log10(np.square(ROWS).sum() / np.square(error).sum())
    assert found.sqnr_db == pytest.approx(expected, abs=1e-4)
    assert (found.output, found.equal_share, found.top1_agreement) == ("s", 0.75, 0.75)
    assert (found.float_accuracy, found.quantized_accuracy, found.remarks) == (1.0, 0.75, ())


def test_outputs_of_another_shape_are_counted_and_not_compared() -> None:
    """Values above one: how many there are depends on the data, and so on the error."""
    graph = """g (float[N, 4] x) => (float[M] y, int64[D, K] at, float[N, 4] s) {
        s = Mul(x, k)
        one = Constant<value = float {1.0}>()
        above = Greater(s, one)
        y = Compress(s, above)
        at = NonZero(above)
    }"""
    inside = np.asarray([[2, 0, 0, 0]], np.float32)
    border = np.asarray([[2, 0.6, 0, 0]], np.float32)
    found = compare([{"x": inside}, {"x": border}, {"x": inside}], SWAPPED, graph)
    assert (found.other_shape, found.samples, found.output) == (1, 3, "y")
    assert (found.sqnr_db, found.max_error) == (np.inf, 0.0)
    assert found.remarks[0].startswith("in 1 of 3 samples outputs have another shape")
    none = compare([{"x": border}], SWAPPED, graph)
    assert (none.other_shape, none.sqnr_db, none.equal_share) == (1, None, None)
    assert none.remarks[0].startswith("not compared: in 1 of 1 samples")


def test_nan_in_an_output_of_another_shape_is_found() -> None:
    graph = """g (float[N, 4] x) => (float[M] y) {
        s = Mul(x, k)
        above = GreaterOrEqual(x, s)
        root = Sqrt(s)
        y = Compress(root, above)
    }"""
    k = np.asarray([-1, 2, 1, 1], np.float32)
    found = compare([{"x": np.ones((1, 4), np.float32)}], k, graph)
    assert (found.other_shape, found.not_finite) == (1, ("y",))


def test_without_elements_nothing_is_compared() -> None:
    graph = """g (float[N, 4] x) => (float[M] y) {
        s = Mul(x, k)
        ten = Constant<value = float {10.0}>()
        above = Greater(s, ten)
        y = Compress(s, above)
    }"""
    found = compare([{"x": np.ones((1, 4), np.float32)}], ONES, graph)
    assert (found.sqnr_db, found.compared) == (None, False)
    assert found.remarks == ("not compared: the outputs hold no elements",)


def test_labels_are_for_rows_of_scores_only() -> None:
    """Two boxes an image are no class scores: they have other rows than the labels."""
    graph = """g (float[N, 4] x) => (float[M, 4] y) {
        s = Mul(x, k)
        y = Concat<axis = 0>(s, s)
    }"""
    found = compare([{"x": ROWS}], ONES, graph, labels=np.asarray([0, 0, 1, 3]))
    assert (found.float_accuracy, found.top1_agreement) == (None, 1.0)


def test_every_float_output_is_measured() -> None:
    graph = """g (float[N, 4] x) => (float[N, 4] y, int64[N] i, float[N, 4] z) {
        y = Identity(x)  p = Mul(x, k)  i = ArgMax<axis = -1, keepdims = 0>(p)  z = Exp(p)
    }"""
    samples: list[Feeds] = [{"x": normal(i, 3, 4)} for i in range(2)]
    k = np.full(4, 0.5, np.float32)
    found = compare(samples, k, graph)
    rows = np.concatenate([feeds["x"] for feeds in samples]).astype(float)
    noise = np.square(np.exp(rows) - np.exp(rows / 2)).sum()
    expected = 10 * np.log10(np.square(np.exp(rows)).sum() / noise)
    assert (found.output, found.sqnr_db) == ("y", np.inf)
    assert found.others == {"z": pytest.approx(expected, abs=1e-3)}


def test_every_output_that_is_not_float_is_counted_and_told() -> None:
    graph = """g (float[N, 4] x) => (float[N, 4] y, int64[N] i, bool[N, 4] b) {
        y = Identity(x)  p = Mul(x, k)  i = ArgMax<axis = -1, keepdims = 0>(p)
        zero = Constant<value = float {0.0}>()  b = Greater(x, zero)
    }"""
    k = np.array([1, 1, 1, -9], np.float32)
    rows = np.array([[1, 0, 0, 9], [1, 0, 0, -9], [2, 1, 0, 1], [0, 0, 3, 3]], np.float32)
    found = compare([{"x": rows}], k, graph)
    assert (found.output, found.sqnr_db, found.equal_share) == ("y", np.inf, None)
    assert found.others_equal == {"i": 0.5, "b": 1.0}
    assert found.remarks == ("50 % of the elements of i differ from the float model's",)
    assert not found.all_equal
    assert compare([{"x": rows}], ONES, graph).all_equal


def test_what_the_float_model_does_not_give_in_another_output_is_told() -> None:
    graph = """g (float[N, 4] x) => (float[N, 4] y, float[N, 4] z) {
        y = Identity(x)  p = Mul(x, k)  z = Log(p)
    }"""
    found = compare([{"x": np.array([[1, 2, -3, -4]], np.float32)}], ONES, graph)
    assert (found.left_out, found.others, found.all_equal) == (2, {"z": np.inf}, False)
    assert found.remarks == (
        "2 elements are Inf or NaN in the float model's outputs and are not measured",
    )


def test_the_farthest_of_the_other_outputs_is_named() -> None:
    graph = """g (float[N, 4] x) => (float[N, 4] y, float[N, 4] z, float[N, 4] w) {
        y = Identity(x)  z = Identity(x)  w = Mul(x, k)
    }"""
    found = compare([{"x": ROWS}], -ONES, graph)
    name, db = found.farthest or ("", 0.0)
    assert (name, round(db, 4)) == ("w", -6.0206)
    assert found.remarks == ("low accuracy in outputs beside the first: 'w' -6.0 dB",)
