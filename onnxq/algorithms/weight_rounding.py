"""Weights to integers, rounded to the nearest, with scales per output channel.

For each channel the scale is the greatest magnitude over ``qmax``, or a smaller one where clipping
the few greatest weights costs less than rounding all others more finely gains: a grid of shrink
factors, the least squared error wins. The unshrunk scale is always on the grid.

    error(f) = sum_i (w_i - s_f clip(round(w_i / s_f)))^2,   s_f = f max|w| / qmax
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxq.numerics.affine import qparams_from_range
from onnxq.numerics.schemes import PerAxis

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxq.numerics.schemes import QParams, Scheme

_FACTORS = np.linspace(1.0, 0.7, 13, dtype=np.float32)

_CHUNK = 1 << 22
"""Elements that are searched at a time, to bound the temporary arrays."""


def rounded_params(weight: NDArray[np.floating], scheme: Scheme) -> QParams:
    """Scales with the least squared error of the weights.

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
    step = max(1, _CHUNK // max(rows.shape[1], 1))
    best = np.concatenate(
        [
            _best_factor(rows[i : i + step], peak[i : i + step], scheme.qmax)
            for i in range(0, len(rows), step)
        ]
    )
    reach = (peak * best).reshape(() if axis is None else (-1,))
    return qparams_from_range(-reach, reach, scheme)


def row_params(table: NDArray[np.floating], scheme: Scheme) -> QParams:
    """Scales per row of an embedding table, greatest magnitude over ``qmax``."""
    peak = np.maximum(table.max(axis=1, initial=0), -table.min(axis=1, initial=0))
    return qparams_from_range(-peak, peak, scheme)


def _best_factor(
    rows: NDArray[np.floating], peak: NDArray[np.float32], qmax: int
) -> NDArray[np.float32]:
    values = np.asarray(rows, np.float32)
    least = np.full(len(values), np.inf, np.float32)
    best = np.ones(len(values), np.float32)
    for factor in _FACTORS:
        scale = np.where(peak > 0, peak * factor / qmax, 1)[:, None].astype(np.float32)
        rounded = values / scale
        np.rint(rounded, out=rounded)
        np.clip(rounded, -qmax, qmax, out=rounded)
        rounded *= scale
        rounded -= values
        error = np.einsum("ij,ij->i", rounded, rounded)
        better = error < least
        least = np.where(better, error, least)
        best = np.where(better, factor, best)
    return best
