"""Labels followed backwards say for each element what numpy does to labels going forwards."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.graph.channels import (
    NONE,
    Classes,
    NoFoldError,
    before_reshape,
    before_transpose,
    channel_axis,
    narrowed,
    padded,
)

if TYPE_CHECKING:
    from random import Random

    from onnxq.graph.channels import Dims

SIZES = {"B": 2, "S": 3, "T": 5}


def sizes(dims: Dims) -> list[int]:
    return [length if isinstance(length, int) else SIZES[str(length)] for length in dims]


@pytest.mark.parametrize(
    ("before", "after", "axes"),
    [
        (("B", "S", 12), ("B", "S", 3, 4), (2, 3)),
        (("B", "S", 3, 4), ("B", "S", 12), (2,)),
        (("B", "S", 12), (6, 12), (1,)),
        (("B", "S", 12), ("T", 12), (1,)),
        (("B", 3, 3, "S", 4), ("B", 9, "S", 4), (1, 3)),
        (("B", 3, 1, "S", 4), ("B", 3, "S", 4), (1, 3)),
        (("B", 3, "S", 4), ("B", 1, 3, "S", 1, 4), (2, 5)),
        (("B", 4, 6), ("B", 8, 3), (1, 2)),
        (("B", 6, 5), ("B", 10, 3), (1,)),
        ((None, "S", 12), (None, "S", 3, 4), (2, 3)),
        ((12,), (3, 4), (0, 1)),
        (("B", 2, 6), ("B", 12), (1,)),
    ],
)
def test_a_reshape_is_followed(before: Dims, after: Dims, axes: tuple[int, ...]) -> None:
    """Each element of the input has the label of the element that it becomes."""
    shape = [int(length or 0) if axis in axes else 1 for axis, length in enumerate(after)]
    labels = np.arange(math.prod(shape)).reshape(shape)
    found = before_reshape(labels, before, after)
    if None in before:
        before, after = ("B", *before[1:]), ("B", *after[1:])
    if "T" in after:
        after = tuple(6 if length == "T" else length for length in after)
    full = np.broadcast_to(labels, sizes(after)).reshape(sizes(before))
    np.testing.assert_array_equal(np.broadcast_to(found, sizes(before)), full)


@pytest.mark.parametrize(
    ("before", "after", "axis"),
    [
        (("B", "S", 10), ("B", 5, "T"), 1),
        (("B", 3, "S", 4), ("B", 12, "S"), 1),
        ((None, None, 4), (None, 12, None, 1), 1),
        (None, ("B", 12), 1),
        (("B", 12), None, 0),
    ],
)
def test_a_reshape_that_mixes_unknown_lengths_is_refused(
    before: Dims | None, after: Dims | None, axis: int
) -> None:
    dims = (12,) if after is None else after
    labels = np.arange(int(dims[axis] or 0))
    labels = labels.reshape([-1 if place == axis else 1 for place in range(len(dims))])
    with pytest.raises(NoFoldError):
        before_reshape(labels, before, after)


@given(
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    cut=st.integers(1, 4),
    random=st.randoms(use_true_random=False),
)
def test_known_shapes_are_always_followed(lengths: list[int], cut: int, random: Random) -> None:
    """Any reshape of known lengths, and any transposition, equals numpy's own."""
    after = tuple(lengths)
    count = math.prod(after)
    first = math.gcd(count, cut)
    before = (first, count // first)
    labels = np.arange(count).reshape(after)
    np.testing.assert_array_equal(before_reshape(labels, before, after), labels.reshape(before))
    order = list(range(len(after)))
    random.shuffle(order)
    found = before_transpose(labels, order)
    np.testing.assert_array_equal(np.transpose(found, order), labels)


@given(groups=st.integers(1, 4), repeats=st.integers(1, 4), width=st.integers(1, 4))
def test_repeated_elements_become_classes(groups: int, repeats: int, width: int) -> None:
    """The classes are those of the element that numpy's repetition takes them from."""
    classes = Classes(groups * repeats * width)
    labels = np.arange(groups * repeats * width).reshape(groups, repeats, width)
    found = narrowed(labels, (groups, 1, width), classes)
    assert found.shape == (groups, 1, width)
    origin = np.broadcast_to(np.arange(groups * width).reshape(groups, 1, width), labels.shape)
    np.testing.assert_array_equal(classes.numbered(), origin.reshape(-1))


@given(pairs=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_classes_are_connected_components(pairs: list[tuple[int, int]]) -> None:
    classes = Classes(10)
    reference = np.arange(10)
    for one, other in pairs:
        classes.merge(np.asarray([[one], [other]]))
        reference[reference == reference[one]] = reference[other]
    same = reference[:, None] == reference[None, :]
    numbers = classes.numbered()
    np.testing.assert_array_equal(numbers[:, None] == numbers[None, :], same)
    assert set(numbers.tolist()) == set(range(len(set(reference.tolist()))))


def test_an_element_is_divided_or_not() -> None:
    with pytest.raises(NoFoldError, match="as another"):
        narrowed(np.asarray([0, NONE]), (1,), Classes(1))
    assert narrowed(np.asarray([NONE, NONE]), (1,), Classes(1)).tolist() == [NONE]


def test_unknown_lengths_are_refused() -> None:
    with pytest.raises(NoFoldError, match="not known"):
        narrowed(np.arange(3), ("S",), Classes(3))
    with pytest.raises(NoFoldError, match="not known"):
        narrowed(np.arange(3), None, Classes(3))


def test_axes() -> None:
    assert channel_axis(np.zeros((1, 4, 1), int)) == -2
    assert channel_axis(np.zeros((1, 1), int)) == -1
    with pytest.raises(NoFoldError, match="several axes"):
        channel_axis(np.zeros((2, 2), int))
    assert padded(np.arange(3), 3).shape == (1, 1, 3)
    assert padded(np.zeros((1, 1, 3), int), 1).shape == (3,)
    with pytest.raises(NoFoldError, match="unclear"):
        padded(np.zeros((2, 3), int), 1)
