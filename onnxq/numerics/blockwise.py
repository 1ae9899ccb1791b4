"""Weights in blocks: integers, and the error that they make in the products they are read by.

A weight is a matrix ``W`` of shape ``[N, K]``, output channels by input channels; ``b`` consecutive
input channels of one row share a scale ``s`` and a zero point ``z``::

    q = clip(round(w / s) + z, 0, 2^n - 1),    w' = (q - z) s

What rounding costs is measured on real activations ``X`` of shape ``[tokens, K]``. With their Gram
matrix ``G = X^T X`` it takes no more than the weights::

    || X W'^T - X W^T ||^2  =  sum over rows of d G d^T,    d = w' - w

Source: Lin et al., "AWQ: Activation-aware Weight Quantization", MLSys 2024; Frantar et al., "GPTQ",
ICLR 2023.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from onnxq.errors import InternalError
from onnxq.numerics.affine import qparams_from_range, weight_range
from onnxq.numerics.compiled import compiled
from onnxq.numerics.rows import over_rows
from onnxq.numerics.schemes import PerBlock, QParams, middle_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxq.numerics.schemes import Scheme

    Matrix = NDArray[np.float32]


def block_size(scheme: Scheme) -> int:
    """How many input channels share a scale.

    Raises:
        InternalError: The scheme is not one of blocks along input channels, of unsigned integers.
    """
    granularity = scheme.granularity
    if not isinstance(granularity, PerBlock) or granularity.axis != 1 or scheme.signed:
        code, text = "numerics.blocks", f"{scheme.label} does not store rows in blocks"
        raise InternalError(code, text)
    return granularity.size


def minmax_params(weight: Matrix, scheme: Scheme) -> QParams:
    """Scales and zero points ``[N, blocks]`` that cover all of each block."""
    low, high = weight_range(weight, scheme.granularity)
    return qparams_from_range(low, high, scheme)


def output_error(residual: Matrix, gram: Matrix) -> float:
    """``sum over rows of d G d^T``: the squared error of the product.

    Args:
        residual: What was changed in the weight, ``[N, K]``.
        gram: ``X^T X``, ``[K, K]``.
    """
    return float(np.vdot(residual @ gram, residual))


def steps(weight: Matrix, params: QParams) -> Matrix:
    """``q - z``, as float32: multiplied by its scale it is the quantized weight."""
    size = block_size(params.scheme)
    found = np.empty_like(weight)
    scale, zero = params.scale, params.zero_point.astype(np.float32)
    top = np.float32(params.scheme.qmax)
    over_rows(partial(_steps, weight, scale, zero, size, top, found), *_extent(weight))
    return found


def residual(weight: Matrix, factor: Matrix, scheme: Scheme) -> Matrix:
    """``Q(w t) / t - w``: what rounding the scaled weight changes in the weight itself.

    Args:
        weight: ``[N, K]``.
        factor: ``t``, positive, ``[K]``.
        scheme: The integers; ranges cover each block.
    """
    found = np.empty_like(weight)
    top = np.float32(scheme.qmax)
    middle = np.float32(middle_of(scheme.bits) if scheme.symmetric else 0)
    work = partial(_residual, weight, factor, block_size(scheme), top, middle, found)
    over_rows(work, *_extent(weight))
    return found


def dequantized(weight: Matrix, params: QParams) -> Matrix:
    """The weight as it is after rounding."""
    return times_scales(steps(weight, params), params)


def times_scales(found: Matrix, params: QParams) -> Matrix:
    """``(q - z) s``, in place of ``q - z``."""
    size = block_size(params.scheme)
    over_rows(partial(_times_scales, found, params.scale, size), *_extent(found))
    return found


def _extent(weight: Matrix) -> tuple[int, int]:
    return len(weight), weight.size


@compiled
def _steps(  # noqa: PLR0913 - compiled, with the rows that it is to work on
    weight: Matrix,
    scale: Matrix,
    zero: Matrix,
    size: int,
    top: np.float32,
    found: Matrix,
    first: int,
    end: int,
) -> None:
    for n in range(first, end):
        for k in range(weight.shape[1]):
            s, z = scale[n, k // size], zero[n, k // size]
            q = min(max(np.rint(weight[n, k] / s) + z, np.float32(0)), top)
            found[n, k] = q - z


@compiled
def _times_scales(found: Matrix, scale: Matrix, size: int, first: int, end: int) -> None:
    for n in range(first, end):
        for k in range(found.shape[1]):
            found[n, k] *= scale[n, k // size]


@compiled
def covering(
    low: np.float32, high: np.float32, top: np.float32, middle: np.float32
) -> tuple[np.float32, np.float32]:
    """Scale and zero point of a block whose range, widened to include 0, is given.

    ``middle`` is the zero point of symmetric integers, 0 for others.
    """
    zero = np.float32(0)
    scale = max(-low, high) / (middle - np.float32(1)) if middle > zero else (high - low) / top
    if scale <= zero:
        return np.float32(1), middle
    if middle > zero:
        return scale, middle
    return scale, min(max(np.rint(-low / scale), zero), top)


@compiled
def _residual(  # noqa: PLR0913 - compiled, with the rows that it is to work on
    weight: Matrix,
    factor: Matrix,
    size: int,
    top: np.float32,
    middle: np.float32,
    found: Matrix,
    first: int,
    end: int,
) -> None:
    length = weight.shape[1]
    for n in range(first, end):
        for start in range(0, length, size):
            stop = min(start + size, length)
            low, high = np.float32(0), np.float32(0)
            for k in range(start, stop):
                value = weight[n, k] * factor[k]
                low, high = min(low, value), max(high, value)
            scale, zero = covering(low, high, top, middle)
            for k in range(start, stop):
                q = np.rint(weight[n, k] * factor[k] / scale) + zero
                q = min(max(q, np.float32(0)), top)
                found[n, k] = (q - zero) * scale / factor[k] - weight[n, k]
