"""Quantized models against the quantized arithmetic in numpy, float64."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from onnxq.algorithms import lookup_tables
from onnxq.graph.edit import constant_array
from onnxq.numerics.schemes import WEIGHT_INT8
from onnxq.passes.execute import execute
from tests.given_stats import plan_for
from tests.rounded import rounded_to
from tests.small_models import normal, normalized, run

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from onnxq.plan import Plan
    from onnxq.runtime.session import Optimization

LEVELS = ["none", "all"]

GEMM = "g (float[N, 8] x) => (float[N, 6] y) { y = Gemm(x, w, b) }"
GEMM_T = "g (float[N, 8] x) => (float[N, 6] y) { y = Gemm<transB = 1>(x, w, b) }"
MATMUL = "g (float[N, L, 8] x) => (float[N, L, 6] y) { y = MatMul(x, w) }"
EXACT = 2e-5
"""Relative to the greatest output: sums of float32 against sums of float64."""


def activation(plan: Plan, tensor: str, values: NDArray[Any]) -> NDArray[np.float64]:
    """Values through uint8, by the formulas of the operators' specification."""
    entry = next(entry for entry in plan.activations if entry.tensor == tensor)
    coded = np.rint(np.asarray(values, np.float32) / np.float32(entry.scale)) + entry.zero_point
    return np.asarray((np.clip(coded, 0, 255).astype(float) - entry.zero_point) * entry.scale)


def weight(plan: Plan, name: str, values: NDArray[Any], axis: int) -> NDArray[np.float64]:
    """A weight through symmetric integers with one scale for each index along ``axis``."""
    shape = [1] * values.ndim
    shape[axis] = -1
    entry = next(entry for entry in plan.weights if entry.initializer == name)
    scale = plan.arrays[f"weight/{name}/scale"].astype(float).reshape(shape)
    return np.asarray(rounded_to(values, scale, entry.bits, entry.pairs) * scale)


def convolved(x: NDArray[np.float64], w: NDArray[np.float64]) -> NDArray[np.float64]:
    """A convolution without padding, NCHW."""
    windows = sliding_window_view(x, w.shape[2:], axis=(2, 3))
    return np.asarray(np.einsum("nchwij,mcij->nmhw", windows, w))


def integers(model: ir.Model, name: str) -> NDArray[Any]:
    found = constant_array(model.graph.initializers[name])
    assert found is not None
    return found


def assert_close(found: NDArray[Any], expected: NDArray[Any], tolerance: float = EXACT) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def test_scales_are_those_of_the_formulas() -> None:
    w = normal(0, 8, 6)
    plan = plan_for(normalized(GEMM, w=w, b=normal(1, 6)), {"x": (-1.0, 3.0)})
    (entry,) = plan.activations
    assert entry.scale == np.float32(4 / 255)
    assert entry.zero_point == round(255 / 4)
    ratio = plan.arrays["weight/w/scale"] * 127 / np.abs(w).max(axis=0)
    # The search may shrink a channel's range, to 60 % at the least, or widen it for its pairs.
    widest = 2 if plan.weights[0].pairs else 1
    assert ((ratio > 0.6 - 1e-6) & (ratio < widest + 1e-6)).all()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("transposed", [False, True])
def test_gemm_with_bias(transposed: bool, level: Optimization) -> None:
    w, b, x = normal(0, 8, 6), normal(1, 6), normal(2, 50, 8)
    stored = np.ascontiguousarray(w.T) if transposed else w
    model = normalized(GEMM_T if transposed else GEMM, w=stored, b=b)
    plan = plan_for(model, {"x": (-2.0, 2.5)})
    rounded = weight(plan, "w", stored, 0 if transposed else 1)
    unit = np.float64(plan.activations[0].scale) * plan.arrays["weight/w/scale"].astype(float)
    product = activation(plan, "x", x) @ (rounded.T if transposed else rounded)
    expected = product + np.rint(b / unit) * unit
    (found,) = run(execute(plan, model), {"x": x}, level)
    assert_close(found, expected)


@pytest.mark.parametrize("level", LEVELS)
def test_matmul_of_a_batch(level: Optimization) -> None:
    w, x = normal(0, 8, 6), normal(1, 3, 5, 8)
    model = normalized(MATMUL, w=w)
    plan = plan_for(model, {"x": (-2.0, 2.0)})
    expected = activation(plan, "x", x) @ weight(plan, "w", w, 1)
    assert_close(run(execute(plan, model), {"x": x}, level)[0], expected)


@pytest.mark.parametrize("level", LEVELS)
def test_conv_relu_conv(level: Optimization) -> None:
    """A sum that float32 rounds to the other side of a tie differs by one step, seldom."""
    w1, b1, w2 = normal(0, 4, 3, 3, 3), normal(1, 4), normal(2, 5, 4, 1, 1)
    graph = """g (float[N, 3, 12, 12] x) => (float[N, 5, 10, 10] y) {
        c = Conv(x, w1, b1)
        r = Relu(c)
        d = Conv(r, w2)
        y = Identity(d)
        z = Neg(d)
    }"""
    # An Identity would be eliminated and d become the output, so the output is its negative.
    graph = graph.replace("y = Identity(d)\n        z = Neg(d)", "y = Neg(d)")
    model = normalized(graph, w1=w1, b1=b1, w2=w2)
    plan = plan_for(model, {"x": (-2.5, 2.5), "r": (0.0, 9.0), "d": (-12.0, 10.0)})
    x = normal(3, 2, 3, 12, 12)
    unit = np.float64(plan.activations[0].scale) * plan.arrays["weight/w1/scale"].astype(float)
    bias = (np.rint(b1 / unit) * unit)[:, None, None]
    hidden = convolved(activation(plan, "x", x), weight(plan, "w1", w1, 0)) + bias
    second = convolved(activation(plan, "r", np.maximum(hidden, 0)), weight(plan, "w2", w2, 0))
    expected = -activation(plan, "d", second)
    (found,) = run(execute(plan, model), {"x": x}, level)
    step = next(entry.scale for entry in plan.activations if entry.tensor == "d")
    steps = np.abs(found - expected) / step
    assert steps.max() < 2.001
    assert (steps > 1e-3).mean() < 0.01


