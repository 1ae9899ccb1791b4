"""Weights as integers by the definition, pair after pair: the vectorized code's reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def rounded_to(
    values: NDArray[Any], scale: NDArray[Any], bits: int = 8, pairs: tuple[int, ...] = ()
) -> NDArray[np.float64]:
    """Rounded to nearest, clipped, and bounded in pairs along the axes ``pairs``.

    Args:
        values: The weight.
        scale: Broadcasts against it.
        bits: Width; the lowest integer is left out.
        pairs: Axes, in the order of the sums; empty for no bound.
    """
    limit = 2 ** (bits - 1) - 1
    coded = np.clip(np.rint(values / scale.astype(float)), -limit, limit)
    if not pairs:
        return np.asarray(coded)
    others = [axis for axis in range(values.ndim) if axis not in pairs]
    lengths = [values.shape[axis] for axis in pairs]
    for outer in np.ndindex(*(values.shape[axis] for axis in others)):
        for start in range(0, int(np.prod(lengths)) - 1, 2):
            places = [
                _place(dict(zip(others, outer, strict=True)), pairs, lengths, flat)
                for flat in (start, start + 1)
            ]
            one, two = (int(abs(coded[place])) for place in places)
            # Both alike, one unit at a time, from the larger one first.
            larger_first = one >= two
            for turn in range(max(one + two - 128, 0)):
                if larger_first == (turn % 2 == 0):
                    one -= 1
                else:
                    two -= 1
            for place, magnitude in zip(places, (one, two), strict=True):
                coded[place] = np.sign(coded[place]) * magnitude
    return np.asarray(coded)


def _place(
    outer: dict[int, int], pairs: tuple[int, ...], lengths: list[int], flat: int
) -> tuple[int, ...]:
    """Where the element of this number along ``pairs`` lies."""
    inner = np.unravel_index(flat, lengths)
    found = outer | {axis: int(index) for axis, index in zip(pairs, inner, strict=True)}
    return tuple(found[axis] for axis in range(len(found)))
