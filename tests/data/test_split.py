"""Held-out samples, limits, and labels that follow their samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.data import (
    DataSource,
    Labels,
    find_labels,
    held_out,
    limit,
    load_labels,
    open_data,
    read_labels,
    shared_samples,
)
from onnxq.errors import DataError
from onnxq.graph.structure import InputSpec

if TYPE_CHECKING:
    from pathlib import Path

SIGNATURE = (InputSpec("x", np.dtype(np.float32), ("n", 1), required=True),)


def source(rows: list[int]) -> DataSource:
    return open_data([{"x": np.full((r, 1), i, np.float32)} for i, r in enumerate(rows)], SIGNATURE)


@given(count=st.integers(2, 300), fraction=st.floats(0.001, 0.999), seed=st.integers(0, 99))
def test_a_split_divides(count: int, fraction: float, seed: int) -> None:
    whole = source([1] * count)
    split = held_out(whole, fraction=fraction, seed=seed)
    assert split.independent
    calibration, evaluation = list(split.calibration.positions), list(split.evaluation.positions)
    assert calibration
    assert evaluation
    assert calibration == sorted(calibration)
    assert evaluation == sorted(evaluation)
    assert sorted(calibration + evaluation) == list(range(count))
    assert abs(len(evaluation) - count * fraction) <= 1
    again = held_out(whole, fraction=fraction, seed=seed)
    assert list(again.evaluation.positions) == evaluation


def samples(*values: float) -> DataSource:
    return open_data([{"x": np.full((1, 1), value, np.float32)} for value in values], SIGNATURE)


def test_shared_samples_are_those_with_the_same_contents() -> None:
    assert shared_samples(samples(1, 2, 3), samples(4, 5)) == 0
    assert shared_samples(samples(1, 2, 3), samples(3, 4, 1, 1)) == 3
    assert shared_samples(samples(1, 1), samples(1)) == 1


@given(
    seen=st.lists(st.integers(0, 5), min_size=1, max_size=8),
    new=st.lists(st.integers(0, 5), min_size=1, max_size=8),
)
def test_every_shared_sample_is_counted(seen: list[int], new: list[int]) -> None:
    assert shared_samples(samples(*seen), samples(*new)) == sum(value in seen for value in new)


def test_equal_bytes_of_another_shape_type_or_input_are_another_sample() -> None:
    kinds = [
        ("x", np.zeros((1, 4), np.float32)),
        ("x", np.zeros((2, 2), np.float32)),
        ("x", np.zeros((1, 4), np.int32)),
        ("y", np.zeros((1, 4), np.float32)),
    ]
    opened = [
        open_data([{name: array}], (InputSpec(name, array.dtype, (None, None), required=True),))
        for name, array in kinds
    ]
    for one, first in enumerate(opened):
        found = [shared_samples(first, second) for second in opened]
        assert found == [int(one == two) for two in range(len(opened))]


def test_the_layout_in_memory_and_the_order_of_inputs_do_not_matter() -> None:
    specs = tuple(InputSpec(n, np.dtype(np.float32), (None, None), required=True) for n in "xy")
    x, y = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((1, 1), np.float32)
    one = open_data([{"x": x, "y": y}], specs)
    two = open_data([{"y": y, "x": np.asfortranarray(x)}], specs)
    assert shared_samples(one, two) == 1


def test_texts_are_compared_by_their_contents() -> None:
    spec = (InputSpec("t", np.dtype(np.object_), (None,), required=True),)

    def texts(*words: str) -> DataSource:
        return open_data([{"t": np.asarray([word], object)} for word in words], spec)

    assert shared_samples(texts("a", "b"), texts("".join(["b"]), "c")) == 1


def test_the_seed_chooses() -> None:
    whole = source([1] * 100)
    parts = {tuple(held_out(whole, seed=seed).evaluation.positions) for seed in range(5)}
    assert len(parts) == 5
    assert {len(part) for part in parts} == {20}


def test_a_single_sample_is_not_independent() -> None:
    split = held_out(source([1]))
    assert not split.independent
    assert list(split.calibration.positions) == list(split.evaluation.positions) == [0]


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_bad_fraction(fraction: float) -> None:
    with pytest.raises(DataError, match="fraction"):
        held_out(source([1, 1]), fraction=fraction)


def test_no_samples() -> None:
    empty = source([1, 1]).subset([])
    for call in (held_out, lambda data: limit(data, 3)):
        with pytest.raises(DataError, match="there is no sample"):
            call(empty)


@given(count=st.integers(1, 50), samples=st.integers(1, 60), seed=st.integers(0, 9))
def test_limit(count: int, samples: int, seed: int) -> None:
    whole = source([1] * count)
    chosen = limit(whole, samples, seed=seed)
    positions = list(chosen.positions)
    assert len(positions) == min(count, samples)
    assert positions == sorted(set(positions))
    assert list(limit(whole, samples, seed=seed).positions) == positions


def test_limit_none_and_zero() -> None:
    whole = source([1] * 3)
    assert limit(whole, None) is whole
    with pytest.raises(DataError, match="0 samples"):
        limit(whole, 0)


@given(rows=st.lists(st.integers(1, 4), min_size=2, max_size=20), seed=st.integers(0, 9))
def test_labels_follow_their_samples(rows: list[int], seed: int) -> None:
    whole = source(rows)
    values = np.repeat(np.arange(len(rows)), rows).astype(np.int64)
    labels = Labels.align(values, whole)
    split = held_out(whole, fraction=0.4, seed=seed)
    for part in (whole, split.calibration, limit(split.evaluation, 2, seed=seed)):
        for sample, of_sample in labels.pair(part):
            np.testing.assert_array_equal(of_sample, sample.feeds["x"][:, 0].astype(np.int64))


def test_too_few_labels() -> None:
    with pytest.raises(DataError, match="4 labels for 5 rows"):
        Labels.align(np.zeros(4, np.int64), source([2, 2, 1]))
    labels = Labels.align(np.zeros(3, np.int64), source([1, 2, 1]))
    with pytest.raises(DataError, match="sample 1: 1 labels for 2 rows"):
        list(labels.pair(source([1, 2, 1])))


@pytest.mark.parametrize("name", ["labels.txt", "labels.csv"])
def test_labels_as_text(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf3\r\n -1\n+20\n\n")
    labels = find_labels(tmp_path)
    assert labels is not None
    assert labels.tolist() == [3, -1, 20]
    assert labels.dtype == np.int64


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_labels_as_array(tmp_path: Path, dtype: Any) -> None:
    np.save(tmp_path / "labels.npy", np.array([3, 1], dtype))
    np.savez(tmp_path / "0.npz", x=np.ones((2, 1), np.float32))
    labels = load_labels(str(tmp_path))
    assert labels is not None
    assert labels.tolist() == [3, 1]
    assert labels.dtype == np.int64


def test_no_labels(tmp_path: Path) -> None:
    assert find_labels(tmp_path) is None
    assert load_labels([{"x": np.ones(1)}]) is None


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("l.txt", "1\ntwo\n", "line 2: 'two' is not an integer"),
        ("l.csv", "label\n1\n", "line 1: 'label'"),
        ("l.txt", "1\n2.0\n", "'2.0' is not an integer"),
        ("l.txt", "1\f2\n3", "line 1: .* is not an integer"),
        ("l.txt", "1\u20282\n3", "line 1: "),
        ("l.txt", "", "holds no label"),
        ("l.dat", "1", "does not read labels from .dat"),
        ("l.npy", "1", "cannot be read"),
    ],
)
def test_bad_labels(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=words):
        read_labels(tmp_path / name)


@pytest.mark.parametrize(
    "array", [np.eye(2, dtype=np.int64), np.ones(2, np.float32), np.array(["a"])]
)
def test_bad_label_arrays(tmp_path: Path, array: Any) -> None:
    np.save(tmp_path / "l.npy", array)
    with pytest.raises(DataError, match="labels should be integers"):
        read_labels(tmp_path / "l.npy")


def test_missing_and_double_labels(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_labels(tmp_path / "none.txt")
    (tmp_path / "labels.txt").write_text("1", encoding="utf-8")
    (tmp_path / "labels.csv").write_text("1", encoding="utf-8")
    with pytest.raises(DataError, match=r"labels\.txt and labels\.csv"):
        find_labels(tmp_path)


def test_unpadded_names_make_the_order_of_labels_doubtful(tmp_path: Path) -> None:
    for name in ("9", "10"):
        np.savez(tmp_path / f"{name}.npz", x=np.ones((1, 1), np.float32))
    assert load_labels(tmp_path) is None
    (tmp_path / "labels.txt").write_text("1\n2\n", encoding="utf-8")
    with pytest.raises(DataError, match="leading zeros"):
        load_labels(tmp_path)
    (tmp_path / "9.npz").rename(tmp_path / "09.npz")
    assert load_labels(tmp_path) is not None
