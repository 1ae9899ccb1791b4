"""What holds for every affine quantization, whatever the range and the width."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxq.errors import InternalError
from onnxq.numerics.affine import (
    dequantize,
    fake_quantize,
    qparams_from_range,
    quantize,
    saturates,
    weight_range,
)
from onnxq.numerics.schemes import (
    ACTIVATION_UINT8,
    WEIGHT_INT8,
    Granularity,
    PerAxis,
    PerBlock,
    PerTensor,
    QParams,
    Scheme,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

TINY = float(np.finfo(np.float32).tiny)
LARGEST = 2.0**120  # representable ranges twice as wide still fit float32

floats = st.floats(-LARGEST, LARGEST, width=32)
arrays = hnp.arrays(np.float32, st.integers(0, 40), elements=floats)
schemes = st.builds(
    Scheme,
    bits=st.integers(2, 16),
    signed=st.booleans(),
    symmetric=st.booleans(),
    narrow=st.booleans(),
)


@st.composite
def parameters(draw: st.DrawFn) -> QParams:
    low, high = sorted((draw(floats), draw(floats)))
    return qparams_from_range(low, high, draw(schemes))


def spread(params: QParams, points: list[float]) -> NDArray[np.float32]:
    """``points`` in [0, 1] laid over the representable range."""
    low, high = (np.float64(bound) for bound in params.representable)
    return np.clip(low + np.asarray(points) * (high - low), low, high).astype(np.float32)


unit = st.lists(st.floats(0, 1), max_size=40)


@settings(deadline=None)
@given(floats, floats, schemes)
def test_scale_is_normal_and_range_includes_0(one: float, other: float, scheme: Scheme) -> None:
    params = qparams_from_range(min(one, other), max(one, other), scheme)
    assert params.scale.dtype == np.float32
    assert params.zero_point.dtype == scheme.dtype
    assert params.scale.shape == params.zero_point.shape == ()
    assert TINY <= float(params.scale) < np.inf
    low, high = params.representable
    assert low <= 0.0 <= high
    assert scheme.qmin <= int(params.zero_point) <= scheme.qmax


@settings(deadline=None)
@given(parameters())
def test_0_stays_exactly_0(params: QParams) -> None:
    zeros = np.asarray([0.0, -0.0], np.float32)
    np.testing.assert_array_equal(quantize(zeros, params), [params.zero_point] * 2)
    np.testing.assert_array_equal(fake_quantize(zeros, params), [0.0, 0.0])


@settings(deadline=None)
@given(parameters(), unit)
def test_error_is_half_a_step_within_the_representable_range(
    params: QParams, points: list[float]
) -> None:
    x = spread(params, points)
    error = np.abs(fake_quantize(x, params).astype(np.float64) - x)
    rounding = 2.0**-22 * np.abs(x.astype(np.float64))
    assert np.all(error <= float(params.scale) / 2 + rounding)


@settings(deadline=None)
@given(floats, floats, unit, st.integers(2, 16), st.booleans())
def test_error_is_half_a_step_within_the_given_range(
    one: float, other: float, points: list[float], bits: int, signed: bool
) -> None:
    low, high = min(one, other, 0.0), max(one, other, 0.0)
    params = qparams_from_range(low, high, Scheme(bits=bits, signed=signed))
    x = np.clip(low + np.asarray(points) * (high - low), low, high).astype(np.float32)
    error = np.abs(fake_quantize(x, params).astype(np.float64) - x)
    # The float32 scale is off by 2^-24 of itself, 2^16 steps away at most.
    assert np.all(error <= 0.51 * float(params.scale))


@settings(deadline=None)
@given(parameters(), arrays)
def test_monotone(params: QParams, x: NDArray[np.float32]) -> None:
    q = quantize(np.sort(x), params).astype(np.int64)
    assert np.all(np.diff(q) >= 0)


@settings(deadline=None)
@given(parameters(), st.floats(1.0, 1e6))
def test_saturates_outside(params: QParams, factor: float) -> None:
    scheme = params.scheme
    low, high = (float(bound) for bound in params.representable)
    outside = np.asarray([low, low * factor, -np.inf, high, high * factor, np.inf])
    with np.errstate(over="ignore"):
        q = quantize(outside.astype(np.float32), params)
    assert q.tolist() == [scheme.qmin] * 3 + [scheme.qmax] * 3


@settings(deadline=None)
@given(parameters(), arrays)
def test_fake_quantize_is_idempotent(params: QParams, x: NDArray[np.float32]) -> None:
    once = fake_quantize(x, params)
    assert once.dtype == np.float32
    np.testing.assert_array_equal(fake_quantize(once, params), once)
    np.testing.assert_array_equal(once, dequantize(quantize(x, params), params))


@settings(deadline=None)
@given(parameters())
def test_every_integer_returns_to_itself(params: QParams) -> None:
    integers = np.arange(params.scheme.qmin, params.scheme.qmax + 1).astype(params.scheme.dtype)
    np.testing.assert_array_equal(quantize(dequantize(integers, params), params), integers)


@settings(deadline=None)
@given(schemes)
def test_all_zero_range_has_scale_1(scheme: Scheme) -> None:
    params = qparams_from_range(0.0, 0.0, scheme)
    assert float(params.scale) == 1.0
    assert fake_quantize(np.zeros(3, np.float32), params).tolist() == [0.0] * 3


@pytest.mark.parametrize("bound", [1e-45, 1e-40, TINY])
def test_subnormal_range_gets_the_least_normal_scale(bound: float) -> None:
    for low, high in ((0.0, bound), (-bound, 0.0), (-bound, bound)):
        for scheme in (ACTIVATION_UINT8, WEIGHT_INT8):
            assert float(qparams_from_range(low, high, scheme).scale) == TINY


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (np.nan, 1.0),
        (0.0, np.nan),
        (-np.inf, 1.0),
        (0.0, np.inf),
        (np.inf, -np.inf),
        (np.inf, np.inf),
        (2.0, 1.0),
        (-1.0, -2.0),
        ([0.0, 3.0], [1.0, 2.0]),
    ],
)
def test_bad_ranges_are_refused(low: float, high: float) -> None:
    with pytest.raises(InternalError) as caught:
        qparams_from_range(low, high, ACTIVATION_UINT8)
    assert caught.value.code == "numerics.range"


def test_float64_and_float16_input() -> None:
    params = qparams_from_range(-1.0, 1.0, ACTIVATION_UINT8)
    x = np.linspace(-1.5, 1.5, 101, dtype=np.float16)
    expected = quantize(x.astype(np.float32), params)
    np.testing.assert_array_equal(quantize(x, params), expected)
    np.testing.assert_array_equal(quantize(x.astype(np.float64), params), expected)


def test_input_is_left_alone() -> None:
    x = np.linspace(-2, 2, 9, dtype=np.float32)
    x.flags.writeable = False
    fake_quantize(x, qparams_from_range(-1.0, 1.0, ACTIVATION_UINT8))
    np.testing.assert_array_equal(x, np.linspace(-2, 2, 9, dtype=np.float32))


def pieces(shape: tuple[int, ...], granularity: Granularity) -> list[tuple[slice, ...]]:
    """The slices that share a scale, in the order of the flattened scales."""
    whole = [slice(None)] * len(shape)
    match granularity:
        case PerTensor():
            return [tuple(whole)]
        case PerAxis(axis):
            rows = []
            for i in range(shape[axis]):
                index = list(whole)
                index[axis] = slice(i, i + 1)
                rows.append(tuple(index))
            return rows
        case PerBlock(size, axis):
            axis %= len(shape)
            blocked = [-(-n // size) if i == axis else n for i, n in enumerate(shape)]
            return [
                tuple(
                    slice(k * size, (k + 1) * size) if i == axis else slice(k, k + 1)
                    for i, k in enumerate(index)
                )
                for index in np.ndindex(*blocked)
            ]


@st.composite
def weights(draw: st.DrawFn) -> tuple[NDArray[np.float32], Granularity]:
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=7))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    granularity = draw(
        st.one_of(
            st.just(PerTensor()),
            st.just(PerAxis(axis)),
            st.builds(PerBlock, size=st.integers(1, 9), axis=st.just(axis)),
        )
    )
    weight = draw(hnp.arrays(np.float32, shape, elements=floats))
    return weight, granularity


@settings(deadline=None)
@given(weights(), schemes)
def test_each_slice_is_quantized_as_a_tensor_of_its_own(
    case: tuple[NDArray[np.float32], Granularity], scheme: Scheme
) -> None:
    weight, granularity = case
    low, high = weight_range(weight, granularity)
    params = qparams_from_range(low, high, replace(scheme, granularity=granularity))
    q, back = quantize(weight, params), fake_quantize(weight, params)
    parts = pieces(weight.shape, granularity)
    assert q.shape == weight.shape
    assert params.scale.size == len(parts)
    for index, scale, zero_point in zip(
        parts, params.scale.flat, params.zero_point.flat, strict=True
    ):
        piece = weight[index]
        alone = qparams_from_range(piece.min(), piece.max(), scheme)
        assert alone.scale == scale
        assert alone.zero_point == zero_point
        np.testing.assert_array_equal(q[index], quantize(piece, alone))
        np.testing.assert_array_equal(back[index], fake_quantize(piece, alone))


def test_ragged_last_block() -> None:
    weight = np.arange(-10, 10, dtype=np.float32).reshape(2, 10)
    granularity = PerBlock(4, -1)
    low, high = weight_range(weight, granularity)
    assert low.tolist() == [[-10, -6, -2], [0, 4, 8]]
    assert high.tolist() == [[-7, -3, -1], [3, 7, 9]]
    params = qparams_from_range(low, high, Scheme(bits=4, granularity=granularity))
    assert params.scale.shape == (2, 3)
    np.testing.assert_allclose(fake_quantize(weight, params), weight, atol=10 / 15 / 2 + 1e-6)


@pytest.mark.parametrize("granularity", [PerTensor(), PerAxis(1), PerBlock(2, 1)])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_empty_arrays(granularity: Granularity, shape: tuple[int, int]) -> None:
    empty = np.zeros(shape, np.float32)
    if isinstance(granularity, PerBlock) and shape[0] == 0:
        expected: tuple[int, ...] = (0, 2)
    elif isinstance(granularity, PerBlock):
        expected = (3, 0)
    else:
        expected = () if isinstance(granularity, PerTensor) else (shape[1],)
    low, high = weight_range(empty, granularity)
    assert low.shape == high.shape == expected
    params = qparams_from_range(low, high, replace(WEIGHT_INT8, granularity=granularity))
    assert fake_quantize(empty, params).shape == shape


@st.composite
def clips(draw: st.DrawFn) -> tuple[QParams, float, float]:
    """Parameters and bounds, many of them on an integer or halfway between two."""
    params = qparams_from_range(
        draw(st.floats(-8, 0, width=32)), draw(st.floats(0, 8, width=32)), draw(schemes)
    )
    first = params.scheme.qmin - int(params.zero_point)
    last = params.scheme.qmax - int(params.zero_point)
    steps = st.one_of(
        st.sampled_from([first - 0.5, first, first + 0.5, last - 0.5, last, last + 0.5, 0.0]),
        st.floats(first - 2, last + 2),
    )
    ends = st.one_of(
        st.builds(lambda k: float(np.float32(k) * params.scale), steps),
        st.sampled_from([0.0, 6.0, np.inf, -np.inf]),
    )
    low, high = sorted((draw(ends), draw(ends)))
    return params, low, high


@settings(deadline=None, max_examples=300)
@given(clips())
def test_saturates_is_what_brute_force_finds(case: tuple[QParams, float, float]) -> None:
    params, low, high = case
    least, greatest = (float(bound) for bound in params.representable)
    bounds = np.asarray([low, high, least, greatest], np.float32)
    x = np.concatenate(
        [
            np.linspace(2 * least - 1, 2 * greatest + 1, 2001, dtype=np.float32),
            bounds,
            np.nextafter(bounds, np.float32(-np.inf)),
            np.nextafter(bounds, np.float32(np.inf)),
            np.asarray([-3e38, 3e38, -np.inf, np.inf], np.float32),
        ]
    )
    clipped = np.clip(x, np.float32(low), np.float32(high))
    redundant = np.array_equal(quantize(clipped, params), quantize(x, params))
    assert saturates(params, low, high) == redundant


def test_saturates_divides_in_float32_as_quantize_does() -> None:
    """Here float64 puts the bound just below the tie between 254 and 255, float32 on it."""
    disagreements = 0
    for high in np.linspace(0.5, 8, 4001):
        params = qparams_from_range(0.0, high, ACTIVATION_UINT8)
        bound = np.float32(254.5) * params.scale
        in_float64 = np.rint(np.float64(bound) / np.float64(params.scale)) >= 255
        reached = int(quantize(np.asarray(bound), params)) == 255
        disagreements += int(in_float64 != reached)
        assert saturates(params, 0.0, float(bound)) == reached
    assert disagreements > 0


def test_relu_and_relu6() -> None:
    params = qparams_from_range(0.0, 6.0, ACTIVATION_UINT8)
    assert saturates(params, 0.0, np.inf)
    assert saturates(params, 0.0, 6.0)
    assert not saturates(params, 0.0, 5.9)
    assert not saturates(qparams_from_range(-1.0, 6.0, ACTIVATION_UINT8), 0.0, np.inf)
    assert saturates(params, -np.inf, np.inf)
