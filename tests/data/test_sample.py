"""What fits a model, and how the rest is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest

from onnxq.data import Sample, check_sample
from onnxq.errors import DataError
from onnxq.graph.structure import InputSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxq.data import Signature

FLOAT = np.dtype(np.float32)
IMAGE = (InputSpec("image", FLOAT, ("n", 3, 8, 8), required=True),)


def refused(feeds: dict[str, NDArray[Any]], signature: Signature) -> DataError:
    with pytest.raises(DataError) as caught:
        check_sample(Sample("calib/7.npz", feeds), signature)
    error = caught.value
    assert error.where.startswith("calib/7.npz")
    assert error.remedy
    assert len(str(error).splitlines()) == 2
    return error


def test_a_fitting_sample_comes_in_the_order_of_the_model(
    two_inputs: Signature, tokens: dict[str, NDArray[Any]]
) -> None:
    sample = check_sample(Sample("s", tokens), two_inputs)
    assert list(sample.feeds) == ["ids", "mask"]
    assert sample.feeds["ids"] is tokens["ids"]
    assert sample.rows == 2
    assert Sample("scalar", {"x": np.array(1, np.float32)}).rows == 1


def test_missing(two_inputs: Signature, tokens: dict[str, NDArray[Any]]) -> None:
    ids = tokens.pop("ids")
    error = refused(tokens, two_inputs)
    assert error.code == "data.missing_input"
    assert "'ids' is missing" in error.message
    assert "'mask'" in error.remedy
    assert "Rename the array 'id'" in refused(tokens | {"id": ids}, two_inputs).remedy
    assert "nothing" in refused({}, two_inputs).remedy


def test_extra(two_inputs: Signature, tokens: dict[str, NDArray[Any]]) -> None:
    error = refused(tokens | {"bais": np.ones(4, np.float32)}, two_inputs)
    assert error.code == "data.extra_input"
    assert "Did you mean 'bias'?" in error.remedy
    assert "'ids', 'mask', 'bias'" in error.remedy


def test_integers_are_not_widened(two_inputs: Signature, tokens: dict[str, NDArray[Any]]) -> None:
    tokens["ids"] = tokens["ids"].astype(np.int32)
    error = refused(tokens, two_inputs)
    assert error.code == "data.dtype"
    assert error.where == "calib/7.npz, input 'ids'"
    assert "int32, the model wants int64" in error.message
    assert "array.astype(np.int64)" in error.remedy


@pytest.mark.parametrize("dtype", [np.uint8, np.float64, np.float16, np.dtype(">f4"), np.bool_])
def test_other_types_are_not_cast(dtype: np.dtype[Any]) -> None:
    error = refused({"image": np.ones((1, 3, 8, 8), dtype)}, IMAGE)
    assert error.code == "data.dtype"
    assert "astype(np.float32)" in error.remedy
    if np.dtype(dtype).kind in "ub":
        assert "Preprocess" in error.remedy


@pytest.mark.parametrize(
    ("shape", "code", "remedy"),
    [
        ((3, 8, 8), "data.rank", "array[np.newaxis]"),
        ((1, 8, 8, 3), "data.shape", "transpose(0, 3, 1, 2)"),
        ((1, 1, 3, 8, 8), "data.rank", "array[0]"),
        ((1, 3, 8, 9), "data.shape", "batch dimension included"),
        ((), "data.rank", "batch dimension included"),
    ],
)
def test_shape(shape: tuple[int, ...], code: str, remedy: str) -> None:
    error = refused({"image": np.ones(shape, np.float32)}, IMAGE)
    assert error.code == code
    assert "the model wants [n, 3, 8, 8]" in error.message
    assert remedy in error.remedy


def test_symbols_agree_within_a_sample(
    two_inputs: Signature, tokens: dict[str, NDArray[Any]]
) -> None:
    tokens["mask"] = np.ones((2, 6), np.float32)
    error = refused(tokens, two_inputs)
    assert error.code == "data.symbolic_shape"
    assert "axis 1 is 6, but 'length' is 5 on axis 1 of 'ids'" in error.message


@pytest.mark.parametrize("symbol", ["?", "None", None])
def test_nameless_dimensions_need_not_agree(symbol: str | None) -> None:
    signature = tuple(InputSpec(n, FLOAT, (symbol,), required=True) for n in "ab")
    feeds = {"a": np.ones(2, np.float32), "b": np.ones(3, np.float32)}
    assert check_sample(Sample("s", feeds), signature).rows == 2


def test_unknown_rank_takes_any_shape() -> None:
    signature = (InputSpec("x", FLOAT, (), required=True, rank_known=False),)
    assert check_sample(Sample("s", {"x": np.ones((2, 3), np.float32)}), signature).rows == 2


@pytest.mark.parametrize(
    ("value", "word"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_not_finite(value: float, word: str, dtype: type) -> None:
    array: NDArray[Any] = np.ones((2, 3), dtype)
    array[1, 2] = array[1, 1] = value
    signature = (InputSpec("x", np.dtype(dtype), (None, 3), required=True),)
    error = refused({"x": array}, signature)
    assert error.code == "data.not_finite"
    assert error.message.startswith("2 of 6 elements")
    assert word in error.message
    assert "(1, 1)" in error.message


def test_empty_arrays() -> None:
    signature = tuple(InputSpec(n, FLOAT, (None, None), required=True) for n in "ab")
    full, empty = np.ones((1, 2), np.float32), np.ones((1, 0), np.float32)
    check_sample(Sample("first token", {"a": full, "b": empty}), signature)
    assert refused({"a": empty, "b": empty}, signature).code == "data.empty_sample"


def test_strings_and_non_tensors() -> None:
    text = (InputSpec("t", np.dtype(object), (None,), required=True),)
    check_sample(Sample("s", {"t": np.array(["a", "bc"])}), text)
    assert "array of strings" in refused({"t": np.ones(2)}, text).remedy
    sequence = (InputSpec("q", None, (), required=True, rank_known=False),)
    assert refused({"q": np.ones(2)}, sequence).code == "data.not_a_tensor"


def test_numbers_beyond_their_table() -> None:
    signature = (InputSpec("ids", np.dtype(np.int64), ("n",), required=True, rows=100),)
    for number in (100, -101):
        error = refused({"ids": np.asarray([0, 99, -100, number])}, signature)
        assert error.code == "data.vocabulary"
        assert error.message.startswith(f"{number} is beyond the 100 rows")
    fits = Sample("s", {"ids": np.asarray([0, 99, -100])})
    assert check_sample(fits, signature).tokens == ""
    small = (InputSpec("ids", np.dtype(np.uint8), ("n",), required=True, rows=1000),)
    assert check_sample(Sample("s", {"ids": np.asarray([255], np.uint8)}), small).rows == 1


def test_a_sample_says_which_input_holds_tokens() -> None:
    spec = InputSpec("ids", np.dtype(np.int64), ("n", "t"), required=True, rows=100, scored=True)
    sample = check_sample(Sample("s", {"ids": np.zeros((1, 3), np.int64)}, past=2), (spec,))
    assert (sample.tokens, sample.past) == ("ids", 2)
