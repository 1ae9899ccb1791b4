"""Golden graphs: plans from given statistics, executed. Shapes only; numbers have their own tests.

Each line is ``Op(inputs) -> outputs``. ``plan_for`` refuses ranges that nobody asks for and misses
those that somebody does, so the ranges say which tensors have a scale of their own.
"""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

import numpy as np

from onnxq.algorithms import lookup_tables
from onnxq.passes.execute import execute
from tests.given_stats import plan_for
from tests.small_models import graph_text, normal, normalized

if TYPE_CHECKING:
    import pytest

Ranges = dict[str, tuple[float, float]]
TO = np.asarray([0, 64])
ZERO, SIX = np.asarray(0, np.float32), np.asarray(6, np.float32)


def quantized(graph: str, ranges: Ranges, **shapes: tuple[int, ...]) -> str:
    """The graph of the quantized model; weights are random in the given shapes."""
    weights = {name: normal(seed, *shape) for seed, (name, shape) in enumerate(shapes.items())}
    constants = {"to": TO, "zero": ZERO, "six": SIX}
    used = {
        name: value
        for name, value in constants.items()
        if f", {name})" in graph or f", {name}," in graph
    }
    model = normalized(graph, **weights, **used)
    return graph_text(execute(plan_for(model, ranges), model))


def text(lines: str) -> str:
    return dedent(lines).strip()


def test_conv_relu_conv() -> None:
    """The Relu is gone, its quantizer saturates where it would; the last Conv needs one too."""
    found = quantized(
        """
        g (float[N, 3, 8, 8] x) => (float[N, 2, 6, 6] y) {
            c = Conv(x, w1, b1)
            r = Relu(c)
            d = Conv(r, w2)
            y = Sigmoid(d)
        }
        """,
        {"x": (-1, 1), "r": (0, 4), "d": (-3, 3)},
        w1=(4, 3, 3, 3),
        b1=(4,),
        w2=(2, 4, 1, 1),
    )
    expected = """
        QuantizeLinear(x, x_scale, x_zero_point) -> x_quantized
        DequantizeLinear(x_quantized, x_scale, x_zero_point) -> x_dequantized
        DequantizeLinear(w2_quantized, w2_scale, w2_zero_point) -> w2_dequantized
        DequantizeLinear(w1_quantized, w1_scale, w1_zero_point) -> w1_dequantized
        DequantizeLinear(b1_quantized, b1_scale, b1_zero_point) -> b1_dequantized
        Conv(x_dequantized, w1_dequantized, b1_dequantized) -> r
        QuantizeLinear(r, r_scale, r_zero_point) -> r_quantized
        DequantizeLinear(r_quantized, r_scale, r_zero_point) -> r_dequantized
        Conv(r_dequantized, w2_dequantized) -> d
        QuantizeLinear(d, d_scale, d_zero_point) -> d_quantized
        DequantizeLinear(d_quantized, d_scale, d_zero_point) -> d_dequantized
        Sigmoid(d_dequantized) -> y
        """
    assert found == text(expected)


def test_residual_add() -> None:
    """The Add joins: its inputs are quantized anyway and so is its only reader."""
    found = quantized(
        """
        g (float[N, 4, 8, 8] x) => (float[N, 4, 8, 8] y) {
            a = Conv(x, w1)
            b = Conv(a, w2)
            s = Add(a, b)
            c = Conv(s, w3)
            y = Tanh(c)
        }
        """,
        {"x": (-1, 1), "a": (-2, 2), "b": (-3, 3), "s": (-5, 5), "c": (-1, 1)},
        w1=(4, 4, 1, 1),
        w2=(2, 4, 1, 1),
        w3=(3, 4, 1, 1),
    )
    expected = """
        QuantizeLinear(x, x_scale, x_zero_point) -> x_quantized
        DequantizeLinear(x_quantized, x_scale, x_zero_point) -> x_dequantized
        DequantizeLinear(w3_quantized, w3_scale, w3_zero_point) -> w3_dequantized
        DequantizeLinear(w2_quantized, w2_scale, w2_zero_point) -> w2_dequantized
        DequantizeLinear(w1_quantized, w1_scale, w1_zero_point) -> w1_dequantized
        Conv(x_dequantized, w1_dequantized) -> a
        QuantizeLinear(a, a_scale, a_zero_point) -> a_quantized
        DequantizeLinear(a_quantized, a_scale, a_zero_point) -> a_dequantized
        Conv(a_dequantized, w2_dequantized) -> b
        QuantizeLinear(b, b_scale, b_zero_point) -> b_quantized
        DequantizeLinear(b_quantized, b_scale, b_zero_point) -> b_dequantized
        Add(a_dequantized, b_dequantized) -> s
        QuantizeLinear(s, s_scale, s_zero_point) -> s_quantized
        DequantizeLinear(s_quantized, s_scale, s_zero_point) -> s_dequantized
        Conv(s_dequantized, w3_dequantized) -> c
        QuantizeLinear(c, c_scale, c_zero_point) -> c_quantized
        DequantizeLinear(c_quantized, c_scale, c_zero_point) -> c_dequantized
        Tanh(c_dequantized) -> y
        """
    assert found == text(expected)


