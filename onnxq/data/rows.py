"""From a row of named values (a table, a JSON object, a data set's item) to a model's inputs.

A column that is called like an input feeds it: a number, or a list that is as long as the input's
fixed dimensions say; the batch dimension is added. A ``text`` column goes through the tokenizer, a
column of encoded or decoded images through the declared steps. Other columns are left out, which
is said.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.data.sample import Sample
from onnxq.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

    from onnxq.data.sample import Signature
    from onnxq.data.steps import Steps
    from onnxq.graph.structure import InputSpec

    Note = Callable[[str], None]

_IMAGE_COLUMNS = ("image", "img", "bytes")


class RowMapper:
    """Makes samples of rows."""

    def __init__(self, signature: Signature, steps: Steps, *, typed: bool) -> None:
        """Know the model's inputs and the declared steps.

        Args:
            signature: The model's inputs.
            steps: What images and texts go through.
            typed: Whether the numbers have a type of their own, as in a table. Integers of text
                may feed a float input, integers of a table may not: scaling was forgotten.
        """
        self._specs = {spec.name: spec for spec in signature}
        self._steps = steps
        self._typed = typed

    def columns(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of the columns that are used."""
        return tuple(name for name in names if name in self._specs or self._is_raw(name))

    def _is_raw(self, name: str) -> bool:
        return name == self._steps.text_column or name in _IMAGE_COLUMNS

    def __call__(self, row: Mapping[str, object], where: str, note: Note) -> Sample:
        """The sample of a row.

        Args:
            row: Values by column.
            where: What to call the sample.
            note: Told what was left out, and what became of texts.

        Raises:
            DataError: A value is no number, text or image, or does not fit its input.
        """
        feeds: dict[str, NDArray[Any]] = {}
        for name, value in row.items():
            if name in self._specs and not _is_image(value):
                spec = self._specs[name]
                feeds[name] = to_array(value, spec, f"{where}, {name!r}", typed=self._typed)
            elif self._is_raw(name) or (name in self._specs and _is_image(value)):
                feeds |= self._raw(value, f"{where}, {name!r}")
        unused = [name for name in row if name not in self._specs and not self._is_raw(name)]
        if unused:
            word = "column" if len(unused) == 1 else "columns"
            note(f"{word} {', '.join(map(repr, unused))} left out: the model has no such input")
        for text in self._steps.text_notes():
            note(text)
        return Sample(where, feeds)

    def text(self, row: Mapping[str, object]) -> str | None:
        """The row's text; None where it has none, or arrays of its own for the model."""
        value = row.get(self._steps.text_column)
        own = any(name in self._specs for name in row)
        return value if isinstance(value, str) and not own else None

    def _raw(self, value: object, where: str) -> dict[str, NDArray[Any]]:
        if isinstance(value, str):
            return self._steps.text(value, where)
        if isinstance(value, dict):
            # How the datasets package keeps an image in a table.
            value = value.get("bytes")
        if isinstance(value, bytes):
            return self._steps.image(value, where)
        if _is_image(value):
            return self._steps.pixels(value, where)
        code, text = "data.column", f"a {type(value).__name__} is no text and no image"
        raise DataError(code, text, where=where, remedy="Leave this row out.")


def _is_image(value: object) -> bool:
    """Whether it is encoded, or one of Pillow's; Pillow need not be there."""
    encoded = isinstance(value, bytes) or (isinstance(value, dict) and "bytes" in value)
    return encoded or any(kind.__module__ == "PIL.Image" for kind in type(value).__mro__)


def to_array(value: object, spec: InputSpec, where: str, *, typed: bool) -> NDArray[Any]:
    """A value as an array of the input's type and rank, with a batch dimension.

    Args:
        value: A number, a text, or a list of them, nested or flat.
        spec: The input.
        where: The row and column, for messages.
        typed: Whether integers are refused where the model wants floats.

    Raises:
        DataError: It is none of these, or a number has no place in the type.
    """
    array = _plain(value, where)
    if spec.dtype is None:
        return array
    return _shaped(_cast(array, spec.dtype, where, typed=typed), spec)


def _plain(value: object, where: str) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.asarray(value)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        code, text = "data.not_an_array", "the value is no list of numbers of one length"
        remedy = "Give a number, or lists that are equally long at each level."
        raise DataError(code, text, where=where, remedy=remedy) from error
    if array.dtype.kind not in "biufUV":
        code, text = "data.not_an_array", "the value is missing or holds something but numbers"
        raise DataError(code, text, where=where, remedy="Fill it in, or leave this row out.")
    return array


def _cast(array: NDArray[Any], dtype: np.dtype[Any], where: str, *, typed: bool) -> NDArray[Any]:
    kinds = array.dtype.kind, dtype.kind
    if array.dtype == dtype or "V" in kinds or (kinds[0] == "U" and kinds[1] in "OUT"):
        return array
    if kinds[0] == "f" and kinds[1] == "f":
        # A number beyond the type becomes an infinity, which the sample's check names.
        with np.errstate(over="ignore"):
            return array.astype(dtype)
    if kinds[0] in "biu" and kinds[1] == "f" and not typed:
        return array.astype(dtype)
    if kinds[0] in "biu" and kinds[1] in "iub":
        cast = array.astype(dtype)
        if np.array_equal(cast, array):
            return cast
        code, text = (
            "data.range",
            f"{array.flat[0] if array.size == 1 else 'a value'} is no {dtype}",
        )
        raise DataError(code, text, where=where, remedy="Check the values of this column.")
    code, text = "data.dtype", f"the values are {array.dtype}, the model wants {dtype}"
    remedy = "Make the column as the model wants it, scaled as for training."
    raise DataError(code, text, where=where, remedy=remedy)


def _shaped(array: NDArray[Any], spec: InputSpec) -> NDArray[Any]:
    """With a batch dimension, and a flat list folded to fixed dimensions; else as it is."""
    if not spec.rank_known or array.ndim == len(spec.shape):
        return array
    inner = spec.shape[1:]
    if array.ndim == len(inner):
        return array[np.newaxis]
    fixed = [length for length in inner if isinstance(length, int)]
    if array.ndim <= 1 and len(fixed) == len(inner) and math.prod(fixed) == array.size:
        return array.reshape(1, *fixed)
    if array.ndim == 0:
        return array.reshape((1,) * len(spec.shape))
    return array
