"""FP8 in the form E4M3FN: rounding to it, and the error of rounding a distribution or a weight.

A number of 8 bits with a sign, 4 bits of exponent and 3 of mantissa stands for::

    (-1)^s 2^(e - 7) (1 + m / 8)     e = 1 .. 15, except e = 15, m = 7, which is NaN
    (-1)^s 2^-6 (m / 8)              e = 0: subnormal, in steps of 2^-9

so that the greatest is 448 and there is no infinity. Rounding is to the nearest, to the even
mantissa of two, and saturates: what is beyond 448, Inf included, becomes 448. With a scale ``s``
an array is stored as ``q = round(x / s)`` and stands for ``s q``.

The grid is the same in each octave. Two scales, one twice the other, round alike but for what
saturates or is subnormal, so that scales from ``max |x| / 448`` up to twice that are all there are
without clipping. They move the values against the steps, which are half as wide, relatively, at
the upper end of an octave as at its lower: that is all there is to gain. Clipping buys nothing,
as it gives no finer steps to what is not clipped.

Sources: Micikevicius et al., "FP8 Formats for Deep Learning", 2022 (arXiv:2209.05433); ONNX,
"Float stored in 8 bits"; ONNX operator specification, QuantizeLinear, ``saturate = 1``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import ml_dtypes
import numpy as np

from onnxq.numerics.compiled import compiled
from onnxq.numerics.rows import over_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxq.numerics.histogram import Bins

GREATEST: Final = 448
"""The greatest number."""

E4M3: Final[np.dtype[Any]] = np.dtype(ml_dtypes.float8_e4m3fn)
"""The type, as numpy knows it."""

FACTORS: Final = np.geomspace(1.0, 2.0, 64, endpoint=False, dtype=np.float32)
"""The scales that are tried, in units of ``max |x| / 448``."""

_GRID: Final = np.arange(127, dtype=np.uint8).view(E4M3).astype(np.float64)
"""All numbers from 0 on; their codes ascend with them."""
_MIDDLES: Final = (_GRID[1:] + _GRID[:-1]) / 2
_STEP_OF_SUBNORMALS: Final = 512.0
_LEAST_NORMAL: Final = 2.0**-6


def _cell_integrals() -> NDArray[np.float64]:
    """The integral of the squared error from 0 to the lower edge of each number's cell."""
    edges = np.concatenate([[0.0], _MIDDLES])
    cubes = (edges[1:] - _GRID[:-1]) ** 3 - (edges[:-1] - _GRID[:-1]) ** 3
    return np.concatenate([[0.0], np.cumsum(cubes / 3)])


_INTEGRALS: Final = _cell_integrals()


def to_e4m3(values: NDArray[np.floating]) -> NDArray[Any]:
    """Round to E4M3FN, saturating; NaN stays NaN.

    Args:
        values: float32, any shape, already divided by their scale.

    Returns:
        An array of :data:`E4M3`, the same shape.
    """
    rounded: NDArray[Any] = np.clip(values, -GREATEST, GREATEST).astype(E4M3)
    return rounded


def mean_squared_error(bins: Bins, scale: float) -> float:
    """Mean squared error of rounding a distribution, values of a bin evenly spread over it.

    Args:
        bins: The distribution.
        scale: What a 1 stands for.
    """
    total = _squared_error(bins.low / scale, bins.high / scale, bins.count)
    return float(total) * scale**2 / float(bins.count.sum())


def best_factors(weight: NDArray[np.floating], axis: int | None) -> NDArray[np.float32]:
    """For each slice the factor of :data:`FACTORS` with the least squared error.

    Args:
        weight: Finite weights, any shape.
        axis: The axis whose slices have a scale each; None for one scale in all.

    Returns:
        Shape ``(C,)``, or ``()``; 1 where all weights are 0.
    """
    magnitudes = np.abs(np.asarray(weight, np.float32))
    channels = 1 if axis is None else magnitudes.shape[axis]
    moved = magnitudes if axis is None else np.moveaxis(magnitudes, axis, 0)
    rows = np.ascontiguousarray(moved).reshape(channels, -1)
    best = np.ones(channels, np.float32)

    def search(first: int, end: int) -> None:
        best[first:end] = _least_errors(rows[first:end], FACTORS)

    over_rows(search, channels, rows.size)
    return best.reshape(() if axis is None else (-1,))


@compiled
def _integral(x: float) -> float:
    """The integral of the squared error from 0 to x, an odd function."""
    magnitude = abs(x)
    cell = np.searchsorted(_MIDDLES, magnitude)
    edge = 0.0 if cell == 0 else _MIDDLES[cell - 1]
    nearest = _GRID[cell]
    inside = ((magnitude - nearest) ** 3 - (edge - nearest) ** 3) / 3
    return float(np.sign(x) * (_INTEGRALS[cell] + inside))


@compiled
def _squared_error(
    low: NDArray[np.float64], high: NDArray[np.float64], count: NDArray[np.float64]
) -> float:
    total = 0.0
    for i in range(low.size):
        a, b = low[i], high[i]
        if b - a > 1e-9 * max(abs(a), abs(b)):
            total += count[i] * (_integral(b) - _integral(a)) / (b - a)
        else:
            nearest = _GRID[np.searchsorted(_MIDDLES, abs(a))]
            total += count[i] * (abs(a) - nearest) ** 2
    return total


@partial(compiled, fastmath={"contract", "nsz"})
def _least_errors(rows: NDArray[np.float32], factors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The factor with the least squared error for each row of magnitudes."""
    best = np.ones(rows.shape[0], np.float32)
    least_normal, subnormal = np.float32(_LEAST_NORMAL), np.float32(_STEP_OF_SUBNORMALS)
    top = np.float32(GREATEST)
    for n in range(rows.shape[0]):
        row = rows[n]
        peak = row.max() if row.size else np.float32(0.0)
        unit = top / peak if peak > 0 else np.float32(np.inf)
        if not np.isfinite(unit):
            continue
        least = np.inf
        for factor in factors:
            scaled = row * (unit / factor)
            bits = scaled.view(np.uint32)
            # To the nearest with three bits of mantissa, to the even of two.
            nearest = bits + np.uint32(0x7FFFF) + ((bits >> np.uint32(20)) & np.uint32(1))
            rounded = (nearest & np.uint32(0xFFF00000)).view(np.float32)
            error = 0.0
            for k in range(scaled.size):
                x = scaled[k]
                q = rounded[k] if x >= least_normal else np.rint(x * subnormal) / subnormal
                difference = (min(q, top) - x) * factor
                error += difference * difference
            if error < least:
                least = error
                best[n] = factor
    return best
