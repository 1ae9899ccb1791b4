"""Affine quantization of arrays.

For an unsigned n-bit scheme, with a range ``[min, max]`` that is first widened to include 0::

    scale      = (max - min) / (2^n - 1)
    zero_point = round(-min / scale)
    q          = clip(round(x / scale) + zero_point, 0, 2^n - 1)
    x'         = (q - zero_point) * scale

Signed schemes shift ``q`` and ``zero_point`` by ``qmin``; symmetric ones fix the zero point and
take ``scale = max(-min, max) / (2^(n-1) - 1)``. Rounding is half to even, as in ONNX
QuantizeLinear. FP8 has its own rounding (:mod:`onnxq.numerics.float8`), no zero point, and
``scale = max(-min, max) / 448``.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018; ONNX operator specification, QuantizeLinear.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from onnxq.errors import InternalError
from onnxq.numerics.float8 import to_e4m3
from onnxq.numerics.schemes import (
    PAIR_LIMIT,
    Granularity,
    PerAxis,
    PerBlock,
    PerTensor,
    QParams,
    Scheme,
    middle_of,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_T = TypeVar("_T", bound=np.generic)
_TINY = float(np.finfo(np.float32).tiny)


def qparams_from_range(low: ArrayLike, high: ArrayLike, scheme: Scheme) -> QParams:
    """Scales and zero points that cover ``[low, high]``.

    Args:
        low: Least values, any shape; finite.
        high: Greatest values, the same shape; finite, not below ``low``.
        scheme: The integers to map to.

    Returns:
        Parameters of the same shape. The range always includes 0. A range that is all zero gets
        scale 1; a scale is never below the least normal float32.

    Raises:
        InternalError: A bound is not finite or the bounds are crossed.
    """
    lo = np.minimum(np.asarray(low, dtype=np.float64), 0.0)
    hi = np.maximum(np.asarray(high, dtype=np.float64), 0.0)
    if not (np.isfinite(lo).all() and np.isfinite(hi).all()) or np.any(np.less(high, low)):
        code, text = "numerics.range", "a quantization range is not finite or is crossed"
        raise InternalError(code, text)
    if scheme.symmetric:
        steps = scheme.qmax if scheme.signed else (1 << (scheme.bits - 1)) - 1
        span = np.maximum(-lo, hi)
    else:
        steps = scheme.qmax - scheme.qmin
        span = hi - lo
    raw = np.where(span > 0, np.maximum(span / steps, _TINY), 1.0)
    scale = raw.astype(np.float32)
    if scheme.symmetric:
        middle = 0 if scheme.signed else middle_of(scheme.bits)
        zero_point = np.full(scale.shape, middle, dtype=scheme.dtype)
    else:
        offset = np.rint(-lo / scale.astype(np.float64)) + scheme.qmin
        zero_point = np.clip(offset, scheme.qmin, scheme.qmax).astype(scheme.dtype)
    return QParams(np.asarray(scale, np.float32), np.asarray(zero_point), scheme)


def weight_range(
    weight: NDArray[np.floating], granularity: Granularity
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Least and greatest value for each scale of ``granularity``.

    Args:
        weight: Any shape.
        granularity: What shares a scale.

    Returns:
        Two arrays in the shape that :class:`QParams` has for this granularity.
    """
    match granularity:
        case PerTensor():
            return np.asarray(weight.min(initial=0)), np.asarray(weight.max(initial=0))
        case PerAxis(axis):
            others = tuple(i for i in range(weight.ndim) if i != axis % weight.ndim)
            return weight.min(axis=others, initial=0), weight.max(axis=others, initial=0)
        case PerBlock(size, axis):
            starts = np.arange(0, weight.shape[axis], size)
            low = np.minimum.reduceat(weight, starts, axis=axis)
            return low, np.maximum.reduceat(weight, starts, axis=axis)


