"""Weights as matrices ``[N, K]``: a row for each output channel, in it all that is summed over.

Blocks of consecutive input channels are runs of such a row, whatever the weight's own layout:
``[K, N]`` of MatMul, ``[N, K]`` of a Gemm with transB, ``[N, C, height, width]`` of Conv (K counts
C, height and width together), ``[experts, K, N]`` of a batched MatMul (a row for each expert and
channel).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True, slots=True)
class ChannelMajor:
    """The way from a weight's own layout to ``[N, K]`` and back.

    Attributes:
        shape: The weight's shape.
        sums: The axes that products are summed over, ascending.
    """

    shape: tuple[int, ...]
    sums: tuple[int, ...]

    @property
    def order(self) -> tuple[int, ...]:
        """The weight's axes: those of the rows, then those that are summed over."""
        rows = tuple(axis for axis in range(len(self.shape)) if axis not in self.sums)
        return (*rows, *self.sums)

    @property
    def inverse(self) -> tuple[int, ...]:
        """The order that leads back."""
        return tuple(int(axis) for axis in np.argsort(self.order))

    @property
    def ordered(self) -> tuple[int, ...]:
        """The weight's shape in this order."""
        return tuple(self.shape[axis] for axis in self.order)

    @property
    def channels(self) -> int:
        """N."""
        return math.prod(self.ordered) // self.length

    @property
    def length(self) -> int:
        """K."""
        return math.prod(self.shape[axis] for axis in self.sums)

    def by_row(self, values: NDArray[_T], axis: int) -> NDArray[_T]:
        """For each row what there is for each position along one of the weight's axes of rows."""
        rows = self.order[: -len(self.sums)]
        along = values.reshape([-1 if each == axis else 1 for each in rows])
        return np.broadcast_to(along, [self.shape[each] for each in rows]).reshape(-1)

    def matrix(self, weight: NDArray[_T]) -> NDArray[_T]:
        """``[N, K]``; a view where the layout allows it."""
        return weight.transpose(self.order).reshape(self.channels, self.length)

    def restore(self, matrix: NDArray[_T]) -> NDArray[_T]:
        """The weight's own layout of ``[N, K]``.

        Where one axis is summed over the matrix may have any number of columns, such as a scale for
        each block of K: that axis is as long then.
        """
        rows = self.ordered[: -len(self.sums)]
        ends = (-1,) if len(self.sums) == 1 else self.ordered[-len(self.sums) :]
        return np.ascontiguousarray(matrix.reshape(*rows, *ends).transpose(self.inverse))
