"""Shapes over samples, against shapes written down by hand."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq.data.shape_ranges import ShapeRange, open_inputs, shape_ranges
from onnxq.graph.structure import InputSpec

Feeds = list[dict[str, np.ndarray]]


def feeds(*shapes: tuple[int, ...]) -> Feeds:
    return [{"ids": np.zeros(shape), "mask": np.zeros((*shape, 1))} for shape in shapes]


def test_least_and_greatest_by_axis_and_the_median_sample() -> None:
    samples = feeds((1, 9), (2, 16), (3, 4), (2, 16), (2, 16))
    found, count = shape_ranges(["ids", "mask"], samples)
    assert count == 5
    assert found == (
        ShapeRange("ids", (1, 4), (2, 16), (3, 16)),
        ShapeRange("mask", (1, 4, 1), (2, 16, 1), (3, 16, 1)),
    )


def test_of_an_even_number_the_lower_middle_is_taken() -> None:
    (found,), _ = shape_ranges(["ids"], feeds((1, 40), (1, 8), (1, 16), (1, 33)))
    assert found == ShapeRange("ids", (1, 8), (1, 16), (1, 40))


def test_an_empty_cache_is_a_length_of_nought() -> None:
    (found,), _ = shape_ranges(["ids"], feeds((1, 0, 8), (1, 5, 8)))
    assert (found.least, found.greatest) == ((1, 0, 8), (1, 5, 8))


@pytest.mark.parametrize(
    ("names", "words"), [(["ids"], "rank of 'ids' differs"), (["ids", "other"], "lacks 'other'")]
)
def test_what_has_no_range(names: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        shape_ranges(names, feeds((1, 9), (1, 9, 2)))


def test_inputs_of_open_shape() -> None:
    kind = np.dtype(np.float32)
    specs = [
        InputSpec("fixed", kind, (1, 2), required=True),
        InputSpec("named", kind, ("n", 2), required=True),
        InputSpec("unnamed", kind, (1, None), required=True),
        InputSpec("any rank", kind, (), required=True, rank_known=False),
        InputSpec("scalar", kind, (), required=True),
    ]
    assert [spec.name for spec in open_inputs(specs)] == ["named", "unnamed", "any rank"]


def test_no_sample_has_no_range() -> None:
    with pytest.raises(ValueError, match="no sample"):
        shape_ranges(["ids"], [])
