"""Weights to integers, rounded to the nearest, with scales per output channel.

For each channel the scale is the greatest magnitude over ``qmax``, or a smaller one where clipping
the few greatest weights costs less than rounding all others more finely gains: a grid of shrink
factors, the least squared error wins. The unshrunk scale is always on the grid.

    error(f) = sum_i (w_i - s_f clip(round(w_i / s_f)))^2,   s_f = f max|w| / qmax
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numba
import numpy as np

from onnxq.numerics.affine import qparams_from_range
from onnxq.numerics.schemes import PerAxis

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxq.numerics.schemes import QParams, Scheme

_FACTORS = np.linspace(1.0, 0.6, 100, dtype=np.float32)
"""So many, because with few weights in a channel (depthwise) the error is jagged in the factor."""

_WORTH_THREADS = 1 << 14
"""With fewer weights than this, starting threads takes longer than the search."""


def rounded_params(weight: NDArray[np.floating], scheme: Scheme) -> QParams:
    """Scales with the least squared error of the weights, by exhaustive search.

    Args:
        weight: Finite weights, any shape.
        scheme: A symmetric signed scheme, per axis (output channels) or per tensor.

    Returns:
        Scales of shape ``(C,)``, or ``()`` per tensor, and zero points 0.
    """
    axis = scheme.granularity.axis if isinstance(scheme.granularity, PerAxis) else None
    if axis is None:
        rows = weight.reshape(1, -1)
    else:
        rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    peak = np.abs(rows).max(axis=1, initial=0).astype(np.float32)
    rows = np.ascontiguousarray(rows, np.float32)
    every = np.arange(len(rows))
    workers = os.cpu_count() or 1
    if rows.size < _WORTH_THREADS or workers == 1:
        best = _best_factors(rows, peak, every, scheme.qmax, _FACTORS)
    else:
        parts = np.array_split(every, workers)
        with ThreadPoolExecutor(workers) as pool:  # the search is compiled and releases the GIL
            found = pool.map(
                lambda part: _best_factors(rows, peak, part, scheme.qmax, _FACTORS), parts
            )
            best = np.concatenate(list(found))
    reach = (peak * best).reshape(() if axis is None else (-1,))
    return qparams_from_range(-reach, reach, scheme)


def row_params(table: NDArray[np.floating], scheme: Scheme) -> QParams:
    """Scales per row of an embedding table, greatest magnitude over ``qmax``."""
    peak = np.maximum(table.max(axis=1, initial=0), -table.min(axis=1, initial=0))
    return qparams_from_range(-peak, peak, scheme)


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})  # type: ignore[untyped-decorator]
def _best_factors(
    rows: NDArray[np.float32],
    peak: NDArray[np.float32],
    part: NDArray[np.int64],
    qmax: int,
    factors: NDArray[np.float32],
) -> NDArray[np.float32]:
    """The factor with the least squared error for each row of ``part``."""
    best = np.ones(part.size, np.float32)
    top = np.float32(qmax)
    for n in range(part.size):
        values = rows[part[n]]
        if peak[part[n]] == 0:
            continue
        # In units of the unshrunk scale, where no square underflows.
        unit = top / peak[part[n]]
        if not np.isfinite(unit):
            continue
        least = np.float32(np.inf)
        for factor in factors:
            inverse = unit / factor
            error = np.float32(0.0)
            for k in range(values.size):
                rounded = min(max(np.rint(values[k] * inverse), -top), top)
                difference = rounded * factor - values[k] * unit
                error += difference * difference
            if error < least:
                least = error
                best[n] = factor
    return best
