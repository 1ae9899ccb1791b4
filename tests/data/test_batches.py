"""Samples put together along the batch axis, and where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from onnxq.data import open_data
from onnxq.data.batches import batch_of
from onnxq.errors import DataError
from onnxq.graph.structure import InputSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

F = np.dtype(np.float32)
X = InputSpec("x", F, ("n", 2), required=True)
MASK = InputSpec("m", F, ("n",), required=True)
OTHER = InputSpec("o", F, ("k",), required=True)
ONE = InputSpec("i", F, (1,), required=True)
SCALAR = InputSpec("s", F, (), required=True)


def sample(rows: int, start: int, width: int = 2) -> dict[str, NDArray[Any]]:
    return {
        "x": np.arange(start, start + rows * width, dtype=F).reshape(rows, width),
        "m": np.arange(rows, dtype=F),
        "o": np.full(3, start, F),
        "i": np.full(1, start, F),
        "s": np.asarray(start, F),
    }


def batch(rows: int, samples: Sequence[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    signature = (X, MASK, OTHER, ONE, SCALAR)
    return batch_of(open_data(list(samples), signature), signature, rows)


def test_rows_of_several_samples_then_repeated() -> None:
    found = batch(5, [sample(1, 0), sample(2, 10)])
    np.testing.assert_array_equal(found["x"][:, 0], [0, 10, 12, 0, 10])
    np.testing.assert_array_equal(found["m"], [0, 0, 1, 0, 0])


def test_too_many_rows_are_cut() -> None:
    assert batch(2, [sample(5, 0)])["x"].shape == (2, 2)


def test_what_has_no_batch_axis_keeps_the_first_value() -> None:
    found = batch(3, [sample(1, 4), sample(2, 10)])
    np.testing.assert_array_equal(found["o"], [4, 4, 4])
    np.testing.assert_array_equal(found["i"], [4])
    assert found["s"] == 4


def test_samples_of_other_lengths_are_passed_over() -> None:
    spec = (InputSpec("x", F, ("n", "t"), required=True),)
    samples = [{"x": np.full((1, t), t, F)} for t in (3, 5, 3)]
    found = batch_of(open_data(samples, spec), spec, 3)["x"]
    np.testing.assert_array_equal(found, np.full((3, 3), 3))


def test_a_fixed_batch_axis() -> None:
    spec = (InputSpec("x", F, (1, 2), required=True),)
    source = open_data([{"x": np.ones((1, 2), F)}], spec)
    assert batch_of(source, spec, 1)["x"].shape == (1, 2)
    with pytest.raises(DataError, match="batch of 8 does not fit") as error:
        batch_of(source, spec, 8)
    assert error.value.message.endswith("fixed first length, 1")
    assert "export the model" in error.value.remedy
