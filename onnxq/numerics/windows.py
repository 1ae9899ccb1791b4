"""What a convolution multiplies: its input as rows of patches.

    Conv(x, W)[n, o, p] = sum over k of patches(x)[(n, p), k] W[o, k]

with k counting channels, then the positions of the kernel, as the weight ``[O, C, *kernel]`` does.
So what is known of weights beside rows of activations holds for convolutions too.

Source: ONNX operator specification, Conv.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxq.numerics.blockwise import Matrix


@dataclass(frozen=True, slots=True)
class Window:
    """How a convolution reads its input; a number for each spatial dimension.

    Attributes:
        kernel: Size.
        strides: Steps from one position of the output to the next.
        dilations: Steps from one position of the kernel to the next.
        pads: Zeros in front of each dimension, then behind each.
        same: Where the odd zero goes if there are as many zeros as make the output as long as the
            input divided by the stride (``auto_pad``); empty where :attr:`pads` counts.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    same: Literal["", "front", "behind"] = ""

    @property
    def taps(self) -> int:
        """Positions of the kernel: so many columns has each channel."""
        return math.prod(self.kernel)

    @property
    def reach(self) -> tuple[int, ...]:
        """From the first to the last position of the kernel, both included."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    def patches(self, values: NDArray[np.float32], most: int, seed: int) -> Matrix:
        """The patches at some positions of the output, in the output's order.

        Args:
            values: ``[N, C, *spatial]``.
            most: How many positions at the most; of more a random choice is taken.
            seed: Of the choice.

        Returns:
            ``[positions, C * taps]``, a copy.
        """
        rank = len(self.kernel)
        spatial = values.shape[2:]
        around = [(0, 0), (0, 0), *self._padding(spatial)]
        if any(map(any, around)):
            values = np.pad(values, around)
        axes = tuple(range(2, 2 + rank))
        views: NDArray[Any] = np.lib.stride_tricks.sliding_window_view(values, self.reach, axes)
        steps = [slice(None, None, step) for step in (*self.strides, *self.dilations)]
        views = views[(slice(None), slice(None), *steps)]
        grid = (views.shape[0], *views.shape[2 : 2 + rank])
        places = np.arange(math.prod(grid))
        if len(places) > most:
            generator = np.random.default_rng(seed)
            places = np.sort(generator.choice(len(places), most, replace=False))
        batch, *at = np.unravel_index(places, grid)
        index: tuple[Any, ...] = (batch, slice(None), *at)
        chosen: Matrix = views[index].reshape(len(places), values.shape[1] * self.taps)
        return chosen

    def _padding(self, spatial: tuple[int, ...]) -> list[tuple[int, int]]:
        if not self.same:
            rank = len(self.kernel)
            return list(zip(self.pads[:rank], self.pads[rank:], strict=True))
        found = []
        for length, stride, reach in zip(spatial, self.strides, self.reach, strict=True):
            zeros = max((-(-length // stride) - 1) * stride + reach - length, 0)
            less, more = zeros // 2, zeros - zeros // 2
            found.append((more, less) if self.same == "front" else (less, more))
        return found