def test_pool_and_reshape() -> None:
    """What only moves data has the scale of its input: p and q have no range of their own."""
    found = quantized(
        """
        g (float[N, 4, 8, 8] x) => (float[N, 5] y) {
            a = Conv(x, w1)
            p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(a)
            q = Reshape(p, to)
            y = Gemm(q, w2, b)
        }
        """,
        {"x": (-1, 1), "a": (-2, 2)},
        w1=(4, 4, 1, 1),
        w2=(64, 5),
        b=(5,),
    )
    expected = """
        QuantizeLinear(x, x_scale, x_zero_point) -> x_quantized
        DequantizeLinear(x_quantized, x_scale, x_zero_point) -> x_dequantized
        DequantizeLinear(w2_quantized, w2_scale, w2_zero_point) -> w2_dequantized
        DequantizeLinear(w1_quantized, w1_scale, w1_zero_point) -> w1_dequantized
        DequantizeLinear(b_quantized, b_scale, b_zero_point) -> b_dequantized
        Conv(x_dequantized, w1_dequantized) -> a
        QuantizeLinear(a, a_scale, a_zero_point) -> a_quantized
        DequantizeLinear(a_quantized, a_scale, a_zero_point) -> a_dequantized
        MaxPool(a_dequantized) -> p
        QuantizeLinear(p, p_scale, p_zero_point) -> p_quantized
        DequantizeLinear(p_quantized, p_scale, p_zero_point) -> p_dequantized
        Reshape(p_dequantized, to) -> q
        QuantizeLinear(q, q_scale, q_zero_point) -> q_quantized
        DequantizeLinear(q_quantized, q_scale, q_zero_point) -> q_dequantized
        Gemm(q_dequantized, w2_dequantized, b_dequantized) -> y
        """
    assert found == text(expected)


def test_float_residual() -> None:
    """The MatMul's output stays float, and the residual reads t itself."""
    found = quantized(
        """
        g (float[N, 4] x) => (float[N, 4] y) {
            h = MatMul(x, w)
            t = Tanh(h)
            u = MatMul(t, v)
            y = Add(t, u)
        }
        """,
        {"x": (-1, 1), "t": (-1, 1)},
        w=(4, 4),
        v=(4, 3),
    )
    expected = """
        QuantizeLinear(x, x_scale, x_zero_point) -> x_quantized
        DequantizeLinear(x_quantized, x_scale, x_zero_point) -> x_dequantized
        DequantizeLinear(v_quantized, v_scale, v_zero_point) -> v_dequantized
        DequantizeLinear(w_quantized, w_scale, w_zero_point) -> w_dequantized
        MatMul(x_dequantized, w_dequantized) -> h
        Tanh(h) -> t
        QuantizeLinear(t, t_scale, t_zero_point) -> t_quantized
        DequantizeLinear(t_quantized, t_scale, t_zero_point) -> t_dequantized
        MatMul(t_dequantized, v_dequantized) -> u
        Add(t, u) -> y
        """
    assert found == text(expected)


def test_embedding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are looked up as integers and multiplied by the rows' scales."""
    monkeypatch.setattr(lookup_tables, "_SMALL_TABLE", 0)
    found = quantized(
        """
        g (int64[N, L] i) => (float[N, L, 4] y) {
            e = Gather(t, i)
            n = Tanh(e)
            y = MatMul(n, w)
        }
        """,
        {"n": (-1, 1)},
        t=(10, 4),
        w=(4, 4),
    )
    expected = """
        DequantizeLinear(w_quantized, w_scale, w_zero_point) -> w_dequantized
        Gather(t_quantized, i) -> e_rows
        Gather(t_scale, i) -> e_scale
        Cast(e_rows) -> e_cast
        Mul(e_cast, e_scale) -> e
        Tanh(e) -> n
        QuantizeLinear(n, n_scale, n_zero_point) -> n_quantized
        DequantizeLinear(n_quantized, n_scale, n_zero_point) -> n_dequantized
        MatMul(n_dequantized, w_dequantized) -> y
        """
    assert found == text(expected)


