"""FP8 against an independent reference: the 127 numbers and their middles, in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import numpy_helper, parser

from onnxq.errors import InternalError
from onnxq.numerics import float8
from onnxq.numerics.affine import dequantize, fake_quantize, qparams_from_range, quantize
from onnxq.numerics.histogram import FloatHistogram
from onnxq.numerics.ranges import mean_squared_error, mse
from onnxq.numerics.schemes import FP8, PerAxis, QParams, Scheme
from onnxq.runtime.session import open_session

if TYPE_CHECKING:
    from numpy.typing import NDArray


def number_of(code: int) -> float:
    """What a code stands for, by the definition."""
    sign, exponent, mantissa = code >> 7, code >> 3 & 15, code & 7
    if exponent == 15 and mantissa == 7:
        return np.nan
    fraction = mantissa / 8 if exponent == 0 else 1 + mantissa / 8
    return float((-1) ** sign * 2.0 ** (max(exponent, 1) - 7) * fraction)


NUMBERS = np.array([number_of(code) for code in range(127)])


def nearest(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Round to the nearest number, of two to that of the even code; saturating."""
    wide = np.asarray(values, np.float64)
    distance = np.abs(np.minimum(np.abs(wide), 448.0)[..., None] - NUMBERS)
    least = distance.min(axis=-1, keepdims=True)
    # Of the codes at the least distance the even one; there is one such of two neighbours.
    codes = np.arange(127)
    wanted = np.where(distance == least, codes + 1000 * (codes % 2), 9999).argmin(axis=-1)
    rounded = np.where(np.isnan(wide), np.nan, NUMBERS[wanted])
    found: NDArray[np.float64] = np.copysign(rounded, wide)
    return found


def params(scale: float | NDArray[np.floating], axis: int | None = None) -> QParams:
    scheme = FP8 if axis is None else replace(FP8, granularity=PerAxis(axis))
    array = np.asarray(scale, np.float32)
    return QParams(array, np.zeros(array.shape, scheme.dtype), scheme)


def test_every_code_stands_for_its_number() -> None:
    codes = np.arange(256, dtype=np.uint8).view(float8.E4M3)
    wanted = np.array([number_of(code) for code in range(256)], np.float32)
    np.testing.assert_array_equal(dequantize(codes, params(1.0)), wanted)
    assert np.nanmax(wanted) == float8.GREATEST


def test_every_number_is_its_own_rounding() -> None:
    codes = np.arange(256, dtype=np.uint8)
    numbers = np.array([number_of(int(code)) for code in codes], np.float32)
    known = ~np.isnan(numbers)
    found = float8.to_e4m3(numbers).view(np.uint8)
    np.testing.assert_array_equal(found[known], codes[known])
    assert np.isnan(float8.to_e4m3(numbers[~known]).astype(np.float32)).all()


def test_middles_go_to_the_even_mantissa_and_their_neighbours_to_the_nearest() -> None:
    middles = ((NUMBERS[1:] + NUMBERS[:-1]) / 2).astype(np.float32)
    up = np.nextafter(middles, np.float32(np.inf))
    down = np.nextafter(middles, np.float32(0))
    for values in (middles, up, down, -middles, -up, -down):
        np.testing.assert_array_equal(float8.to_e4m3(values).astype(np.float64), nearest(values))


@pytest.mark.parametrize("value", [448, 449, 464, 465, 480, 1e30, np.inf])
def test_what_is_beyond_saturates(value: float) -> None:
    both = float8.to_e4m3(np.array([value, -value], np.float32)).astype(np.float32)
    np.testing.assert_array_equal(both, [448, -448])


@given(hnp.arrays(np.float32, 50, elements=st.floats(width=32, allow_nan=True)))
def test_any_number_is_rounded_to_the_nearest(values: NDArray[np.float32]) -> None:
    np.testing.assert_array_equal(float8.to_e4m3(values).astype(np.float64), nearest(values))


@given(
    hnp.arrays(np.float32, (3, 8), elements=st.floats(-1e4, 1e4, width=32)),
    st.floats(2.0**-10, 64, width=32),
)
def test_scaling_by_a_power_of_two_changes_nothing_but_the_ends(
    values: NDArray[np.float32], scale: float
) -> None:
    one, two = (fake_quantize(values, params(s)) for s in (scale, 2 * scale))
    ordinary = (np.abs(values) >= 2.0**-5 * scale) & (np.abs(values) <= 448 * scale)
    np.testing.assert_array_equal(one[ordinary], two[ordinary])


