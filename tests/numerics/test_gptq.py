"""GPTQ against the formula of its paper in float64, and what it is for."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq.errors import InternalError
from onnxq.numerics.blockwise import minmax_params, output_error, steps, times_scales
from onnxq.numerics.gptq import compensation, gptq_steps
from tests.numerics import references


def layer(seed: int, rows: int, columns: int, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """A weight ``[N, K]`` and correlated activations ``[tokens, K]``, channels of unlike size."""
    random = np.random.default_rng(seed)
    weight = random.normal(size=(rows, columns)).astype(np.float32)
    mixing = random.normal(size=(columns, columns)) / np.sqrt(columns) + np.eye(columns)
    sizes = np.exp(random.normal(size=columns))
    return weight, (random.normal(size=(tokens, columns)) @ mixing * sizes).astype(np.float32)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("bits", "size", "columns"), [(4, 16, 48), (4, 16, 40), (2, 32, 32)])
def test_rounds_as_the_formula_in_float64(
    bits: int, size: int, columns: int, *, symmetric: bool
) -> None:
    weight, activations = layer(bits + columns, 12, columns, 200)
    scheme = references.scheme(bits, size, symmetric=symmetric)
    params = minmax_params(weight, scheme)
    gram = activations.T @ activations
    found = gptq_steps(weight, params, compensation(gram, 0.01))
    expected = references.gptq(
        weight.astype(np.float64),
        activations.astype(np.float64),
        params.scale.astype(np.float64),
        params.zero_point.astype(np.float64),
        (bits, size, 0.01),
    )
    got = times_scales(found.copy(), params)
    # One element at a rounding boundary sends float32 and float64 apart in the rest of its row.
    same = np.isclose(got, expected, rtol=1e-5, atol=1e-6).all(axis=1)
    assert same.mean() >= 0.9
    ours, theirs = (
        output_error(got - weight, gram),
        output_error((expected - weight).astype(np.float32), gram),
    )
    assert ours == pytest.approx(theirs, rel=0.02)


def test_many_columns_are_rounded_as_one_group_of_them_would_be() -> None:
    weight, activations = layer(5, 6, 300, 900)
    params = minmax_params(weight, references.scheme(4, 32))
    found = gptq_steps(weight, params, compensation(activations.T @ activations, 0.01))
    expected = references.gptq(
        weight.astype(np.float64),
        activations.astype(np.float64),
        params.scale.astype(np.float64),
        params.zero_point.astype(np.float64),
        (4, 32, 0.01),
    )
    got = times_scales(found, params)
    assert np.isclose(got, expected, rtol=1e-5, atol=1e-6).all(axis=1).mean() >= 0.5
    gram = activations.T @ activations
    ours = output_error(got - weight, gram)
    assert ours == pytest.approx(
        output_error((expected - weight).astype(np.float32), gram), rel=0.02
    )


def test_errs_less_than_rounding_to_the_nearest() -> None:
    weight, activations = layer(3, 64, 96, 500)
    gram = activations.T @ activations
    params = minmax_params(weight, references.scheme(4, 32))
    nearest = times_scales(steps(weight, params), params)
    compensated = times_scales(gptq_steps(weight, params, compensation(gram, 0.01)), params)
    assert output_error(compensated - weight, gram) < 0.7 * output_error(nearest - weight, gram)


def test_independent_channels_are_rounded_to_the_nearest() -> None:
    weight, _ = layer(4, 8, 64, 1)
    params = minmax_params(weight, references.scheme(4, 32))
    gram = np.diag(np.linspace(1, 3, 64, dtype=np.float32))
    found = gptq_steps(weight, params, compensation(gram, 0.01))
    np.testing.assert_array_equal(found, steps(weight, params))


def test_activations_of_lower_rank_than_channels_and_dead_ones() -> None:
    weight, activations = layer(6, 8, 64, 5)
    activations[:, 7] = 0
    params = minmax_params(weight, references.scheme(4, 32))
    how = compensation(activations.T @ activations, 1e-8)
    assert np.isfinite(gptq_steps(weight, params, how)).all()
    assert np.isfinite(
        gptq_steps(weight, params, compensation(np.zeros((64, 64), np.float32), 0.01))
    ).all()


def test_a_gram_matrix_that_is_not_finite_is_refused() -> None:
    with pytest.raises(InternalError, match="not finite"):
        compensation(np.full((4, 4), np.nan, np.float32), 0.01)


def test_a_shrunk_hessian_rounds_as_the_formula_with_that_hessian() -> None:
    weight, activations = layer(8, 10, 48, 200)
    params = minmax_params(weight, references.scheme(4, 16))
    gram = activations.T @ activations
    expected = references.gptq(
        weight.astype(np.float64),
        activations.astype(np.float64),
        params.scale.astype(np.float64),
        params.zero_point.astype(np.float64),
        (4, 16, 0.03),
        0.6,
    )
    got = times_scales(gptq_steps(weight, params, compensation(gram, 0.03, 0.6)), params)
    assert np.isclose(got, expected, rtol=1e-5, atol=1e-6).all(axis=1).mean() >= 0.8
