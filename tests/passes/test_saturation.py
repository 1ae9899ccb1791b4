"""No kernel saturates: the integers at their worst, as written and as ONNX Runtime optimizes it.

On a processor without VNNI two products of 255 and 127 do not fit into the kernels' 16 bits. As
written the model computes in float, so that the two agree only where nothing saturates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from onnxq.algorithms.build_plan import PlanLabels, assemble
from onnxq.algorithms.dynamic_int8 import decide_dynamic, select_dynamic
from onnxq.graph.io import to_bytes
from onnxq.graph.sites import find_sites
from onnxq.passes.execute import execute
from onnxq.pipeline import RunOptions, quantize
from onnxq.recipe import Recipe
from onnxq.runtime.kernels import executed
from onnxq.targets import load_target
from tests.given_stats import plan_for, run_time_config
from tests.small_models import Feeds, normal, normalized, run, write

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

CPU = load_target("cpu")

CONV = """g (float[N, {c}, {space}] x) => (float[N, {o}, {left}] y) {{
    h = Conv{attributes}(x, w) y = Neg(h)
}}"""
PRODUCT = "g (float[N, {k}] x) => (float[N, 5] y) {{ h = {op}(x, w) y = Neg(h) }}"


def conv(
    channels: int, out: int, kernel: tuple[int, ...], group: int = 1
) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    """A Conv on a signal of 6 in each direction; its weight's shape; its input's."""
    space = ", ".join("6" for _ in kernel)
    left = ", ".join(str(7 - k) for k in kernel)
    attributes = "" if group == 1 else f"<group = {group}>"
    text = CONV.format(c=channels, o=out, space=space, left=left, attributes=attributes)
    return text, (out, channels // group, *kernel), (2, channels, *(6 for _ in kernel))


def product(op: str, k: int) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    shape = (5, k) if "transB" in op else (k, 5)
    return PRODUCT.format(op=op, k=k), shape, (3, k)


FORMS = {
    "MatMul": product("MatMul", 64),
    "MatMul, odd": product("MatMul", 7),
    "MatMul, long": product("MatMul", 5000),
    "Gemm": product("Gemm", 30),
    "Gemm, transposed": product("Gemm<transB = 1>", 30),
    "Conv, 1-D": conv(3, 6, (3,)),
    "Conv, 2-D": conv(16, 6, (3, 3)),
    "Conv, odd": conv(3, 6, (3, 3)),
    "Conv, one channel": conv(1, 6, (3, 3)),
    "Conv, 1 x 1": conv(9, 6, (1, 1)),
    "Conv, 3-D": conv(3, 6, (2, 3, 2)),
    "Conv, grouped": conv(12, 8, (3, 3), 4),
    "Conv, depthwise": conv(8, 8, (3, 3), 8),
    "Conv, depthwise with two outputs each": conv(8, 16, (3, 3), 8),
}


def worst(shape: tuple[int, ...], kind: str) -> NDArray[np.float32]:
    """Weights whose neighbours are as large as can be, in every order of the axes."""
    rng = np.random.default_rng(0)
    if kind == "equal":
        return np.ones(shape, np.float32)
    if kind == "signs":
        return np.where(rng.random(shape) < 0.9, 1, -1).astype(np.float32)
    return rng.uniform(0.2, 1, shape).astype(np.float32)


@pytest.mark.parametrize("kind", ["equal", "signs", "uneven"])
@pytest.mark.parametrize("form", FORMS)
def test_static(form: str, kind: str) -> None:
    text, weight, data = FORMS[form]
    model = normalized(text, w=worst(weight, kind))
    x = np.ones(data, np.float32)
    top = -float(run(model, {"x": x})[0].min())
    plan = plan_for(model, {"x": (0.0, 1.0)} | ({"h": (0.0, top)} if "Conv" in form else {}))
    agree(execute(plan, model), {"x": x})
    if form == "Conv, depthwise":
        assert plan.weights[0].pairs == ()


LSTM = """g (float[T, N, 16] x) => (float[T, 1, N, 8] y) {
    y, h, c = LSTM<hidden_size = 8>(x, w, r)
}"""


@pytest.mark.parametrize("kind", ["equal", "signs", "uneven"])
@pytest.mark.parametrize("form", ["MatMul", "MatMul, odd", "Gemm, transposed"])
def test_dynamic(form: str, kind: str) -> None:
    text, weight, data = FORMS[form]
    model = normalized(text, w=worst(weight, kind))
    agree(dynamic(model), {"x": np.ones(data, np.float32)})


def test_recurrent() -> None:
    """Its kernel has no float form: against the same weights in a float LSTM."""
    w, r = worst((1, 32, 16), "uneven") / 40, worst((1, 32, 8), "uneven") / 40
    model = normalized(LSTM, w=w, r=r)
    x = np.ones((4, 2, 16), np.float32)
    expected, found = run(model, {"x": x})[0], run(dynamic(model), {"x": x})[0]
    np.testing.assert_allclose(found, expected, atol=0.01 * float(np.abs(expected).max()))


def dynamic(model: Any) -> Any:
    selection = select_dynamic(model, find_sites(model), CPU, {})
    labels = PlanLabels("sha256:0", "int8-dynamic", "cpu", 13, independent=True)
    plan = assemble(
        labels, selection, "int8-dynamic", decide_dynamic(model, run_time_config(selection))
    )
    return execute(plan, model)


def agree(quantized: Any, feeds: dict[str, NDArray[Any]]) -> None:
    """Within a step of the output: kernels round once, the float form twice."""
    assert any(node.integer for node in executed(to_bytes(quantized)))
    written, optimized = (run(quantized, feeds, level)[0] for level in ("none", "all"))
    np.testing.assert_allclose(optimized, written, atol=0.01 * float(np.abs(written).max()))


@pytest.mark.parametrize(
    "recipe",
    [
        {"scheme": "int8-dynamic", "activation": {"type": "uint16"}},
        {
            "scheme": "int8",
            "activation": {"type": "uint16"},
            "rules": [{"match": "*", "activation": {"type": "uint8"}}],
        },
        {"scheme": "int8", "rules": [{"match": "*", "weight": {"bits": 8}}]},
        {"scheme": "int8", "rules": [{"match": "*", "weight": {"granularity": "tensor"}}]},
        {"scheme": "int8", "format": "qoperator"},
        {"scheme": "int8", "activation": {"type": "int8"}},
    ],
)
def test_whatever_the_recipe_says(tmp_path: Path, recipe: dict[str, Any]) -> None:
    text, weight, _ = product("MatMul", 64)
    model = write(tmp_path / "m.onnx", text, w=worst(weight, "equal"))
    samples: list[Feeds] = [{"x": np.abs(normal(seed, 8, 64)) + 3} for seed in range(8)]
    options = RunOptions(timing=None)
    found = quantize(
        model, samples, tmp_path / "o.onnx", recipe=Recipe.model_validate(recipe), options=options
    )
    assert found.verification is not None
    assert found.verification.kernels.integer == 1
    assert (found.verification.fidelity.sqnr_db or 0) > 35


def test_no_bound_where_nothing_runs_in_integers(tmp_path: Path) -> None:
    text, weight, _ = product("MatMul", 64)
    model = write(tmp_path / "m.onnx", text, w=worst(weight, "uneven"))
    samples: list[Feeds] = [{"x": normal(seed, 8, 64)} for seed in range(8)]
    for settings in (
        {"scheme": "int8-weights"},
        {"scheme": "int8", "activation": {"type": "int16"}},
    ):
        recipe, options = Recipe.model_validate(settings), RunOptions(timing=None)
        found = quantize(model, samples, tmp_path / "o.onnx", recipe=recipe, options=options)
        assert not any(entry.pairs for entry in found.plan.weights)
        assert not any("no VNNI" in text for text in found.warnings)
