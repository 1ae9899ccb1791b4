"""What inspect says of weights in blocks: decisions, reasons, errors under what was tried."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from onnxq.algorithms.block_algorithm import AUTO
from onnxq.errors import UsageError
from onnxq.numerics.affine import dequantize, qparams_from_range, quantize
from onnxq.numerics.schemes import Scheme
from onnxq.pipeline import RunOptions, inspect
from onnxq.pipeline import quantize as run_quantize
from onnxq.recipe import Recipe
from tests.small_models import normal, write

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.pipeline import InspectedSite
    from tests.small_models import Feeds

TEXT = """g (float[N, 32] x) => (float[N, 8] y, float[N, 8] z, float[N, 4] r) {
    n = Mul(x, c) a = MatMul(n, u) b = MatMul(n, v)
    h = Tanh(a) y = MatMul(h, w) z = Sub(y, b)
    s = Tanh(y) r = MatMul(s, short)
}"""
WEIGHTS = {
    "c": np.exp(normal(9, 32)),
    "u": normal(0, 32, 32),
    "v": normal(1, 32, 8),
    "w": normal(2, 32, 8),
    "short": normal(3, 8, 4),
}
SHORT = "its 8 input channels are fewer than a block of 16"
QUIET = RunOptions(timing=None)


def samples() -> list[Feeds]:
    return [{"x": normal(100 + seed, 24, 32)} for seed in range(10)]


def recipe(scheme: str = "int4", **weights: Any) -> Recipe:
    settings = {"block_size": 16, "accuracy_level": 1, **weights}
    return Recipe.model_validate({"scheme": scheme, "weights": settings})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path / "m.onnx", TEXT, **WEIGHTS)


def decisions(sites: tuple[InspectedSite, ...]) -> list[tuple[str, str]]:
    return [(site.decision, site.reason) for site in sites]


@pytest.mark.parametrize("scheme", ["int2", "int4", "uint4", "int8-weights"])
def test_without_data_structure_decides(model: Path, scheme: str) -> None:
    found = inspect(model, recipe=recipe(scheme, algorithm="awq+gptq", sequential=True)).sites
    assert decisions(found) == [(scheme, "")] * 3 + [("float", SHORT)]
    assert all(not site.held_out and site.sqnr_db is None for site in found)


def test_all_algorithms_and_both_symmetries_are_tried(model: Path) -> None:
    found = inspect(model, samples(), recipe=recipe()).sites
    assert decisions(found) == [("int4", "")] * 3 + [("float", SHORT)]
    labels = {f"{name}, uint4{kind}, block 16" for name in AUTO for kind in ("", " symmetric")}
    for site in found[:3]:
        assert site.held_out.keys() == labels
        assert site.sqnr_db == site.held_out[site.chosen]
        assert 5 < site.sqnr_db < 40
        # Nearly as good a GPTQ of a stronger shrinkage may be taken; siblings are scaled jointly.
        assert site.sqnr_db > max(site.held_out.values()) - 1
    assert not found[3].held_out


def test_the_errors_are_those_of_the_products(model: Path) -> None:
    """By hand: rounding to the nearest within the range of each block, in float64."""
    wanted = recipe(algorithm="rtn", symmetric=False)
    site = inspect(model, samples(), recipe=wanted).sites[0]
    tokens = np.concatenate([f["x"] * WEIGHTS["c"] for f in samples()[4::5]]).astype(np.float64)
    rounded = np.empty((32, 32))
    for n in range(32):
        for start in (0, 16):
            block = WEIGHTS["u"][start : start + 16, n]
            low, high = (np.asarray(x, np.float32) for x in (block.min(), block.max()))
            params = qparams_from_range(low, high, Scheme(4))
            rounded[start : start + 16, n] = dequantize(quantize(block, params), params)
    noise = ((tokens @ (rounded - WEIGHTS["u"])) ** 2).sum()
    expected = 10 * np.log10(((tokens @ WEIGHTS["u"]) ** 2).sum() / noise)
    assert dict(site.held_out) == {"rtn, uint4, block 16": pytest.approx(expected, abs=0.01)}


def test_what_was_measured_before_is_shown_too(model: Path) -> None:
    inspect(model, samples(), recipe=recipe("int8-weights", algorithm="rtn", symmetric=True))
    site = inspect(model, samples(), recipe=recipe(algorithm="awq", sequential=True)).sites[0]
    assert site.chosen == "awq, uint4, block 16, sequential"
    assert site.held_out.keys() == {site.chosen, "rtn, uint8 symmetric, block 16"}
    assert site.held_out["rtn, uint8 symmetric, block 16"] > site.held_out[site.chosen] + 15


def test_nothing_is_left_to_go_on_from(model: Path, tmp_path: Path) -> None:
    inspect(model, samples(), recipe=recipe(algorithm="gptq"))
    assert not list(tmp_path.rglob("groups/*/*"))


def test_too_few_rows_are_said(model: Path) -> None:
    few = [{"x": feeds["x"][:2]} for feeds in samples()]
    found = inspect(model, few, recipe=recipe(algorithm="awq")).sites
    assert found[0].scaling == "no statistics: calibration saw 20 rows or patches, fewer than 32"


def test_how_channels_are_scaled_is_said(model: Path) -> None:
    first, second, third, _ = inspect(model, samples(), recipe=recipe(algorithm="awq")).sites
    assert first.scaling == second.scaling == "folded"
    assert first.exponent == second.exponent
    assert first.exponent is not None
    assert 0 < first.exponent < 1
    assert third.exponent is None
    assert third.scaling.startswith("none: ")
    plain = inspect(model, samples(), recipe=recipe(algorithm="rtn")).sites
    assert [(site.exponent, site.scaling) for site in plain] == [(None, "")] * 4


def test_products_without_statistics_say_so(tmp_path: Path) -> None:
    text = "g (float[N, 32, 5, 5] x) => (float[N, 32, 5, 5] y) { y = Conv<group = 2>(x, k) }"
    path = write(tmp_path / "m.onnx", text, k=normal(0, 32, 16, 1, 1))
    data = [{"x": normal(seed, 2, 32, 5, 5)} for seed in range(5)]
    (site,) = inspect(path, data, recipe=recipe(form="dq")).sites
    assert (site.decision, site.held_out, site.chosen) == ("int4", {}, "")
    assert site.scaling == "none: no statistics are collected for this Conv"


def test_what_would_be_ruined_stays_float_and_is_shown(tmp_path: Path) -> None:
    weights = {**WEIGHTS, "u": WEIGHTS["u"].copy()}
    weights["u"][[3, 20]] = 1e6
    path = write(tmp_path / "m.onnx", TEXT, **weights)
    data = samples()
    for sample in data:
        sample["x"][:, [3, 20]] = 0
    wanted = recipe("int8-weights", algorithm="rtn")
    site = inspect(path, data, recipe=wanted).sites[0]
    assert site.decision == "float"
    assert "would ruin it" in site.reason
    assert site.sqnr_db is not None
    assert site.sqnr_db < 1
    result = run_quantize(path, data, tmp_path / "o.onnx", recipe=wanted, options=QUIET)
    assert result.plan.sites[0].reason == site.reason


def test_sequential_refinement_needs_data(model: Path, tmp_path: Path) -> None:
    wanted = recipe(algorithm="rtn", sequential=True)
    with pytest.raises(UsageError, match="needs calibration data"):
        run_quantize(model, None, tmp_path / "o.onnx", recipe=wanted, options=QUIET)
