from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.algorithms.weight_rounding import rounded_params, row_params
from onnxq.numerics.affine import fake_quantize
from onnxq.numerics.schemes import WEIGHT_INT8, Granularity, PerAxis, PerTensor
from tests.rounded import rounded_to
from tests.small_models import normal

if TYPE_CHECKING:
    from numpy.typing import NDArray


def reference(row: NDArray[np.float32], qmax: int) -> float:
    """The best scale of one channel: every point of the grid, the module's formula, float64."""
    exact = row.astype(float)
    errors: dict[float, float] = {}
    for factor in np.linspace(1.0, 0.6, 100).tolist():
        scale = factor * float(np.abs(row).max()) / qmax
        coded = np.clip(np.rint(exact / scale), -qmax, qmax)
        errors[scale] = float(np.square(exact - coded * scale).sum())
    return min(errors, key=lambda scale: errors[scale])


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("bits", [7, 8, 4])
def test_each_channel_has_the_least_error(axis: int, bits: int) -> None:
    weight = normal(0, 5, 6, 7) ** 3
    scheme = replace(WEIGHT_INT8, bits=bits, granularity=PerAxis(axis))
    params = rounded_params(weight, scheme)
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    expected = [reference(row, scheme.qmax) for row in rows]
    np.testing.assert_allclose(params.scale, expected, rtol=1e-5)
    assert not params.zero_point.any()


def pair_error(row: NDArray[np.float32], scale: float) -> float:
    """Of one channel under a scale, its pairs bounded by the definition."""
    coded = rounded_to(row, np.asarray(scale), 8, (0,))
    return float(np.square(row.astype(float) - coded * scale).sum())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("length", [2, 7, 40])
def test_bounded_pairs_have_the_least_error_of_the_grid(seed: int, length: int) -> None:
    weight = normal(seed, length, 6) ** 3
    scheme = replace(WEIGHT_INT8, granularity=PerAxis(1), pairs=(0,))
    params = rounded_params(weight, scheme)
    grid = [*np.linspace(1.0, 0.6, 100), *np.linspace(2.0, 1.0, 64, endpoint=False)]
    for column, scale in zip(weight.T, params.scale, strict=True):
        unit = float(np.abs(column).max()) / 127
        least = min(pair_error(column, factor * unit) for factor in grid)
        found = pair_error(column, float(scale))
        assert found <= least * (1 + 1e-3) + 1e-4 * float(scale) ** 2


def test_weights_near_the_greatest_number_keep_a_finite_scale() -> None:
    weight = normal(0, 8, 4)
    weight[:, 1] = -3e38
    scheme = replace(WEIGHT_INT8, granularity=PerAxis(1), pairs=(0,))
    scale = rounded_params(weight, scheme).scale
    assert np.isfinite(scale).all()
    assert float(scale[1]) == pytest.approx(2 * 3e38 / 127, rel=0.01)


def test_pairs_cost_less_than_a_bit() -> None:
    """Weights as those of trained layers are: the bound costs half of what 7 bits do."""
    weight = normal(0, 384, 64)
    schemes = {
        "eight": replace(WEIGHT_INT8, granularity=PerAxis(1)),
        "pairs": replace(WEIGHT_INT8, granularity=PerAxis(1), pairs=(0,)),
        "seven": replace(WEIGHT_INT8, granularity=PerAxis(1), bits=7),
    }
    noise = {
        name: np.square(weight - fake_quantize(weight, rounded_params(weight, scheme))).sum()
        for name, scheme in schemes.items()
    }
    assert noise["eight"] < noise["pairs"] < 0.55 * noise["seven"]


