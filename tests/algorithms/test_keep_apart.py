"""Which Adds are kept apart from the LayerNormalization behind them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest

from onnxq.algorithms.keep_apart import SKIP_NORM, find_kept_apart, find_uncovered
from onnxq.algorithms.selection import QuantizedTensor, Selection, select
from onnxq.graph.sites import find_sites
from onnxq.pipeline import RunOptions, quantize
from onnxq.recipe import Recipe
from onnxq.targets import load_target
from tests.given_stats import plan_for
from tests.small_models import Feeds, normal, normalized, run, write

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

RESIDUAL = """
    h = MatMul(x, w)
    s = Add(h, x)
    n = LayerNormalization(s, scale, bias)
    y = MatMul(n, v)
"""
WEIGHTS: dict[str, NDArray[Any]] = {
    "w": normal(0, 8, 8),
    "v": normal(1, 8, 8),
    "scale": normal(2, 8),
    "bias": normal(3, 8),
    "low": np.array(-0.5, np.float32),
    "high": np.array(1.5, np.float32),
}


def kept(body: str, keep_apart: tuple[str, ...] = (SKIP_NORM,)) -> list[str]:
    """Outputs of the Adds that are kept apart for a target that says ``keep_apart``."""
    target = replace(load_target("cpu"), keep_apart=keep_apart)
    used = {name: value for name, value in WEIGHTS.items() if name in body}
    used |= {"k": np.ones(8, np.float32)} if "Add(h, k)" in body or "Add(k, h)" in body else {}
    model = normalized(f"g (float[N, 8] x) => (float[N, 8] y) {{ {body} }}", **used)
    outputs = {node.name: node.outputs[0].name or "" for node in model.graph}
    found = find_kept_apart(model, select(model, find_sites(model), target, {}), target)
    assert {entry.op for entry in found} <= {"Sum"}
    return [outputs[entry.node] for entry in found]


def test_a_residual_in_front_of_its_norm() -> None:
    assert kept(RESIDUAL) == ["s"]


def test_only_where_the_target_says_so() -> None:
    assert load_target("cpu").keep_apart == (SKIP_NORM,)
    assert kept(RESIDUAL, keep_apart=()) == []
    assert kept(RESIDUAL, keep_apart=("SomethingElse",)) == []


@pytest.mark.parametrize(
    "body",
    [
        RESIDUAL.replace("Add(h, x)", "Add(h, k)"),
        RESIDUAL.replace("Add(h, x)", "Add(k, h)"),
        RESIDUAL.replace("Add(h, x)", "Sub(h, x)"),
        RESIDUAL.replace("LayerNormalization(s, scale, bias)", "Tanh(s)"),
        RESIDUAL.replace("LayerNormalization(s, scale, bias)", "LayerNormalization(x, s, s)"),
    ],
    ids=["constant second", "constant first", "no Add", "no norm", "not the norm's data"],
)
def test_what_is_no_residual_stays(body: str) -> None:
    assert kept(body) == []


def test_an_add_that_somebody_else_reads_too() -> None:
    """The fused kernel hands the sum on as well, so it is fused all the same."""
    assert kept(RESIDUAL.replace("y = MatMul(n, v)", "m = MatMul(n, v) y = Add(m, s)")) == ["s"]


def test_an_add_that_runs_in_integers_stays_an_add() -> None:
    """One whose output an integer kernel makes; that it reads what is quantized is not enough."""
    model = normalized(f"g (float[N, 8] x) => (float[N, 8] y) {{ {RESIDUAL} }}", **WEIGHTS)
    (add,) = (node.name or "" for node in model.graph if node.op_type == "Add")
    read = (QuantizedTensor("x", "x", [(add, 1)]),)
    target = load_target("cpu")
    assert find_kept_apart(model, Selection((), read, {}, frozenset({"s"})), target) == ()
    assert len(find_kept_apart(model, Selection((), read, {}, frozenset({"h"})), target)) == 1


def test_a_float_add_between_quantized_readers_is_kept_apart() -> None:
    """``t`` reads the quantized ``c``, and runs in float all the same; ``s`` is an integer Add."""
    body = """
        a = Conv(x, w) b = Conv(a, w2) s = Add(a, b) c = Conv(s, w3)
        t = Add(c, x) y = LayerNormalization(t, scale)
    """
    image = "float[N, 4, 8, 8]"
    model = normalized(
        f"g ({image} x) => ({image} y) {{ {body} }}",
        **{name: normal(seed, 4, 4, 1, 1) for seed, name in enumerate(("w", "w2", "w3"))},
        scale=normal(9, 8),
    )
    target = load_target("cpu")
    selection = select(model, find_sites(model), target, {})
    adds = {node.outputs[0].name: node.name for node in model.graph if node.op_type == "Add"}
    readers = {node for tensor in selection.tensors for node, _ in tensor.readers}
    assert {adds["s"], adds["t"]} <= readers
    assert "s" in selection.made
    found = find_kept_apart(model, selection, target)
    assert [entry.node for entry in found] == [adds["t"]]


def test_half_precision_is_left_alone() -> None:
    text = """g (float16[N, 8] x, float16[8] k) => (float16[N, 8] y) {
        s = Add(x, x)
        y = LayerNormalization(s, k)
    }"""
    model = normalized(text)
    target = load_target("cpu")
    assert find_kept_apart(model, select(model, find_sites(model), target, {}), target) == ()


PRODUCTS = {
    "relu": "h = {op} r = Relu(h) y = Tanh(r)",
    "two relus": "h = {op} r = Relu(h) s = Relu(r) y = Neg(s)",
    "last": "h = {op} y = Relu(h)",
    "absorbed": "h = {op} r = Relu(h) y = MatMul(r, v)",
    "residual": "h = {op} t = Tanh(x) y = Add(t, h)",
    "biased": "h = {op} a = Add(h, bias) r = Relu(a) y = Tanh(r)",
    "residual behind": "h = {op} t = Tanh(x) s = Add(h, t) y = Neg(s)",
    "clip": "h = {op} r = Clip(h, low, high) y = Tanh(r)",
    "clip without an upper bound": "h = {op} r = Clip(h, low) y = Tanh(r)",
    "clip last": "h = {op} y = Clip(h, low, high)",
    "clip absorbed": "h = {op} r = Clip(h, low, high) y = MatMul(r, v)",
    "clip, two readers": "h = {op} r = Clip(h, low, high) t = Tanh(r) m = MatMul(r, v)"
    " y = Add(t, m)",
    "biased, clip": "h = {op} a = Add(h, bias) r = Clip(a, low, high) y = Tanh(r)",
    "two readers": "h = {op} t = Tanh(h) m = MatMul(h, v) y = Add(t, m)",
    "biased, two readers": "h = {op} a = Add(h, bias) t = Tanh(a) m = MatMul(a, v) y = Add(t, m)",
    "relu, two readers": "h = {op} r = Relu(h) t = Tanh(r) m = MatMul(r, v) y = Add(t, m)",
}


@pytest.mark.parametrize("op", ["MatMul(x, w)", "Gemm(x, w)", "Gemm(x, w, bias)"])
@pytest.mark.parametrize("form", PRODUCTS)
def test_products_run_in_integers_whatever_stands_behind_them(
    tmp_path: Path, op: str, form: str
) -> None:
    """Without the rewriting ONNX Runtime leaves some of them in float, and the report says so."""
    body = PRODUCTS[form].format(op=op)
    used = {name: value for name, value in WEIGHTS.items() if f" {name}" in body}
    model = write(tmp_path / "m.onnx", f"g (float[N, 8] x) => (float[N, 8] y) {{ {body} }}", **used)
    samples: list[Feeds] = [{"x": normal(20 + seed, 16, 8)} for seed in range(8)]
    recipe, options = Recipe(scheme="int8"), RunOptions(timing=None)
    result = quantize(model, samples, tmp_path / "o.onnx", recipe=recipe, options=options)
    assert result.verification is not None
    kernels = result.verification.kernels
    assert (kernels.missed, kernels.integer) == ((), kernels.planned)
    for feeds in samples:
        expected, found = run(model, feeds)[0], run(tmp_path / "o.onnx", feeds)[0]
        assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


@pytest.mark.parametrize("kind", ["qdq", "qoperator"])
@pytest.mark.parametrize("op", ["MatMul(x, w)", "Gemm(x, w, bias)"])
def test_a_product_that_is_an_output_too(
    tmp_path: Path, op: str, kind: Literal["qdq", "qoperator"]
) -> None:
    """The output keeps its name; a body that reads it reads the same."""
    text = f"""g (float[N, 8] x, bool c) => (float[N, 8] h, float[N, 8] y) {{
        h = {op} m = MatMul(h, v) k = If (c) <
            then_branch = a () => (float[N, 8] p) {{ p = Tanh(h) }},
            else_branch = b () => (float[N, 8] q) {{ q = Neg(h) }}
        > y = Add(m, k)
    }}"""
    used = {name: WEIGHTS[name] for name in ("w", "v", "bias") if name in text}
    model = write(tmp_path / "m.onnx", text, **used)
    samples: list[Feeds] = [
        {"x": normal(20 + seed, 16, 8), "c": np.array(seed % 2 == 0)} for seed in range(8)
    ]
    recipe = Recipe(scheme="int8", format=kind, channel_scaling="off")
    output, options = tmp_path / "o.onnx", RunOptions(timing=None)
    result = quantize(model, samples, output, recipe=recipe, options=options)
    assert [entry.op for entry in result.plan.kept_apart] == ["Copy", "Sum"]
    assert result.verification is not None
    assert (result.verification.kernels.integer, result.verification.kernels.missed) == (2, ())
    for feeds in samples:
        for expected, found in zip(run(model, feeds), run(output, feeds), strict=True):
            assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


def test_a_gemm_that_would_take_a_sum_for_its_bias_is_left_alone() -> None:
    """One of the two is float in any case: ONNX Runtime merges the Add into either."""
    body = "h = Gemm(x, w) p = MatMul(x, v) s = Add(h, p) y = Neg(s)"
    used = {"w": WEIGHTS["w"], "v": WEIGHTS["v"]}
    model = normalized(f"g (float[N, 8] x) => (float[N, 8] y) {{ {body} }}", **used)
    target = load_target("cpu")
    selection = select(model, find_sites(model), target, {})
    plan = plan_for(model, {"x": (-1.0, 1.0)})
    assert find_uncovered(model, plan, selection, target) == ()


def test_only_what_covers_a_product_is_rewritten() -> None:
    target = load_target("cpu")
    body = PRODUCTS["relu"].format(op="MatMul(x, w)")
    model = normalized(f"g (float[N, 8] x) => (float[N, 8] y) {{ {body} }}", w=WEIGHTS["w"])
    selection = select(model, find_sites(model), target, {})
    plan = plan_for(model, {"x": (-1.0, 1.0)})
    assert [entry.op for entry in find_uncovered(model, plan, selection, target)] == ["Max"]
    assert find_uncovered(model, plan, selection, replace(target, covers=())) == ()
    assert find_uncovered(model, plan, selection.declined("no"), target) == ()


def test_a_relu_that_symmetric_integers_cannot_absorb(tmp_path: Path) -> None:
    body = "h = MatMul(x, w) r = Relu(h) y = MatMul(r, v)"
    used = {"w": WEIGHTS["w"], "v": WEIGHTS["v"]}
    model = write(tmp_path / "m.onnx", f"g (float[N, 8] x) => (float[N, 8] y) {{ {body} }}", **used)
    samples: list[Feeds] = [{"x": normal(20 + seed, 16, 8)} for seed in range(8)]
    recipe = Recipe.model_validate({"scheme": "int8", "activation": {"symmetric": True}})
    options = RunOptions(timing=None)
    result = quantize(model, samples, tmp_path / "o.onnx", recipe=recipe, options=options)
    assert result.verification is not None
    assert result.verification.kernels.missed == ()
