"""AWQ and GPTQ written out in float64, one element at a time: what the fast ones are held to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from onnxq.numerics.schemes import PerBlock, Scheme

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


def scheme(bits: int, size: int, *, symmetric: bool = False) -> Scheme:
    """Unsigned integers in blocks along the rows of ``[N, K]``."""
    return replace(Scheme(bits), symmetric=symmetric, granularity=PerBlock(size, 1))


def rounded(value: float, scale: float, zero: float, top: int) -> float:
    """The real number that the nearest integer stands for."""
    integer = min(max(round(value / scale) + zero, 0), top)
    return (integer - zero) * scale


def covering(values: Array, bits: int, *, symmetric: bool) -> tuple[float, float]:
    """Scale and zero point of one block by its extrema."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    if symmetric:
        span, steps = max(-low, high), 2 ** (bits - 1) - 1
        return float(np.float32(span / steps if span else 1.0)), 2 ** (bits - 1)
    scale = float(np.float32((high - low) / (2**bits - 1) if high > low else 1.0))
    return scale, min(max(round(-low / scale), 0), 2**bits - 1)


def round_to_nearest(weight: Array, bits: int, size: int, *, symmetric: bool = False) -> Array:
    """RTN of ``[N, K]`` in blocks of ``size``."""
    result = np.empty_like(weight)
    for n in range(weight.shape[0]):
        for start in range(0, weight.shape[1], size):
            block = weight[n, start : start + size]
            scale, zero = covering(block, bits, symmetric=symmetric)
            for k, value in enumerate(block):
                result[n, start + k] = rounded(value, scale, zero, 2**bits - 1)
    return result


def product_error(change: Array, activations: Array) -> float:
    """``|| X d^T ||^2``, token by token."""
    return sum(float(np.sum((change @ token) ** 2)) for token in activations)


def awq_exponent(
    weights: list[Array], activations: Array, bits: int, size: int, exponents: list[float]
) -> tuple[float, list[float]]:
    """The exponent whose scaling costs least in all products together, and what each costs."""
    magnitude = np.mean(np.abs(activations), axis=0)
    errors = []
    for exponent in exponents:
        factor = awq_factor(magnitude, exponent)
        total = 0.0
        for weight in weights:
            change = round_to_nearest(weight * factor, bits, size) / factor - weight
            total += product_error(change, activations)
        errors.append(total)
    return exponents[int(np.argmin(errors))], errors


def awq_factor(magnitude: Array, exponent: float) -> Array:
    """``t``: the magnitudes to a power, centred between their extremes."""
    power = np.maximum(magnitude, 1e-4 * magnitude.mean()) ** exponent
    return np.asarray(power / np.sqrt(power.max() * power.min()))


def gptq(
    weight: Array,
    activations: Array,
    scale: Array,
    zero: Array,
    how: tuple[int, int, float],
    shrinkage: float = 0.0,
) -> Array:
    """GPTQ by the formula of the paper: after each column the inverse Hessian loses that column.

    Args:
        weight: ``[N, K]``.
        activations: ``[tokens, K]``.
        scale: ``[N, blocks]``.
        zero: ``[N, blocks]``.
        how: Bits, block size, damping.
        shrinkage: Of the off-diagonal part of the Hessian.

    Returns:
        The quantized weight.
    """
    bits, size, damping = how
    hessian = activations.T @ activations
    order = list(np.argsort(-np.diag(hessian), kind="stable"))
    own = np.diag(np.diag(hessian))
    added = damping * np.mean(np.diag(hessian)) * np.eye(len(hessian))
    hessian = (1 - shrinkage) * hessian + shrinkage * own + added
    left, result = weight.copy(), np.empty_like(weight)
    remaining = list(order)
    for k in order:
        inverse = np.linalg.inv(hessian[np.ix_(remaining, remaining)])
        for n in range(len(weight)):
            block = k // size
            result[n, k] = rounded(left[n, k], scale[n, block], zero[n, block], 2**bits - 1)
            error = (left[n, k] - result[n, k]) / inverse[0, 0]
            for place, column in enumerate(remaining[1:], start=1):
                left[n, column] -= error * inverse[0, place]
        remaining = remaining[1:]
    return result