def test_gemm_with_bias() -> None:
    """The bias is int32 behind a DequantizeLinear; nothing but x needs a range."""
    found = quantized(
        """
        g (float[N, 4] x) => (float[N, 6] y) {
            y = Gemm<transB = 1>(x, w, b)
        }
        """,
        {"x": (-1, 1)},
        w=(6, 4),
        b=(6,),
    )
    expected = """
        QuantizeLinear(x, x_scale, x_zero_point) -> x_quantized
        DequantizeLinear(x_quantized, x_scale, x_zero_point) -> x_dequantized
        DequantizeLinear(w_quantized, w_scale, w_zero_point) -> w_dequantized
        DequantizeLinear(b_quantized, b_scale, b_zero_point) -> b_dequantized
        Gemm(x_dequantized, w_dequantized, b_dequantized) -> y
        """
    assert found == text(expected)


def test_two_readers_of_one_tensor() -> None:
    """One Q/DQ pair serves both."""
    found = quantized(
        """
        g (float[N, 4] x) => (float[N, 4] y) {
            q = MatMul(x, w)
            k = MatMul(x, v)
            y = Mul(q, k)
        }
        """,
        {"x": (-1, 1)},
        w=(4, 4),
        v=(4, 1),
    )
    expected = """
        QuantizeLinear(x, x_scale, x_zero_point) -> x_quantized
        DequantizeLinear(x_quantized, x_scale, x_zero_point) -> x_dequantized
        DequantizeLinear(v_quantized, v_scale, v_zero_point) -> v_dequantized
        DequantizeLinear(w_quantized, w_scale, w_zero_point) -> w_dequantized
        MatMul(x_dequantized, w_dequantized) -> q
        MatMul(x_dequantized, v_dequantized) -> k
        Mul(q, k) -> y
        """
    assert found == text(expected)


def test_one_weight_read_twice() -> None:
    """It is stored once, with one DequantizeLinear."""
    found = quantized(
        """
        g (float[N, 4] x) => (float[N, 4] y) {
            q = MatMul(x, w)
            t = Tanh(q)
            y = MatMul(t, w)
        }
        """,
        {"x": (-1, 1), "t": (-1, 1)},
        w=(4, 4),
    )
    expected = """
        QuantizeLinear(x, x_scale, x_zero_point) -> x_quantized
        DequantizeLinear(x_quantized, x_scale, x_zero_point) -> x_dequantized
        DequantizeLinear(w_quantized, w_scale, w_zero_point) -> w_dequantized
        MatMul(x_dequantized, w_dequantized) -> q
        Tanh(q) -> t
        QuantizeLinear(t, t_scale, t_zero_point) -> t_quantized
        DequantizeLinear(t_quantized, t_scale, t_zero_point) -> t_dequantized
        MatMul(t_dequantized, w_dequantized) -> y
        """
    assert found == text(expected)


def test_concat() -> None:
    """Each input keeps a scale of its own."""
    found = quantized(
        """
        g (float[N, 4, 8, 8] x) => (float[N, 2, 8, 8] y) {
            a = Conv(x, w1)
            b = Conv(x, w2)
            c = Concat<axis = 1>(a, b)
            d = Conv(c, w3)
            y = Tanh(d)
        }
        """,
        {"x": (-1, 1), "a": (-2, 2), "b": (-3, 3), "c": (-3, 3), "d": (0, 1)},
        w1=(4, 4, 1, 1),
        w2=(3, 4, 1, 1),
        w3=(2, 7, 1, 1),
    )
    expected = """
        QuantizeLinear(x, x_scale, x_zero_point) -> x_quantized
        DequantizeLinear(x_quantized, x_scale, x_zero_point) -> x_dequantized
        DequantizeLinear(w3_quantized, w3_scale, w3_zero_point) -> w3_dequantized
        DequantizeLinear(w2_quantized, w2_scale, w2_zero_point) -> w2_dequantized
        DequantizeLinear(w1_quantized, w1_scale, w1_zero_point) -> w1_dequantized
        Conv(x_dequantized, w1_dequantized) -> a
        QuantizeLinear(a, a_scale, a_zero_point) -> a_quantized
        DequantizeLinear(a_quantized, a_scale, a_zero_point) -> a_dequantized
        Conv(x_dequantized, w2_dequantized) -> b
        QuantizeLinear(b, b_scale, b_zero_point) -> b_quantized
        DequantizeLinear(b_quantized, b_scale, b_zero_point) -> b_dequantized
        Concat(a_dequantized, b_dequantized) -> c
        QuantizeLinear(c, c_scale, c_zero_point) -> c_quantized
        DequantizeLinear(c_quantized, c_scale, c_zero_point) -> c_dequantized
        Conv(c_dequantized, w3_dequantized) -> d
        QuantizeLinear(d, d_scale, d_zero_point) -> d_quantized
        DequantizeLinear(d_quantized, d_scale, d_zero_point) -> d_dequantized
        Tanh(d_dequantized) -> y
        """
    assert found == text(expected)


