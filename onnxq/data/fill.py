"""Inputs that the data leaves out and that have one sensible value.

====================  ============================================================================
attention_mask        ones, of the shape of input_ids
token_type_ids        zeros, of the shape of input_ids
position_ids          0, 1, 2, ...; where the mask holds zeros, the count of tokens before
past_key_values.*     empty: the length that is not fixed is 0
use_cache_branch      false
====================  ============================================================================

Nothing else is made up: an input whose shape does not follow from the others stays missing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.data.roles import role_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from onnxq.data.roles import Role
    from onnxq.data.sample import Sample, Signature
    from onnxq.graph.structure import InputSpec

    Feeds = Mapping[str, NDArray[Any]]

_WORDS: dict[Role, str] = {
    "mask": "ones",
    "types": "zeros",
    "positions": "0, 1, 2, ...",
    "branch": "false",
}
_PAST_NOTE = "past keys and values are not in the data: fed empty, as at the start of a text"


class Filler:
    """Adds what is missing to each sample, and remembers what it added."""

    def __init__(self, signature: Signature) -> None:
        """Look for inputs that could be filled."""
        roles = [(spec, role_of(spec)) for spec in signature if spec.required]
        self._ids = next((spec for spec, role in roles if role == "ids"), None)
        self._mask = next((spec for spec, role in roles if role == "mask"), None)
        # Past keys and values first: the shape of the mask depends on them.
        known = [(spec, role) for spec, role in roles if role not in {None, "ids"}]
        self._wanted = sorted(known, key=lambda pair: pair[1] != "past")
        self._notes: dict[str, None] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What was filled so far, a sentence for each input."""
        return tuple(self._notes)

    def __call__(self, sample: Sample) -> Sample:
        """The sample with the missing inputs that have one sensible value."""
        feeds = dict(sample.feeds)
        for spec, role in self._wanted:
            if spec.name in feeds or role is None:
                continue
            value = self._value(spec, role, feeds)
            if value is None:
                continue
            feeds[spec.name] = value
            note = f"{spec.name} is not in the data: filled with {_WORDS.get(role)}"
            self._notes[_PAST_NOTE if role == "past" else note] = None
        return replace(sample, feeds=feeds)

    def _value(self, spec: InputSpec, role: Role, feeds: Feeds) -> NDArray[Any] | None:
        if spec.dtype is None or not spec.rank_known:
            return None
        if role == "branch":
            fits = len(spec.shape) <= 1 and spec.dtype.kind == "b"
            return np.zeros([1] * len(spec.shape), spec.dtype) if fits else None
        ids = None if self._ids is None else feeds.get(self._ids.name)
        if ids is None or ids.ndim != 2:
            return None
        if role == "past":
            shape = _empty_past(spec, ids.shape[0])
            return None if shape is None else np.zeros(shape, spec.dtype)
        if len(spec.shape) != 2 or spec.dtype.kind not in "iufb" or self._has_past(feeds):
            return None
        if role == "positions":
            return self._positions(ids, feeds).astype(spec.dtype)
        return np.full(ids.shape, int(role == "mask"), spec.dtype)

    def _has_past(self, feeds: Feeds) -> bool:
        """Whether tokens come before those of input_ids: mask and positions then depend on it."""
        past = [spec.name for spec, role in self._wanted if role == "past"]
        return any(feeds[name].size for name in past if name in feeds)

    def _positions(self, ids: NDArray[Any], feeds: Feeds) -> NDArray[Any]:
        mask = None if self._mask is None else feeds.get(self._mask.name)
        if mask is None or mask.shape != ids.shape:
            return np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
        counted: NDArray[Any] = np.cumsum(mask, axis=1) - 1
        return counted.clip(min=0)


def _empty_past(spec: InputSpec, batch: int) -> tuple[int, ...] | None:
    """Batch, then fixed lengths, and 0 for the one that is not fixed; None if it is not one."""
    batch_axis = 1 if len(spec.shape) == 5 else 0
    shape: list[int] = []
    open_axes = 0
    for axis, length in enumerate(spec.shape):
        if axis == batch_axis:
            shape.append(length if isinstance(length, int) else batch)
        elif isinstance(length, int):
            shape.append(length)
        else:
            shape.append(0)
            open_axes += 1
    return tuple(shape) if open_axes == 1 else None
