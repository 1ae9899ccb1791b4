"""Which channel of an activation each element of another value belongs to, as labels.

Labels are an integer array that broadcasts against a value from the right: a length of 1 says that
the label does not depend on this axis, any other length is the value's own. A label is the index of
a channel of the activation that is to be divided, ``NONE`` marks elements that stay as they are.
Labels are followed backwards, from what an operator makes to what it reads.

Where one element is read as several channels (heads that are repeated), these have to be divided
by the same: they become one class.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    Labels = NDArray[np.int64]

NONE = -1
"""The label of what is not divided."""

Dims = tuple[int | str | None, ...]
"""Lengths: a number, the name of an unknown number, or None. Equal names are equal numbers."""


class NoFoldError(Exception):
    """Why a division cannot be followed or taken, in words; never leaves the search."""


class Classes:
    """Channels that have to be divided by the same number.

    Attributes:
        of: The least channel of each channel's class.
    """

    def __init__(self, count: int) -> None:
        """Every channel is a class of its own."""
        self.of: Labels = np.arange(count)

    def merge(self, labels: Labels) -> None:
        """Make the labels of each column one class; none of them is ``NONE``.

        Args:
            labels: Two axes.
        """
        while True:
            roots = self.of[labels]
            least = np.broadcast_to(roots.min(axis=0), roots.shape)
            if np.array_equal(roots, least):
                return
            lower = np.arange(self.of.size)
            np.minimum.at(lower, roots, least)
            while not np.array_equal(lower[lower], lower):
                lower = lower[lower]
            self.of = lower[self.of]

    def numbered(self) -> Labels:
        """The class of each channel, counted from 0 in the order of their least channels."""
        numbers: Labels = np.unique(self.of, return_inverse=True)[1].reshape(-1)
        return numbers


def dims_of(value: ir.Value | None) -> Dims | None:
    """The lengths of a value; None if not even their number is known."""
    if value is None or value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)


def padded(labels: Labels, rank: int) -> Labels:
    """The same labels with ``rank`` axes.

    Raises:
        NoFoldError: They depend on more axes.
    """
    shape = labels.shape
    extra = max(len(shape) - rank, 0)
    if math.prod(shape[:extra]) != 1:
        text = "the axis of its channels is unclear"
        raise NoFoldError(text)
    return labels.reshape((1,) * (rank - len(shape)) + shape[extra:])


def channel_axis(labels: Labels) -> int:
    """The one axis that labels depend on, counted from the end; the last if they depend on none.

    Raises:
        NoFoldError: They depend on several.
    """
    axes = [axis - labels.ndim for axis, length in enumerate(labels.shape) if length > 1]
    if len(axes) > 1:
        text = "its channels lie along several axes"
        raise NoFoldError(text)
    return axes[0] if axes else -1


def along_last(labels: Labels) -> Labels:
    """Labels that depend on the last axis at most, as a vector.

    Raises:
        NoFoldError: They depend on another axis.
    """
    return padded(labels, 1)


def narrowed(labels: Labels, dims: Dims | None, classes: Classes) -> Labels:
    """The labels of an input that is broadcast to what ``labels`` belong to.

    Args:
        labels: Of the result.
        dims: The input's lengths.
        classes: Gets a class for the channels that one element of the input is repeated for.

    Raises:
        NoFoldError: A length is not known, or an element would be divided and not be divided.
    """
    if dims is None:
        text = "its shape is not known"
        raise NoFoldError(text)
    result = labels
    for axis in range(-labels.ndim, 0):
        length = dims[axis] if -axis <= len(dims) else 1
        if labels.shape[axis] == 1 or length == labels.shape[axis]:
            continue
        if length != 1:
            text = "the length of an axis is not known"
            raise NoFoldError(text)
        result = _merged(result, axis, classes)
    return padded(result, len(dims))


def _merged(labels: Labels, axis: int, classes: Classes) -> Labels:
    """Make the labels along one axis one."""
    columns = np.moveaxis(labels, axis, 0)
    first = columns[:1]
    divided = columns != NONE
    if (divided != divided[:1]).any():
        text = "an element is read both as a channel that is divided and as another"
        raise NoFoldError(text)
    flat = columns.reshape(columns.shape[0], -1)
    classes.merge(flat[:, divided[0].reshape(-1)])
    return np.moveaxis(first, 0, axis)


def before_transpose(labels: Labels, order: Sequence[int]) -> Labels:
    """Labels of the input of a Transpose with ``perm = order``."""
    return np.transpose(padded(labels, len(order)), np.argsort(order))


def before_reshape(labels: Labels, before: Dims | None, after: Dims | None) -> Labels:
    """Labels of the input of a Reshape.

    Lengths are compared from the end: groups of known lengths with the same product, and equal
    names; one unknown length on either side is the same, too, where all others are. What is left in
    front must carry no labels. So a reshape of ``[B, S, 576]`` to ``[B, S, 9, 64]`` or ``[N, 576]``
    is followed whatever B, S and N are.

    Args:
        labels: Of the output.
        before: The input's lengths.
        after: The output's lengths.

    Raises:
        NoFoldError: A label lies along an axis whose elements cannot be told apart so.
    """
    if before is None or after is None:
        text = "its shape is not known"
        raise NoFoldError(text)
    labels = padded(labels, len(after))
    # What labels depend on has their length, whether inference knew it or not.
    known = zip(labels.shape, after, strict=True)
    before, after = _same_names(before, tuple(own if own > 1 else dim for own, dim in known))
    left, right = len(before), len(after)
    shape: list[int] = []
    while left and right:
        new_left, new_right = _matched(before, left, after, right)
        if new_left == left and new_right == right:
            break
        group = labels.shape[new_right:right]
        if math.prod(group) > 1:
            full = (*labels.shape[:new_right], *after[new_right:right], *labels.shape[right:])
            labels = np.broadcast_to(labels, [int(length or 0) for length in full])
            shape[:0] = [int(length or 0) for length in before[new_left:left]]
        else:
            shape[:0] = [1] * (left - new_left)
        left, right = new_left, new_right
    if math.prod(labels.shape[:right]) != 1:
        text = f"{_text(before)} to {_text(after)} cannot be followed exactly"
        raise NoFoldError(text)
    return labels.reshape((1,) * left + tuple(shape))


def _same_names(before: Dims, after: Dims) -> tuple[Dims, Dims]:
    """The lengths, with one name for what must be equal because a reshape keeps all elements."""
    pairs = []
    for own, other in ((before, after), (after, before)):
        unknown = [
            place
            for place, length in enumerate(own)
            if not isinstance(length, int) and (length is None or length not in other)
        ]
        product = math.prod(length for length in own if isinstance(length, int))
        names = sorted(length for length in own if isinstance(length, str) and length in other)
        pairs.append((unknown, product, names))
    (left, *rest), (right, *others) = pairs
    if len(left) != 1 or len(right) != 1 or rest != others:
        return before, after
    return (
        (*before[: left[0]], "=", *before[left[0] + 1 :]),
        (*after[: right[0]], "=", *after[right[0] + 1 :]),
    )


def _matched(before: Dims, left: int, after: Dims, right: int) -> tuple[int, int]:
    """Where the last group of axes that hold the same elements begins, on both sides."""
    start, end = left - 1, right - 1
    first, second = before[start], after[end]
    if first == second and first is not None:
        return start, end
    if not isinstance(first, int) or not isinstance(second, int):
        # A length of 1 on one side alone is a group of its own.
        return (start, right) if first == 1 else (left, end) if second == 1 else (left, right)
    while first != second:
        grown = before[start - 1] if first < second and start else None
        if first < second and isinstance(grown, int):
            start, first = start - 1, first * grown
            continue
        grown = after[end - 1] if second < first and end else None
        if not isinstance(grown, int):
            return left, right
        end, second = end - 1, second * grown
    return start, end


def _text(dims: Dims) -> str:
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in dims) + "]"
