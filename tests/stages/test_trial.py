"""The error of a whole quantized model, against numpy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from onnxq.passes.execute import execute
from onnxq.stages.trial import trials
from tests.given_stats import plan_for
from tests.small_models import Feeds, normal, normalized, run, source

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxq.data import DataSource
    from onnxq.plan import Plan


def whole_model_error(model: ir.Model, plan: Plan, data: DataSource) -> float:
    with trials(model, data) as error:
        return error(plan)


GRAPH = """g (float[N, 8] x) => (float[N, 6] y, float[N, 6] z) {
    y = MatMul(x, w)
    z = Exp(y)
}"""


def test_noise_over_signal_of_the_first_output_pooled_over_samples() -> None:
    model = normalized(GRAPH, w=normal(0, 8, 6))
    plan = plan_for(model, {"x": (-1.0, 1.0)})
    samples: list[Feeds] = [{"x": normal(i, 3 + i, 8) * np.float32(i + 1)} for i in range(3)]
    signal = noise = 0.0
    for feeds in samples:
        expected = run(model, feeds)[0].astype(float)
        signal += np.square(expected).sum()
        noise += np.square(run(execute(plan, model), feeds)[0] - expected).sum()
    found = whole_model_error(model, plan, source(model, samples))
    assert found == pytest.approx(noise / signal, rel=1e-5)
    assert 0.01 < found < 1


def _error(outputs: str, nodes: str, reach: float = 1.0) -> float:
    text = f"g (float[N, 8] x) => ({outputs}) {{ m = MatMul(x, w) {nodes} }}"
    model = normalized(text, w=normal(0, 8, 6))
    samples: list[Feeds] = [{"x": normal(1, 30, 8)}]
    return whole_model_error(model, plan_for(model, {"x": (-reach, reach)}), source(model, samples))


def test_classes_alone_are_judged_by_how_many_differ() -> None:
    """With a wider range than the data's, and a far too narrow one."""
    classes = ("int64[N] y", "y = ArgMax<axis = -1, keepdims = 0>(m)")
    fine, coarse = _error(*classes, reach=4.0), _error(*classes, reach=0.01)
    assert 0 <= fine < coarse < 1
    assert coarse * 30 == pytest.approx(round(coarse * 30))


def test_what_cannot_be_compared_is_not_perfect() -> None:
    """All of the float model's output is NaN; there is nothing to measure."""
    nodes = "a = Abs(m) one = Constant<value = float {1.0}>() b = Add(a, one) c = Neg(b) y = Log(c)"
    assert _error("float[N, 6] y", nodes) == math.inf


def test_a_result_that_is_not_finite_is_the_worst() -> None:
    """Rounded to zero, the divisor makes the output infinite."""
    text = """g (float[N, 8] x) => (float[N, 6] y) {
        m = MatMul(x, w)
        y = Reciprocal(m)
    }"""
    model = normalized(text, w=normal(0, 8, 6))
    plan = plan_for(model, {"x": (-1e6, 1e6)})
    samples: list[Feeds] = [{"x": normal(1, 3, 8)}]
    assert whole_model_error(model, plan, source(model, samples)) == math.inf
    fine = plan_for(model, {"x": (-3.0, 3.0)})
    assert whole_model_error(model, fine, source(model, samples)) < 1
