"""Half-quadratic quantization: ranges by the weights alone, with little regard for outliers.

Of each block the error counts in a norm below 1, which a few large errors raise little::

    minimise  sum_i phi(w_i - s (q_i - z)),    phi(e) = |e|^p,  p = 0.7

by half-quadratic splitting: with slack ``e`` for the outliers, in turn, ``beta`` rising::

    q = clip(round(w / s) + z, 0, 2^n - 1)
    e = sign(r) max(|r| - |r|^(p - 1) / beta, 0),    r = w - s (q - z)
    s, z = least squares of w - e over q, z rounded to an integer

The scale is fitted along with the zero point, which here is an integer, as kernels want it. The
iteration starts from the range that covers the block, and the best of its rounds by ``phi`` is
kept. It stays near that start, which is as well: the least of ``phi`` over all ranges gives up so
much of the few large weights that products err more than with the range that covers them.

Source: Badri and Shaji, "Half-Quadratic Quantization of Large Machine Learning Models", 2023.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from onnxq.numerics.blockwise import block_size, minmax_params
from onnxq.numerics.compiled import compiled
from onnxq.numerics.rows import over_rows
from onnxq.numerics.schemes import QParams

if TYPE_CHECKING:
    from onnxq.numerics.blockwise import Matrix
    from onnxq.numerics.schemes import Scheme

_NORM = 0.7
_BETA = 10.0
_RISE = 1.1
_ROUNDS = 20


def half_quadratic_params(weight: Matrix, scheme: Scheme) -> QParams:
    """Scales and zero points ``[N, blocks]`` of a weight ``[N, K]``."""
    start = minmax_params(weight, scheme)
    scale = start.scale.copy()
    zero = start.zero_point.astype(np.float32)
    top = np.float32(scheme.qmax)
    size = block_size(scheme)
    work = partial(_fit, weight, scale, zero, size, top, scheme.symmetric)
    over_rows(work, len(weight), weight.size * _ROUNDS)
    return QParams(scale, zero.astype(scheme.dtype), scheme)


@compiled
def _fit(  # noqa: PLR0913 - compiled, with the rows that it is to work on
    weight: Matrix,
    scale: Matrix,
    zero: Matrix,
    size: int,
    top: np.float32,
    symmetric: bool,
    first: int,
    end: int,
) -> None:
    """Improve ``scale`` and ``zero`` in place."""
    for n in range(first, end):
        for block in range(scale.shape[1]):
            values = weight[n, block * size : (block + 1) * size]
            # In units of the first scale, where beta means the same for every block.
            unit = np.float64(scale[n, block])
            s, z, beta = 1.0, float(zero[n, block]), _BETA
            best_s, best_z, least = s, z, np.inf
            for _ in range(_ROUNDS):
                error, sums = _round(values, unit, s, z, np.float64(top), beta)
                if error < least:
                    best_s, best_z, least = s, z, error
                s, z = _refit(sums, z, np.float64(top), symmetric)
                if s <= 0:
                    break
                beta *= _RISE
            scale[n, block] = np.float32(best_s * unit)
            zero[n, block] = np.float32(best_z)


@compiled
def _round(
    values: Matrix, unit: float, s: float, z: float, top: float, beta: float
) -> tuple[float, tuple[float, float, float, float, float]]:
    """The error, and the sums over the block of 1, q, q^2, w - e and q (w - e)."""
    error, sum_q, sum_qq, sum_t, sum_qt = 0.0, 0.0, 0.0, 0.0, 0.0
    for value in values:
        w = value / unit
        q = min(max(np.rint(w / s) + z, 0.0), top)
        rest = w - s * (q - z)
        size = abs(rest)
        slack = 0.0
        if size > 0:
            error += size**_NORM
            slack = max(size - size ** (_NORM - 1) / beta, 0.0)
        target = w - (slack if rest > 0 else -slack)
        sum_q += q
        sum_qq += q * q
        sum_t += target
        sum_qt += q * target
    return error, (float(len(values)), sum_q, sum_qq, sum_t, sum_qt)


@compiled
def _refit(
    sums: tuple[float, float, float, float, float],
    z: float,
    top: float,
    symmetric: bool,
) -> tuple[float, float]:
    """Scale and zero point by least squares; a scale of 0 where there is none."""
    count, sum_q, sum_qq, sum_t, sum_qt = sums
    if not symmetric:
        spread = sum_qq - sum_q * sum_q / count
        slope = (sum_qt - sum_q * sum_t / count) / spread if spread > 0 else 0.0
        if slope > 0:
            z = min(max(np.rint((sum_q - sum_t / slope) / count), 0.0), top)
    power = sum_qq - 2 * z * sum_q + count * z * z
    return (sum_qt - z * sum_t) / power if power > 0 else 0.0, z