@pytest.mark.parametrize("level", LEVELS)
def test_embedding(level: Optimization, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup_tables, "_SMALL_TABLE", 0)
    table = normal(0, 20, 16) * np.geomspace(1e-3, 1e3, 20, dtype=np.float32)[:, None]
    graph = "g (int64[N, L] i) => (float[N, L, 16] y) { e = Gather(t, i) y = Neg(e) }"
    model = normalized(graph, t=table)
    quantized = execute(plan_for(model, {}), model)
    index = np.asarray([[0, 3, 19], [-1, 7, 7]])
    (found,) = run(quantized, {"i": index}, level)
    scale = np.abs(table).max(axis=1, keepdims=True).astype(float) / 127
    expected = -(np.rint(table / scale) * scale)[index]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert (np.abs(-found - table[index]) <= scale[index] * 0.5001).all()
    assert integers(quantized, "t_quantized").dtype == np.int8
    assert "t" not in quantized.graph.initializers


@pytest.mark.parametrize("level", LEVELS)
def test_a_bias_beyond_int32_widens_the_weights_scale(level: Optimization) -> None:
    """Without that, 100 in units of about 1e-15 would be 1e17 and saturate near 1e-6."""
    w, x = normal(0, 8, 6) * np.float32(1e-7), normal(1, 10, 8) * np.float32(1e-4)
    b = np.asarray([100.0, -250.0, 1e-12, 0.0, 3.0, -1e-5], np.float32)
    model = normalized(GEMM, w=w, b=b)
    plan = plan_for(model, {"x": (-3e-4, 3e-4)})
    quantized = execute(plan, model)
    assert np.abs(integers(quantized, "b_quantized").astype(np.int64)).max() <= 2**31 - 1
    (found,) = run(quantized, {"x": x}, level)
    expected = x.astype(float) @ w.astype(float) + b
    # What is left is the product's own rounding, about 1 % of 1e-10.
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-11)


@pytest.mark.parametrize("level", LEVELS)
def test_the_bias_of_a_channel_without_weights_is_kept(level: Optimization) -> None:
    """A pruned channel has no range of its own, but its output is its bias."""
    w, x = normal(0, 8, 6), 20 * normal(1, 10, 8)
    w[:, 2] = 0
    b = np.asarray([0.1, -0.2, 0.29, 0.4, 0.0, 0.6], np.float32)
    model = normalized(GEMM, w=w, b=b)
    plan = plan_for(model, {"x": (-50.0, 50.0)})
    (found,) = run(execute(plan, model), {"x": x}, level)
    np.testing.assert_allclose(found[:, 2], b[2], rtol=1e-4)


@pytest.mark.parametrize("level", LEVELS)
def test_a_bias_of_one_element_serves_all_channels(level: Optimization) -> None:
    w, b, x = normal(0, 8, 6), normal(1, 1), normal(2, 10, 8)
    model = normalized(GEMM, w=w, b=b)
    plan = plan_for(model, {"x": (-3.0, 3.0)})
    (found,) = run(execute(plan, model), {"x": x}, level)
    expected = activation(plan, "x", x) @ weight(plan, "w", w, 1) + b
    assert_close(found, expected, 1e-3)


@pytest.mark.parametrize("level", LEVELS)
def test_seven_bits(level: Optimization) -> None:
    w, x = normal(0, 8, 6), normal(1, 4, 5, 8)
    model = normalized(MATMUL, w=w)
    plan = plan_for(model, {"x": (-2.0, 2.0)}, weight=replace(WEIGHT_INT8, bits=7))
    quantized = execute(plan, model)
    assert np.abs(integers(quantized, "w_quantized")).max() == 63
    expected = activation(plan, "x", x) @ weight(plan, "w", w, 1)
    assert_close(run(quantized, {"x": x}, level)[0], expected)


@pytest.mark.parametrize("level", LEVELS)
def test_a_weight_that_two_sites_read(level: Optimization) -> None:
    """Both biases fit, though the activations' scales differ a hundred thousand times."""
    graph = """g (float[N, 6] x) => (float[N, 6] y) {
        h = Gemm(x, w, b1)
        t = Tanh(h)
        y = Gemm(t, w, b2)
    }"""
    w, b1, b2 = normal(0, 6, 6), normal(1, 6), normal(2, 6)
    model = normalized(graph, w=w, b1=b1, b2=b2)
    plan = plan_for(model, {"x": (-3.0, 3.0), "t": (-1.0, 1.0)})
    x = normal(3, 20, 6)
    rounded = weight(plan, "w", w, 1)
    hidden = np.tanh(activation(plan, "x", x) @ rounded + b1)
    expected = activation(plan, "t", hidden) @ rounded + b2
    (found,) = run(execute(plan, model), {"x": x}, level)
    # A tie in t that falls to the other side moves the output by one step of t times a weight.
    step = next(entry.scale for entry in plan.activations if entry.tensor == "t")
    assert np.abs(found - expected).max() <= 2 * step * np.abs(w).max() + 1e-4
    assert np.median(np.abs(found - expected)) < 1e-3
