"""One sample, and the check that it fits the model.

A sample fits when every required input is there and nothing else, each array has the input's
element type, rank and fixed dimensions, dimensions of one symbolic name agree within the sample,
what is looked up in a table is there, and no float is NaN or infinite. Nothing is cast in silence:
a wrong type usually means that a step of the preprocessing was forgotten.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.errors import DataError
from onnxq.graph.structure import InputSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

Signature = tuple[InputSpec, ...]
"""What a model wants to be fed, input by input in its own order."""

ANONYMOUS_DIMS = frozenset({"", "?", "None", "none", "-1", "unknown"})
"""Symbolic names that some exporters write for "not known": they name nothing in common."""

_CHANNELS_FIRST = (0, 3, 1, 2)


@dataclass(frozen=True, eq=False, slots=True)
class Sample:
    """The arrays of one run of the model.

    Attributes:
        name: What a message calls it, e.g. ``calib/0003.npz``, ``x.npy[3]`` or ``sample 3``.
        feeds: An array for each input name, batch dimension included.
        tokens: The input whose rows the model's logits score; empty for any but a language model.
        past: So many of the tokens are to come before the others, as past keys and values.
    """

    name: str
    feeds: Mapping[str, NDArray[Any]]
    tokens: str = ""
    past: int = 0

    @property
    def rows(self) -> int:
        """The batch size: the first axis of the first input that has one, else 1."""
        return next((int(array.shape[0]) for array in self.feeds.values() if array.ndim), 1)


def check_sample(sample: Sample, signature: Signature) -> Sample:
    """Refuse a sample that does not fit the model.

    Args:
        sample: The sample.
        signature: The model's inputs.

    Returns:
        The same arrays, in the order of the model's inputs, and which of them holds tokens.

    Raises:
        DataError: It does not fit; the error names the sample, the input and the remedy.
    """
    _check_names(sample, signature)
    present = [spec for spec in signature if spec.name in sample.feeds]
    for spec in present:
        array = sample.feeds[spec.name]
        _check_dtype(sample, spec, array)
        _check_shape(sample, spec, array)
        _check_rows(sample, spec, array)
    _check_symbols(sample, present)
    for spec in present:
        _check_finite(sample, spec.name, sample.feeds[spec.name])
    if sample.feeds and all(array.size == 0 for array in sample.feeds.values()):
        code, text = "data.empty_sample", "every array is empty"
        raise DataError(code, text, where=sample.name, remedy="Leave this sample out.")
    feeds = {spec.name: sample.feeds[spec.name] for spec in present}
    tokens = next((spec.name for spec in present if spec.scored), "")
    return replace(sample, feeds=feeds, tokens=tokens)


def _check_names(sample: Sample, signature: Signature) -> None:
    known = [spec.name for spec in signature]
    extra = [name for name in sample.feeds if name not in known]
    for spec in signature:
        if not spec.required or spec.name in sample.feeds:
            continue
        near = difflib.get_close_matches(spec.name, extra, n=1)
        given = ", ".join(map(repr, sample.feeds)) or "nothing"
        remedy = (
            f"Rename the array {near[0]!r} to {spec.name!r}."
            if near
            else f"Add an array of that name; the sample has {given}."
        )
        code, text = "data.missing_input", f"the model's input {spec.name!r} is missing"
        raise DataError(code, text, where=sample.name, remedy=remedy)
    if extra:
        near = difflib.get_close_matches(extra[0], known, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        code, text = "data.extra_input", f"the model has no input {extra[0]!r}"
        remedy = f"{hint}The model's inputs: {', '.join(map(repr, known)) or 'none'}."
        raise DataError(code, text, where=sample.name, remedy=remedy)


def _where(sample: Sample, name: str) -> str:
    return f"{sample.name}, input {name!r}"


def _check_dtype(sample: Sample, spec: InputSpec, array: NDArray[Any]) -> None:
    where = _where(sample, spec.name)
    if spec.dtype is None:
        code, text = "data.not_a_tensor", "the model wants a sequence, map or optional here"
        raise DataError(code, text, where=where, remedy="onnxq feeds tensors only.")
    if array.dtype == spec.dtype or (spec.dtype.kind in "OUT" and array.dtype.kind in "OU"):
        return
    code, text = "data.dtype", f"the array is {array.dtype}, the model wants {spec.dtype}"
    remedy = f"Cast it where the data is made: array.astype(np.{spec.dtype})."
    if spec.dtype.kind == "f" and array.dtype.kind in "iub":
        remedy = (
            "Preprocess it as for training (scale, mean) where the data is made, "
            f"then array.astype(np.{spec.dtype})."
        )
    elif spec.dtype.kind in "OUT":
        remedy = "Give an array of strings."
    raise DataError(code, text, where=where, remedy=remedy)


def _fits(shape: tuple[int, ...], spec: InputSpec) -> bool:
    return len(shape) == len(spec.shape) and all(
        not isinstance(want, int) or want == have
        for have, want in zip(shape, spec.shape, strict=True)
    )


def _check_shape(sample: Sample, spec: InputSpec, array: NDArray[Any]) -> None:
    if not spec.rank_known or _fits(array.shape, spec):
        return
    wanted = ", ".join("?" if dim is None else str(dim) for dim in spec.shape)
    given = ", ".join(map(str, array.shape))
    msg = f"the array has shape [{given}], the model wants [{wanted}]"
    code = "data.rank" if array.ndim != len(spec.shape) else "data.shape"
    remedy = _shape_remedy(array.shape, spec)
    raise DataError(code, msg, where=_where(sample, spec.name), remedy=remedy)


def _shape_remedy(shape: tuple[int, ...], spec: InputSpec) -> str:
    if _fits((1, *shape), spec):
        return "Add the batch dimension: array[np.newaxis]."
    if len(shape) == 4 and _fits(tuple(shape[axis] for axis in _CHANNELS_FIRST), spec):
        return "The channels come first in this model: array.transpose(0, 3, 1, 2)."
    if len(shape) == len(spec.shape) + 1 and _fits(shape[1:], spec):
        return "Take the extra first dimension away: array[0]."
    return "Make the array as the model's input says, batch dimension included."


def _check_rows(sample: Sample, spec: InputSpec, array: NDArray[Any]) -> None:
    """ONNX Runtime would fail at the lookup; negative numbers count from the table's end."""
    if spec.rows is None or not array.size:
        return
    outside = (array >= spec.rows) | (array < -spec.rows)
    if outside.any():
        number = array.flat[int(outside.argmax())]
        code = "data.vocabulary"
        text = f"{number} is beyond the {spec.rows} rows of the table that it is looked up in"
        remedy = "Check that data and tokenizer belong to this model."
        raise DataError(code, text, where=_where(sample, spec.name), remedy=remedy)


