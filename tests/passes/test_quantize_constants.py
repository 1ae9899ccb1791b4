"""Constants in Add, Sub, Mul and Div: against numpy, in integer kernels, and where they stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from onnxq.algorithms.constants import LEAST_SQNR_DB
from onnxq.graph.io import to_bytes
from onnxq.passes.execute import execute
from onnxq.runtime.kernels import executed
from tests.given_stats import plan_for
from tests.small_models import normal, normalized, run

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxq.plan import Plan

GRAPH = """g (float[N, 4, 6, 6] x) => (float[N, 4, 6, 6] y) {{
    c = Conv(x, w) r = Relu(c) s = {expression} d = Conv(s, w) y = Tanh(d)
}}"""
RANGES = {"x": (-3.0, 3.0), "r": (0.0, 3.0), "s": (-6.0, 6.0), "d": (-6.0, 6.0)}
W = np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1)
CHANNELS = np.asarray([0.5, -1.5, 2.0, 1.0], np.float32).reshape(1, 4, 1, 1)
EXPECTED = {
    "Add(r, k)": ("Add", np.add),
    "Add(k, r)": ("Add", np.add),
    "Sub(r, k)": ("Add", np.subtract),
    "Mul(r, k)": ("Mul", np.multiply),
    "Div(r, k)": ("Mul", np.divide),
}


def plan_of(expression: str, k: NDArray[Any]) -> tuple[Any, Plan]:
    model = normalized(GRAPH.format(expression=expression), w=W, k=np.asarray(k))
    return model, plan_for(model, RANGES)


@pytest.mark.parametrize("level", ["none", "all"])
@pytest.mark.parametrize("expression", EXPECTED)
def test_the_result_is_that_of_the_exact_constant(expression: str, level: Any) -> None:
    """Within the steps of the activations (6/255, 3/255, 12/255 twice) and of the constant."""
    op, function = EXPECTED[expression]
    model, plan = plan_of(expression, CHANNELS)
    (entry,) = plan.constants
    assert (entry.op, entry.initializer) == (op, "k")
    x = np.clip(normal(1, 2, 4, 6, 6), -2.9, 2.9)
    exact = np.tanh(function(np.maximum(x, 0).astype(float), CHANNELS.astype(float)))
    (found,) = run(execute(plan, model), {"x": x}, level)
    assert np.abs(found - exact).max() < 0.15
    assert np.sqrt(np.mean(np.square(found - exact))) < 0.03


@pytest.mark.parametrize("k", [CHANNELS, np.float32(1.5), normal(2, 4, 6, 6)])
@pytest.mark.parametrize("expression", ["Add(r, k)", "Sub(r, k)", "Mul(k, r)"])
def test_they_run_in_integers(tmp_path: Path, expression: str, k: NDArray[Any]) -> None:
    model, plan = plan_of(expression, k)
    path = tmp_path / "m.onnx"
    path.write_bytes(to_bytes(execute(plan, model)))
    ops = [node.op for node in executed(path, "cpu")]
    assert ops.count("QLinearConv") == 2
    assert f"QLinear{plan.constants[0].op}" in ops


@pytest.mark.parametrize(
    ("expression", "k"),
    [
        ("Sub(k, r)", CHANNELS),
        ("Div(k, r)", CHANNELS),
        ("Div(r, k)", np.float32(0)),
        ("Add(r, k)", np.asarray([1, np.nan, 1, 1], np.float32).reshape(4, 1, 1)),
        ("Add(r, k)", np.asarray([1, -np.inf, 1, 1], np.float32).reshape(4, 1, 1)),
    ],
)
def test_they_stay_float(expression: str, k: NDArray[Any]) -> None:
    _, plan = plan_of(expression, k)
    assert plan.constants == ()
    assert [entry.op for entry in plan.sites if entry.decision == "int8"] == ["Conv", "Conv"]


def test_a_constant_of_a_wide_range_stays_float() -> None:
    """Most of its values are a thousand times smaller than its greatest, and would be lost."""
    k = normal(3, 64, 1, 1) * np.float32(1e-3)
    k[0] = 1.0
    text = GRAPH.replace("4", "64").format(expression="Mul(r, k)")
    wide = normalized(text, w=np.eye(64, dtype=np.float32).reshape(64, 64, 1, 1), k=k)
    error = np.square(k[1:] - 0).sum() / np.square(k).sum()
    kept = plan_for(wide, RANGES).constants
    assert bool(kept) == (-10 * np.log10(error) > LEAST_SQNR_DB)
    mixed = k.copy()
    mixed[1:] *= 20
    wide = normalized(text, w=np.eye(64, dtype=np.float32).reshape(64, 64, 1, 1), k=mixed)
    assert plan_for(wide, RANGES).constants


def test_nodes_that_share_a_constant() -> None:
    text = """g (float[N, 4, 6, 6] x) => (float[N, 4, 6, 6] y) {
        c = Conv(x, w) r = Relu(c) s = Add(r, k) d = Conv(s, w) q = Relu(d)
        t = Add(q, k) e = Conv(t, w) z = Relu(e) u = Sub(z, k) f = Conv(u, w) y = Tanh(f)
    }"""
    model = normalized(text, w=W, k=CHANNELS)
    names = ("x", "r", "s", "q", "t", "z", "u", "f")
    ranges = {n: (0.0 if n in "rqz" else -8.0, 8.0) for n in names}
    plan = plan_for(model, ranges)
    assert [entry.form for entry in plan.constants] == ["same", "same", "negated"]
    result = execute(plan, model)
    stored = [name for name in result.graph.initializers if name.startswith("k")]
    assert len(stored) == 6
    assert "k" not in stored
    x = normal(5, 1, 4, 6, 6)
    exact = run(model, {"x": x})[0]
    assert np.abs(run(result, {"x": x})[0] - exact).max() < 0.25