def test_each_channel_has_its_scale() -> None:
    weight = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)
    scale = np.array([0.1, 1, 3, 0.01], np.float32)
    found = fake_quantize(weight, params(scale, axis=1))
    wanted = nearest(weight / scale[:, None]) * scale[:, None].astype(np.float64)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_a_range_ends_at_the_greatest_number() -> None:
    found = qparams_from_range([-7.0, 0.0, 0.0], [3.0, 896.0, 0.0], FP8)
    np.testing.assert_allclose(found.scale, [7 / 448, 2, 1], rtol=1e-7)
    assert found.zero_point.dtype == float8.E4M3
    assert not found.zero_point.astype(np.float32).any()
    low, high = found.representable
    np.testing.assert_allclose(high, [7, 896, 448], rtol=1e-6)
    np.testing.assert_array_equal(low, -high)


@pytest.mark.parametrize("scale", [0.003, 0.02, 0.5, 1.7, 30.0])
def test_the_error_of_a_histogram_is_that_of_its_values(scale: float) -> None:
    rng = np.random.default_rng(1)
    values = (rng.standard_normal(100_000) * np.exp(rng.normal(size=100_000))).astype(np.float32)
    histogram = FloatHistogram()
    histogram.add(values)
    wanted = np.square(values - nearest(values / scale) * scale).mean()
    found = float8.mean_squared_error(histogram.bins(), scale)
    assert found == pytest.approx(wanted, rel=2e-3)


def test_the_least_error_is_found_and_needs_no_clipping() -> None:
    values = np.random.default_rng(2).standard_normal(50_000).astype(np.float32) * 3
    histogram = FloatHistogram()
    histogram.add(values)
    bins = histogram.bins()
    low, high = mse(bins, FP8)
    peak = float(np.abs(values).max())
    assert peak <= max(-low, high) * 1.01 <= 2.02 * peak
    least = mean_squared_error(bins, low, high, FP8)
    for factor in np.geomspace(0.05, 4, 40):
        assert mean_squared_error(bins, -peak * factor, peak * factor, FP8) >= least * 0.99


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_the_best_factor_is_that_of_an_exhaustive_search(axis: int | None) -> None:
    weight = np.random.default_rng(3).normal(size=(6, 5, 9)).astype(np.float32)
    weight[2] = 0
    weight[:, :, 4] *= 1e-4  # subnormal
    found = float8.best_factors(weight, axis)
    rows = weight.reshape(1, -1) if axis is None else np.moveaxis(weight, axis, 0)
    rows = rows.reshape(len(rows), -1)
    peaks = np.abs(rows).max(axis=1, keepdims=True)
    errors = []
    for factor in float8.FACTORS:
        scale = np.where(peaks > 0, peaks.astype(np.float64) * factor / 448, 1)
        errors.append(np.square(rows - nearest(rows / scale) * scale).sum(axis=1))
    best = np.asarray(errors).min(axis=0)
    index = [int(np.abs(float8.FACTORS - f).argmin()) for f in np.atleast_1d(found)]
    mine = np.asarray(errors)[index, np.arange(len(rows))]
    np.testing.assert_allclose(mine, best, rtol=1e-5)


def test_searching_gains_on_weights_of_few_elements() -> None:
    weight = np.random.default_rng(4).normal(size=(64, 9)).astype(np.float32)
    peaks = np.abs(weight).max(axis=1)
    errors = [
        np.square(weight - fake_quantize(weight, params(peaks * f / 448, axis=0))).sum()
        for f in (np.float32(1), float8.best_factors(weight, 0))
    ]
    assert errors[1] < 0.75 * errors[0]


@pytest.mark.parametrize("form", [{"bits": 4}, {"signed": False}, {"symmetric": False}])
def test_other_forms_are_refused(form: dict[str, Any]) -> None:
    whole: dict[str, Any] = {"signed": True, "symmetric": True, **form}
    with pytest.raises(InternalError):
        Scheme(number="float8e4m3fn", **whole)


@pytest.mark.parametrize("opset", [21, 23, 25, 27])
@pytest.mark.parametrize("zero_point", [True, False])
def test_onnxruntime_rounds_alike(opset: int, *, zero_point: bool) -> None:
    text = (
        "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)"
        if zero_point
        else "q = QuantizeLinear<output_dtype = 17>(x, s) y = DequantizeLinear(q, s)"
    )
    model = parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : {opset}]> '
        f"g (float[n] x) => (float[n] y) {{ {text} }}"
    )
    found = params(0.37)
    model.graph.initializer.append(numpy_helper.from_array(found.scale, "s"))
    if zero_point:
        model.graph.initializer.append(numpy_helper.from_array(found.zero_point, "z"))
    onnx.checker.check_model(model)
    rng = np.random.default_rng(5)
    spread = rng.standard_normal(20_000) * np.exp(rng.uniform(-12, 8, 20_000))
    values = np.concatenate([spread, (NUMBERS[1:] + NUMBERS[:-1]) / 2 * 0.37, [np.inf, -np.inf]])
    values = values.astype(np.float32)
    (ran,) = open_session(model.SerializeToString()).run({"x": values})
    np.testing.assert_array_equal(ran, fake_quantize(values, found))
    np.testing.assert_array_equal(ran, dequantize(quantize(values, found), found))
