from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.numerics.channel_major import ChannelMajor

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


@pytest.mark.parametrize(
    ("shape", "sums", "rows"),
    [
        ((5, 3), (0,), lambda w: [w[:, n] for n in range(3)]),
        ((3, 5), (1,), lambda w: [w[n] for n in range(3)]),
        ((4, 2, 3, 3), (1, 2, 3), lambda w: [w[n].ravel() for n in range(4)]),
        ((2, 5, 3), (1,), lambda w: [w[e, :, n] for e in range(2) for n in range(3)]),
    ],
)
def test_a_row_is_what_one_output_channel_sums(
    shape: tuple[int, ...],
    sums: tuple[int, ...],
    rows: Callable[[NDArray[np.int64]], list[NDArray[np.int64]]],
) -> None:
    weight = np.arange(math.prod(shape)).reshape(shape)
    layout = ChannelMajor(shape, sums)
    matrix = layout.matrix(weight)
    assert matrix.shape == (layout.channels, layout.length)
    assert np.array_equal(matrix, np.stack(rows(weight)))


@given(st.data())
def test_restoring_undoes_it(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=4)))
    axes = list(range(len(shape)))
    sums = data.draw(st.sets(st.sampled_from(axes), min_size=1, max_size=len(axes) - 1))
    layout = ChannelMajor(shape, tuple(sorted(sums)))
    weight = np.arange(math.prod(shape)).reshape(shape)
    assert np.array_equal(layout.restore(layout.matrix(weight)), weight)


def test_scales_of_blocks_lie_along_the_axis_that_is_summed_over() -> None:
    layout = ChannelMajor((2, 5, 3), (1,))
    scale = np.arange(12.0).reshape(6, 2)
    assert np.array_equal(layout.restore(scale), scale.reshape(2, 3, 2).transpose(0, 2, 1))
