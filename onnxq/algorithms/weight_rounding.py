"""Weights to integers, rounded to the nearest, with scales per output channel.

For each channel the scale is the greatest magnitude over ``qmax``, or a smaller one where clipping
the few greatest weights costs less than rounding all others more finely gains: a grid of shrink
factors, the least squared error wins. The unshrunk scale is always on the grid. In FP8 the scales
from that one up to twice it are tried (:mod:`onnxq.numerics.float8`).

    error(f) = sum_i (w_i - s_f clip(round(w_i / s_f)))^2,   s_f = f max|w| / qmax

Where neighbours are bounded (:class:`~onnxq.numerics.schemes.Scheme`, ``pairs``), clipping includes
the projection of each pair onto the bound, and the grid goes on up to the scale where no pair
exceeds it. Most channels keep nearly all of their 8 bits so, where narrowing every weight to 7 bits
would double every error.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from onnxq.numerics.affine import qparams_from_range, weight_range
from onnxq.numerics.compiled import compiled
from onnxq.numerics.float8 import best_factors
from onnxq.numerics.rows import over_rows
from onnxq.numerics.schemes import PAIR_LIMIT, PerAxis

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxq.numerics.schemes import QParams, Scheme

_FACTORS = np.linspace(1.0, 0.6, 100, dtype=np.float32)
"""So many, because with few weights in a channel (depthwise) the error is jagged in the factor."""

_WIDER = np.linspace(2.0, 1.0, 64, endpoint=False, dtype=np.float32)
"""At twice the unshrunk scale no magnitude is above half of the bound of a pair."""

_UNBOUNDED = 1 << 16


def rounded_params(weight: NDArray[np.floating], scheme: Scheme) -> QParams:
    """Scales with the least squared error of the weights, by exhaustive search.

    Args:
        weight: Finite weights, any shape.
        scheme: A symmetric signed scheme or FP8, per axis (output channels) or per tensor.

    Returns:
        Scales of shape ``(C,)``, or ``()`` per tensor, and zero points 0.
    """
    axis = scheme.granularity.axis if isinstance(scheme.granularity, PerAxis) else None
    if scheme.floating:
        low, high = weight_range(weight, scheme.granularity)
        whole = np.maximum(-low, high).astype(np.float64) * best_factors(weight, axis)
        return qparams_from_range(-whole, whole, scheme)
    halves = _halves(np.abs(np.asarray(weight, np.float32)), axis, scheme.pairs)
    peak = halves.max(axis=(1, 2), initial=0)
    factors = np.concatenate([_FACTORS, _WIDER]) if scheme.pairs else _FACTORS
    bound = PAIR_LIMIT if scheme.pairs else _UNBOUNDED

    best = np.ones(len(halves), np.float32)

    def search(first: int, end: int) -> None:
        rows = np.arange(first, end)
        best[first:end] = _best_factors(halves, peak, rows, scheme.qmax, bound, factors)

    over_rows(search, len(halves), halves.size)
    # A wider scale may reach beyond float32, where the scale itself does not.
    reach = (peak.astype(np.float64) * best).reshape(() if axis is None else (-1,))
    return qparams_from_range(-reach, reach, scheme)


def _halves(
    magnitudes: NDArray[np.float32], axis: int | None, pairs: tuple[int, ...]
) -> NDArray[np.float32]:
    """``[channel, 2, n]``: of each pair the first ones and the second ones; any, if none is bound.

    What has no partner stands beside 0.
    """
    rank = magnitudes.ndim
    last = [place % rank for place in pairs]
    first = [] if axis is None else [axis % rank]
    rest = [place for place in range(rank) if place not in (*first, *last)]
    moved = magnitudes.transpose(*first, *rest, *last)
    channels = 1 if axis is None else magnitudes.shape[axis]
    length = int(np.prod([magnitudes.shape[place] for place in last or rest]))
    rows = moved.reshape(channels, -1, length) if magnitudes.size else moved.reshape(channels, 0, 1)
    if length % 2:
        rows = np.pad(rows, ((0, 0), (0, 0), (0, 1)))
    pairwise = rows.reshape(channels, -1, 2)
    return np.ascontiguousarray(pairwise.transpose(0, 2, 1))


def row_params(table: NDArray[np.floating], scheme: Scheme) -> QParams:
    """Scales per row of an embedding table, greatest magnitude over ``qmax``."""
    peak = np.maximum(table.max(axis=1, initial=0), -table.min(axis=1, initial=0))
    return qparams_from_range(-peak, peak, scheme)


@partial(compiled, fastmath={"reassoc", "contract", "nsz"})
def _best_factors(
    halves: NDArray[np.float32],
    peak: NDArray[np.float32],
    part: NDArray[np.int64],
    qmax: int,
    bound: int,
    factors: NDArray[np.float32],
) -> NDArray[np.float32]:
    """The factor with the least squared error for each row of ``part``."""
    best = np.ones(part.size, np.float32)
    top, most, half = np.float32(qmax), np.float32(bound), np.float32(0.5)
    zero = np.float32(0.0)
    for n in range(part.size):
        first, second = halves[part[n], 0], halves[part[n], 1]
        if peak[part[n]] == 0:
            continue
        # In units of the unshrunk scale, where no square underflows.
        unit = top / peak[part[n]]
        if not np.isfinite(unit):
            continue
        least = np.float32(np.inf)
        for factor in factors:
            inverse = unit / factor
            error = zero
            for k in range(first.size):
                a, b = min(np.rint(first[k] * inverse), top), min(np.rint(second[k] * inverse), top)
                over = max(a + b - most, zero)
                less = np.floor(over * half)
                more = over - less
                x = (a - (more if a >= b else less)) * factor - first[k] * unit
                y = (b - (less if a >= b else more)) * factor - second[k] * unit
                error += x * x + y * y
            if error < least:
                least = error
                best[n] = factor
    return best