def quantize(values: NDArray[np.floating], params: QParams) -> NDArray[Any]:
    """Round ``values`` to the integers, or numbers, of ``params``.

    Args:
        values: Float array that fits the granularity of ``params``.
        params: Scales and zero points.

    Returns:
        An array of the scheme's type (unpacked), the shape of ``values``.
    """
    granularity = params.scheme.granularity
    scale = _expand(params.scale, values.shape, granularity)
    with np.errstate(over="ignore"):  # a quotient of Inf saturates, as it should
        scaled = np.asarray(values / scale)
    if params.scheme.floating:
        return to_e4m3(scaled)
    offset = _expand(params.zero_point, values.shape, granularity)
    np.rint(scaled, out=scaled)
    scaled += offset
    np.clip(scaled, params.scheme.qmin, params.scheme.qmax, out=scaled)
    integers: NDArray[np.integer] = scaled.astype(params.scheme.dtype)
    pairs = params.scheme.pairs
    return _bound_pairs(integers, pairs) if pairs else integers


def _bound_pairs(integers: NDArray[np.integer], axes: tuple[int, ...]) -> NDArray[np.integer]:
    """The nearest integers whose neighbours along ``axes`` keep to ``PAIR_LIMIT``.

    What a pair has too much is taken from both alike: its projection onto the bound.
    """
    ends = tuple(range(-len(axes), 0))
    moved = np.moveaxis(integers, axes, ends)
    flat = moved.reshape(*moved.shape[: -len(axes)], -1)
    count = flat.shape[-1] // 2
    first, second = flat[..., 0 : 2 * count : 2], flat[..., 1 : 2 * count : 2]
    excess = np.abs(first).astype(np.int16) + np.abs(second) - PAIR_LIMIT
    where = np.nonzero(excess > 0)
    if not where[0].size:
        return integers
    a, b, over = first[where].astype(np.int16), second[where].astype(np.int16), excess[where]
    # The odd one is taken from the larger. Neither falls below 0: no magnitude is above the limit.
    larger = np.abs(a) >= np.abs(b)
    first[where] = np.sign(a) * (np.abs(a) - (over + larger) // 2)
    second[where] = np.sign(b) * (np.abs(b) - (over + ~larger) // 2)
    return np.moveaxis(flat.reshape(moved.shape), ends, axes)


def dequantize(integers: NDArray[Any], params: QParams) -> NDArray[np.float32]:
    """The real numbers, float32, that ``integers``, or numbers of 8 bits, stand for."""
    granularity = params.scheme.granularity
    scale = _expand(params.scale, integers.shape, granularity)
    if params.scheme.floating:
        return integers.astype(np.float32) * scale
    offset = _expand(params.zero_point, integers.shape, granularity).astype(np.int32)
    return (integers.astype(np.int32) - offset).astype(np.float32) * scale


def fake_quantize(values: NDArray[np.floating], params: QParams) -> NDArray[np.float32]:
    """``dequantize(quantize(values))``: the values as the quantized model sees them."""
    return dequantize(quantize(values, params), params)


def saturates(params: QParams, low: float, high: float) -> bool:
    """Whether quantizing alone already clips to ``[low, high]``.

    True if ``Quantize(clip(x, low, high)) == Quantize(x)`` for every x, so that a Relu or a Clip in
    front of the quantizer is redundant: both bounds fall on, or beyond, the outermost integers.

    Args:
        params: Per-tensor parameters.
        low: Lower bound of the clip, may be -inf.
        high: Upper bound of the clip, may be +inf.
    """
    bounds = quantize(np.asarray([low, high], np.float32), params)
    return bool(bounds[0] == params.scheme.qmin and bounds[1] == params.scheme.qmax)


def _expand(array: NDArray[_T], shape: tuple[int, ...], granularity: Granularity) -> NDArray[_T]:
    """``array``, one element to a scale, so that it broadcasts against a tensor of ``shape``."""
    match granularity:
        case PerTensor():
            return array
        case PerAxis(axis):
            column = [1] * len(shape)
            column[axis] = shape[axis]
            return array.reshape(column)
        case PerBlock(size, axis):
            inside = [slice(None)] * len(shape)
            inside[axis] = slice(shape[axis])
            return np.repeat(array, size, axis=axis)[tuple(inside)]
