"""The error of a whole quantized model, against numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from onnxq.passes.execute import execute
from onnxq.stages.trial import whole_model_error
from tests.given_stats import plan_for
from tests.small_models import Feeds, normal, normalized, run, source

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