@pytest.mark.parametrize(
    ("shape", "axis", "pairs"),
    [((6, 3, 3, 3), 0, (2, 3, 1)), ((6, 4, 5), 0, (2, 1)), ((7, 5), 0, (1,)), ((5, 4), None, (0,))],
)
def test_pairs_lie_along_the_order_of_the_sums(
    shape: tuple[int, ...], axis: int | None, pairs: tuple[int, ...]
) -> None:
    """Where large weights stand side by side in that order alone, the scale is wider."""
    granularity = PerTensor() if axis is None else PerAxis(axis)
    scheme = replace(WEIGHT_INT8, granularity=granularity, pairs=pairs)
    rest = [place for place in range(len(shape)) if place not in pairs]
    order = (*rest, *pairs)
    length = int(np.prod([shape[place] for place in pairs]))
    for starts, widened in (((0, 1), True), ((1, 2), False)):
        rows = np.zeros((*(shape[place] for place in rest), length), np.float32)
        rows[..., list(starts)] = 1
        moved = rows.reshape([shape[place] for place in order])
        weight = np.transpose(moved, np.argsort(order))
        scale = rounded_params(weight, scheme).scale * 127
        assert (scale > 1.5).all() if widened else (scale < 1.02).all()


def test_one_scale_for_the_tensor() -> None:
    weight = normal(0, 30, 40)
    params = rounded_params(weight, replace(WEIGHT_INT8, granularity=PerTensor()))
    assert params.scale.shape == ()
    assert float(params.scale) == pytest.approx(reference(weight.ravel(), 127), rel=1e-5)


@pytest.mark.parametrize("workers", [1, 3, 64])
def test_how_the_channels_are_divided_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    weight = normal(0, 37, 50)
    scheme = replace(WEIGHT_INT8, granularity=PerAxis(0))
    monkeypatch.setattr(os, "cpu_count", lambda: workers)
    expected = [reference(row, scheme.qmax) for row in weight]
    np.testing.assert_allclose(rounded_params(weight, scheme).scale, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_weights_of_another_type_and_layout(dtype: type[np.floating]) -> None:
    weight: NDArray[np.floating] = np.asfortranarray(normal(0, 9, 20).astype(dtype))
    scheme = replace(WEIGHT_INT8, granularity=PerAxis(1))
    expected = [reference(row.astype(np.float32), scheme.qmax) for row in weight.T]
    np.testing.assert_allclose(rounded_params(weight, scheme).scale, expected, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    power=st.integers(-30, 30),
    granularity=st.sampled_from([PerTensor(), PerAxis(0), PerAxis(1)]),
    bits=st.integers(2, 8),
)
def test_never_worse_than_the_greatest_magnitude(
    seed: int, power: int, granularity: Granularity, bits: int
) -> None:
    weight = normal(seed, 6, 9) * np.float32(10.0) ** power
    scheme = replace(WEIGHT_INT8, bits=bits, granularity=granularity)
    params = rounded_params(weight, scheme)
    assert (params.scale > 0).all()
    found = np.square((fake_quantize(weight, params) - weight).astype(float)).sum()
    peak = np.abs(weight) if isinstance(granularity, PerTensor) else np.abs(weight).astype(float)
    axes = None if isinstance(granularity, PerTensor) else (1 - granularity.axis,)
    scale = peak.max(axis=axes, keepdims=True).astype(float) / scheme.qmax
    plain = np.square(np.rint(weight / scale) * scale - weight).sum()
    assert found <= plain * (1 + 1e-3)


def test_channels_of_zeros() -> None:
    weight = normal(0, 3, 4)
    weight[1] = 0
    params = rounded_params(weight, replace(WEIGHT_INT8, granularity=PerAxis(0)))
    assert np.isfinite(params.scale).all()
    assert not fake_quantize(weight, params)[1].any()


def test_rows_of_a_table() -> None:
    table = normal(0, 8, 5)
    table[3] = 0
    params = row_params(table, replace(WEIGHT_INT8, granularity=PerAxis(0)))
    expected = np.abs(table).max(axis=1) / np.float32(127)
    expected[3] = 1
    np.testing.assert_allclose(params.scale, expected, rtol=1e-6)
