"""Inputs that the data leaves out: which are filled, with what, and that it is said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.data import open_data
from onnxq.errors import DataError
from onnxq.graph.structure import InputSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxq.data import DataSource
    from onnxq.graph.structure import Dims

INT, FLOAT, BOOL = np.dtype(np.int64), np.dtype(np.float32), np.dtype(np.bool_)
IDS = InputSpec("input_ids", INT, ("batch", "length"), required=True)


def spec(name: str, dims: Dims, dtype: np.dtype[Any] = INT) -> InputSpec:
    return InputSpec(name, dtype, dims, required=True)


def filled(*specs: InputSpec, **feeds: NDArray[Any]) -> tuple[dict[str, NDArray[Any]], DataSource]:
    source = open_data([feeds], (IDS, *specs))
    (sample,) = source
    return dict(sample.feeds), source


@given(batch=st.integers(1, 4), length=st.integers(1, 9), dtype=st.sampled_from([INT, FLOAT, BOOL]))
def test_the_inputs_of_an_encoder(batch: int, length: int, dtype: np.dtype[Any]) -> None:
    ids = np.ones((batch, length), np.int64)
    feeds, source = filled(
        spec("attention_mask", ("batch", "length"), dtype),
        spec("token_type_ids", ("batch", "length")),
        spec("position_ids", ("batch", "length")),
        input_ids=ids,
    )
    assert feeds["attention_mask"].dtype == dtype
    np.testing.assert_array_equal(feeds["attention_mask"], np.ones((batch, length)))
    np.testing.assert_array_equal(feeds["token_type_ids"], np.zeros((batch, length)))
    np.testing.assert_array_equal(feeds["position_ids"], [list(range(length))] * batch)
    assert source.notes == (
        "attention_mask is not in the data: filled with ones",
        "token_type_ids is not in the data: filled with zeros",
        "position_ids is not in the data: filled with 0, 1, 2, ...",
    )


def test_names_of_tensorflow() -> None:
    feeds, _ = filled(
        spec("input_mask:0", ("batch", "length"), np.dtype(np.int32)),
        spec("segment_ids:0", ("batch", "length"), np.dtype(np.int32)),
        input_ids=np.ones((1, 3), np.int64),
    )
    assert feeds["input_mask:0"].tolist() == [[1, 1, 1]]
    assert feeds["segment_ids:0"].dtype == np.int32


def test_positions_follow_a_mask_that_is_given() -> None:
    feeds, source = filled(
        spec("position_ids", ("batch", "length")),
        spec("attention_mask", ("batch", "length")),
        input_ids=np.ones((2, 4), np.int64),
        attention_mask=np.array([[0, 0, 1, 1], [1, 1, 1, 0]]),
    )
    assert feeds["position_ids"].tolist() == [[0, 0, 0, 1], [0, 1, 2, 2]]
    assert len(source.notes) == 1


@pytest.mark.parametrize("name", ["past_key_values.0.key", "past_key_values.11.value", "past_0"])
@pytest.mark.parametrize("batch", ["batch", 2, None])
def test_an_empty_past(name: str, batch: int | str | None) -> None:
    feeds, source = filled(
        spec(name, (batch, 3, "past_length", 64), FLOAT),
        spec("attention_mask", ("batch", "past_length + length")),
        spec("use_cache_branch", (1,), BOOL),
        input_ids=np.ones((2, 5), np.int64),
    )
    assert feeds[name].shape == (2, 3, 0, 64)
    assert feeds["attention_mask"].shape == (2, 5)
    assert feeds["use_cache_branch"].tolist() == [False]
    assert any("fed empty" in note for note in source.notes)


def test_an_empty_past_of_keys_and_values_together() -> None:
    ids = np.ones((1, 5), np.int64)
    feeds, _ = filled(spec("past_0", (2, "batch", 3, "past", 64), FLOAT), input_ids=ids)
    assert feeds["past_0"].shape == (2, 1, 3, 0, 64)


@pytest.mark.parametrize(
    "missing",
    [
        spec("pixel_values", ("batch", 3, 8, 8), FLOAT),
        spec("attention_mask", ("batch", 1, "length", "length"), FLOAT),
        spec("past_key_values.0.key", ("batch", "heads", "past", 64), FLOAT),
        spec("past_key_values.0.key", ("batch", 3, 16, 64), FLOAT),
        spec("use_cache_branch", (1,), FLOAT),
        InputSpec("position_ids", INT, (), required=True, rank_known=False),
        spec("pastry", ("batch", "length")),
    ],
)
def test_nothing_else_is_made_up(missing: InputSpec) -> None:
    with pytest.raises(DataError, match=f"'{missing.name}' is missing"):
        filled(missing, input_ids=np.ones((1, 3), np.int64))


def test_a_mask_behind_a_past_that_is_given_is_not_made_up() -> None:
    with pytest.raises(DataError, match="'attention_mask' is missing"):
        filled(
            spec("past_0", ("batch", 3, "past", 64), FLOAT),
            spec("attention_mask", ("batch", "all")),
            input_ids=np.ones((1, 3), np.int64),
            past_0=np.ones((1, 3, 2, 64), np.float32),
        )


def test_what_is_there_stays_and_defaults_are_left_alone() -> None:
    mask = np.array([[1, 1, 0]])
    feeds, source = filled(
        spec("attention_mask", ("batch", "length")),
        InputSpec("token_type_ids", INT, ("batch", "length"), required=False),
        input_ids=np.ones((1, 3), np.int64),
        attention_mask=mask,
    )
    np.testing.assert_array_equal(feeds["attention_mask"], mask)
    assert list(feeds) == ["input_ids", "attention_mask"]
    assert source.notes == ()


def test_notes_survive_subsets_and_spooling() -> None:
    signature = (IDS, spec("attention_mask", ("batch", "length")))
    source = open_data(({"input_ids": np.ones((1, 3), np.int64)} for _ in range(4)), signature)
    list(source.subset([1, 2]).subset([0]))
    assert source.notes == ("attention_mask is not in the data: filled with ones",)