def _check_symbols(sample: Sample, present: list[InputSpec]) -> None:
    seen: dict[str, tuple[int, str, int]] = {}
    for spec in present:
        if not spec.rank_known:
            continue
        shape = sample.feeds[spec.name].shape
        for axis, (have, want) in enumerate(zip(shape, spec.shape, strict=True)):
            if not isinstance(want, str) or want in ANONYMOUS_DIMS:
                continue
            length, name, at = seen.setdefault(want, (int(have), spec.name, axis))
            if length != have:
                code = "data.symbolic_shape"
                text = f"axis {axis} is {have}, but {want!r} is {length} on axis {at} of {name!r}"
                remedy = f"Give both the same length: the model calls both {want!r}."
                where = _where(sample, spec.name)
                raise DataError(code, text, where=where, remedy=remedy)


def _check_finite(sample: Sample, name: str, array: NDArray[Any]) -> None:
    # Kind V holds bfloat16 and the 8-bit floats, which numpy itself does not know.
    if array.dtype.kind not in "fcV":
        return
    bad = np.logical_not(np.isfinite(array))
    count = int(np.count_nonzero(bad))
    if count:
        first = tuple(int(index) for index in np.unravel_index(int(bad.argmax()), array.shape))
        what = "NaN" if np.isnan(array[first]) else "an infinity"
        code = "data.not_finite"
        text = f"{count} of {array.size} elements are not finite; the first is {what} at {first}"
        remedy = "Leave the sample out or repair it; for a mask write a finite number like -1e9."
        raise DataError(code, text, where=_where(sample, name), remedy=remedy)