def test_relu_with_a_second_reader() -> None:
    """The absorbed Relu's output is quantized for everybody who reads it."""
    found = quantized(
        """
        g (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y) {
            c = Conv(x, w1)
            r = Relu(c)
            d = Conv(r, w2)
            y = Add(r, d)
        }
        """,
        {"x": (-1, 1), "r": (0, 4), "d": (-3, 3)},
        w1=(4, 3, 1, 1),
        w2=(4, 4, 1, 1),
    )
    expected = """
        QuantizeLinear(x, x_scale, x_zero_point) -> x_quantized
        DequantizeLinear(x_quantized, x_scale, x_zero_point) -> x_dequantized
        DequantizeLinear(w2_quantized, w2_scale, w2_zero_point) -> w2_dequantized
        DequantizeLinear(w1_quantized, w1_scale, w1_zero_point) -> w1_dequantized
        Conv(x_dequantized, w1_dequantized) -> r
        QuantizeLinear(r, r_scale, r_zero_point) -> r_quantized
        DequantizeLinear(r_quantized, r_scale, r_zero_point) -> r_dequantized
        Conv(r_dequantized, w2_dequantized) -> d
        QuantizeLinear(d, d_scale, d_zero_point) -> d_quantized
        DequantizeLinear(d_quantized, d_scale, d_zero_point) -> d_dequantized
        Add(r_dequantized, d_dequantized) -> y
        """
    assert found == text(expected)


def test_relu_that_others_pass_by() -> None:
    """Someone reads c in front of the Relu, which therefore stays."""
    found = quantized(
        """
        g (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y) {
            c = Conv(x, w1)
            r = Relu(c)
            y = Sub(r, c)
        }
        """,
        {"x": (-1, 1), "c": (-4, 4)},
        w1=(4, 3, 1, 1),
    )
    expected = """
        QuantizeLinear(x, x_scale, x_zero_point) -> x_quantized
        DequantizeLinear(x_quantized, x_scale, x_zero_point) -> x_dequantized
        DequantizeLinear(w1_quantized, w1_scale, w1_zero_point) -> w1_dequantized
        Conv(x_dequantized, w1_dequantized) -> c
        QuantizeLinear(c, c_scale, c_zero_point) -> c_quantized
        DequantizeLinear(c_quantized, c_scale, c_zero_point) -> c_dequantized
        Relu(c_dequantized) -> r
        Sub(r, c_dequantized) -> y
        """
    assert found == text(expected)


def test_clip_wider_than_any_range() -> None:
    """A Clip whose bounds hold 0 is absorbed like a Relu."""
    found = quantized(
        """
        g (float[N, 3, 8, 8] x) => (float[N, 2, 8, 8] y) {
            c = Conv(x, w1)
            r = Clip(c, zero, six)
            d = Conv(r, w2)
            y = Tanh(d)
        }
        """,
        {"x": (-1, 1), "r": (0, 6), "d": (-1, 1)},
        w1=(4, 3, 1, 1),
        w2=(2, 4, 1, 1),
    )
    expected = """
        QuantizeLinear(x, x_scale, x_zero_point) -> x_quantized
        DequantizeLinear(x_quantized, x_scale, x_zero_point) -> x_dequantized
        DequantizeLinear(w2_quantized, w2_scale, w2_zero_point) -> w2_dequantized
        DequantizeLinear(w1_quantized, w1_scale, w1_zero_point) -> w1_dequantized
        Conv(x_dequantized, w1_dequantized) -> r
        QuantizeLinear(r, r_scale, r_zero_point) -> r_quantized
        DequantizeLinear(r_quantized, r_scale, r_zero_point) -> r_dequantized
        Conv(r_dequantized, w2_dequantized) -> d
        QuantizeLinear(d, d_scale, d_zero_point) -> d_quantized
        DequantizeLinear(d_quantized, d_scale, d_zero_point) -> d_dequantized
        Tanh(d_dequantized) -> y
        """
    assert found == text(expected)


def test_conv_at_the_output() -> None:
    """It would need a quantized output, which an output of the model must not be."""
    found = quantized(
        """
        g (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y) {
            y = Conv(x, w)
        }
        """,
        {},
        w=(4, 3, 1, 1),
    )
    expected = """
        Conv(x, w) -> y
        """
    assert found == text(expected)
