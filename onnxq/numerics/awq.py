"""AWQ: scale input channels so that those with large activations lose less to rounding.

For the weights ``W_1, W_2, ...`` that read one activation ``x``, one factor for each channel::

    x W^T = (x / t) (t W)^T,    t_k = m_k^a / sqrt(max m^a min m^a),    m_k = mean |x_k|

with the exponent ``a`` from a grid on which 0, no scaling, always is. What counts is the error of
all their products together, on real activations::

    error(a) = sum_i || x (Q(t W_i) / t - W_i)^T ||^2

Source: Lin et al., "AWQ: Activation-aware Weight Quantization for LLM Compression and
Acceleration", MLSys 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from onnxq.numerics.blockwise import output_error, residual

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from onnxq.numerics.blockwise import Matrix
    from onnxq.numerics.schemes import Scheme

EXPONENTS: Final = tuple(step / 20 for step in range(20))

_LEAST_MAGNITUDE = 1e-4
"""Of the mean magnitude: a channel that is never active is not scaled to nothing."""


@dataclass(frozen=True, eq=False, slots=True)
class Scaling:
    """The best factor for one activation.

    Attributes:
        factor: ``t``, ``[K]``; ones where not scaling at all is best.
        exponent: ``a``.
        error: Of all products with it.
        plain_error: The same without scaling.
    """

    factor: Matrix
    exponent: float
    error: float
    plain_error: float


def search_scaling(
    weights: Sequence[tuple[Matrix, Scheme]],
    gram: Matrix,
    magnitude: NDArray[np.floating],
    exponents: Sequence[float] = EXPONENTS,
) -> Scaling:
    """Try every exponent.

    Args:
        weights: All that read the activation, each ``[N, K]`` with its integers; their ranges cover
            each block.
        gram: ``X^T X``, ``[K, K]``.
        magnitude: Mean absolute value of each channel, ``[K]``. Channels of one magnitude get one
            factor.
        exponents: What to try beside 0.
    """

    def cost(factor: Matrix) -> float:
        return sum(output_error(residual(w, factor, scheme), gram) for w, scheme in weights)

    ones = channel_factor(magnitude, 0.0)
    plain = cost(ones)
    best = Scaling(ones, 0.0, plain, plain)
    for exponent in exponents:
        factor = channel_factor(magnitude, exponent)
        error = cost(factor) if exponent else plain
        if error < best.error:
            best = Scaling(factor, exponent, error, plain)
    return best


def channel_factor(magnitude: NDArray[np.floating], exponent: float) -> Matrix:
    """``t`` for one exponent, ``[K]``; ones for 0 or where nothing is ever active."""
    wide = np.asarray(magnitude, np.float64)
    mean = float(wide.mean())
    if exponent == 0 or not np.isfinite(mean) or mean <= 0:
        return np.ones(wide.shape, np.float32)
    power = np.maximum(wide, _LEAST_MAGNITUDE * mean) ** exponent
    return np.asarray(power / np.sqrt(power.max() * power.min()), np.float32)
