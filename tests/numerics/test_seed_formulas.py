"""The reference formulas of affine quantization, stated literally in float64.

scale = (max - min) / (2^n - 1)
zero_point = round(-min / scale)
q = clip(round(x / scale) + zero_point, 0, 2^n - 1)
x' = (q - zero_point) * scale

The range always includes 0. The scale is stored as float32, and it is the stored scale that the
later formulas use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from onnxq.numerics.affine import dequantize, qparams_from_range, quantize
from onnxq.numerics.schemes import Scheme

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDTHS = range(2, 17)
RANGES = [(-1.0, 1.0), (-0.3, 2.7), (0.0, 6.0), (-5.0, 0.0), (1.5, 4.0), (-9.0, -2.0), (-1e-6, 3e4)]


def formula_scale(low: float, high: float, bits: int) -> float:
    least, greatest = min(low, 0.0), max(high, 0.0)
    return (greatest - least) / ((1 << bits) - 1)


def formula_zero_point(low: float, scale: float) -> int:
    return round(-min(low, 0.0) / scale)


def formula_quantize(x: float, scale: float, zero_point: int, bits: int) -> int:
    return min(max(round(x / scale) + zero_point, 0), (1 << bits) - 1)


def formula_dequantize(q: int, scale: float, zero_point: int) -> float:
    return (q - zero_point) * scale


def sample(low: float, high: float) -> NDArray[np.float32]:
    """Values inside and on both sides of the range, bounds and zero among them."""
    width = max(high, 0.0) - min(low, 0.0)
    inside = np.linspace(low - 0.2 * width, high + 0.2 * width, 257)
    return np.asarray([*inside, low, high, 0.0], np.float32)


def far_from_tie(x: NDArray[np.float32], scale: float) -> NDArray[np.bool_]:
    """Where float32 division (relative error 2^-24) cannot cross from one integer to the next."""
    ratio = x.astype(np.float64) / scale
    distance = np.abs(np.abs(ratio - np.rint(ratio)) - 0.5)
    return np.asarray(distance > 2.0**-23 * np.abs(ratio))


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize(("low", "high"), RANGES)
def test_unsigned_asymmetric_is_the_formula(bits: int, low: float, high: float) -> None:
    params = qparams_from_range(low, high, Scheme(bits=bits))
    scale = float(params.scale)
    zero_point = formula_zero_point(low, scale)
    assert params.scale.dtype == np.float32
    assert params.scale == np.float32(formula_scale(low, high, bits))
    assert int(params.zero_point) == zero_point

    x = sample(low, high)
    expected = np.asarray([formula_quantize(float(v), scale, zero_point, bits) for v in x])
    q = quantize(x, params)
    clear = far_from_tie(x, scale)
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(q[clear], expected[clear])
    assert np.abs(q.astype(np.int64) - expected).max() <= 1

    back = [np.float32(formula_dequantize(int(v), scale, zero_point)) for v in q]
    np.testing.assert_array_equal(dequantize(q, params), np.asarray(back))


def test_worked_example() -> None:
    params = qparams_from_range(-64.0, 191.0, Scheme(bits=8))
    assert float(params.scale) == 1.0
    assert int(params.zero_point) == 64
    x = np.asarray([-70, -64, -0.5, 0.5, 1.5, 2.5, 0, 190.6, 191, 500], np.float32)
    q = quantize(x, params)
    assert q.dtype == np.uint8
    assert q.tolist() == [0, 0, 64, 64, 66, 66, 64, 255, 255, 255]  # half to even
    assert dequantize(q, params).tolist() == [-64, -64, 0, 0, 2, 2, 0, 191, 191, 191]


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize(("low", "high"), RANGES)
def test_signed_is_the_unsigned_formula_shifted(bits: int, low: float, high: float) -> None:
    unsigned = qparams_from_range(low, high, Scheme(bits=bits))
    signed = qparams_from_range(low, high, Scheme(bits=bits, signed=True))
    shift = 2 ** (bits - 1)
    assert signed.scale == unsigned.scale
    assert int(signed.zero_point) == int(unsigned.zero_point) - shift
    x = sample(low, high)
    moved = quantize(x, unsigned).astype(np.int64) - shift
    q = quantize(x, signed)
    assert q.dtype.kind == "i"
    np.testing.assert_array_equal(q, moved)
    np.testing.assert_array_equal(
        dequantize(q, signed), dequantize(quantize(x, unsigned), unsigned)
    )


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize(("low", "high"), RANGES)
def test_symmetric_signed_is_the_case_of_zero_point_0(
    bits: int, narrow: bool, low: float, high: float
) -> None:
    scheme = Scheme(bits=bits, signed=True, symmetric=True, narrow=narrow)
    params = qparams_from_range(low, high, scheme)
    top = 2 ** (bits - 1) - 1
    assert int(params.zero_point) == 0
    assert params.scale == np.float32(max(-min(low, 0.0), max(high, 0.0)) / top)

    x = sample(low, high)
    scale = float(params.scale)
    bottom = -top if narrow else -top - 1
    expected = np.asarray([min(max(round(float(v) / scale), bottom), top) for v in x])
    q = quantize(x, params)
    clear = far_from_tie(x, scale)
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(q[clear], expected[clear])
    np.testing.assert_array_equal(
        dequantize(q, params), np.asarray([np.float32(int(v) * scale) for v in q])
    )


@pytest.mark.parametrize("bits", WIDTHS)
def test_symmetric_unsigned_has_its_zero_in_the_middle(bits: int) -> None:
    params = qparams_from_range(-3.0, 2.0, Scheme(bits=bits, symmetric=True))
    middle = 2 ** (bits - 1)
    assert int(params.zero_point) == middle
    assert params.scale == np.float32(3.0 / (middle - 1))
    assert int(quantize(np.asarray(-3.0, np.float32), params)) == 1
    assert int(quantize(np.asarray(3.0, np.float32), params)) == 2 * middle - 1


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize(("low", "high"), RANGES)
def test_range_always_includes_0(bits: int, low: float, high: float) -> None:
    params = qparams_from_range(low, high, Scheme(bits=bits))
    least, greatest = params.representable
    assert least <= 0.0 <= greatest
    assert dequantize(quantize(np.zeros(1, np.float32), params), params)[0] == 0.0
