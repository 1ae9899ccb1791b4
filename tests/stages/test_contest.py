"""``auto`` measures the schemes against each other: what wins, what is left out, what is said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from onnxq.errors import ModelError
from onnxq.pipeline import QuantizeResult, RunOptions, quantize
from onnxq.recipe import Recipe
from onnxq.runtime.machine import inspect_machine
from onnxq.runtime.session import open_session
from onnxq.runtime.timing import TimingSettings
from onnxq.stages import contest
from tests.small_models import normal, write

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TEXT = "g (float[N, 64] x) => (float[N, 64] y) { h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }"
SAMPLES = [{"x": normal(seed, 4, 64)} for seed in range(10)]
BRIEF = RunOptions(timing=TimingSettings(rounds=1, runs=1, warmup=0, seconds=0.0, threads=1))
SLOW = {"int8": 0.5, "int8-dynamic": 0.6, "int8-weights": 0.7}


def auto(
    folder: Path, monkeypatch: pytest.MonkeyPatch, ratios: Mapping[str, float], *, data: bool = True
) -> QuantizeResult:
    """Quantize with ``auto``, each scheme being so many times faster than float."""

    def given(_: object, paths: Mapping[str, Path], __: object) -> dict[str, float]:
        return {name: ratios[name.partition(",")[0]] for name in paths}

    monkeypatch.setattr(contest, "_ratios", given)
    model = write(folder / "m.onnx", TEXT, w=normal(20, 64, 64), v=normal(21, 64, 64))
    return quantize(model, SAMPLES if data else None, folder / "o.onnx", options=BRIEF)


@pytest.mark.parametrize("fastest", ["int8", "int8-dynamic", "int8-weights"])
def test_the_fastest_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fastest: str) -> None:
    result = auto(tmp_path, monkeypatch, {**SLOW, fastest: 2.0})
    assert result.scheme == fastest
    assert result.scheme_reason.startswith(f"measured best: {fastest}")
    assert {trial.scheme for trial in result.trials} == set(SLOW)
    assert all(trial.name in result.scheme_reason for trial in result.trials)


def test_a_model_that_no_scheme_makes_faster_stays_float(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = auto(tmp_path, monkeypatch, SLOW)
    assert result.scheme == "float"
    assert result.scheme_reason.startswith("none is as fast as float: int8 (")
    assert all(site.reason == result.scheme_reason for site in result.plan.sites)


def test_without_data_only_schemes_that_need_none_compete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = auto(tmp_path, monkeypatch, {**SLOW, "int8-dynamic": 2.0}, data=False)
    assert result.scheme == "int8-dynamic"
    assert {trial.scheme for trial in result.trials} == {"int8-dynamic", "int8-weights"}


def test_a_scheme_whose_model_does_not_load_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def broken(path: Path, *more: Any) -> Any:
        if path.name == "0.onnx":
            code, text = "model.runtime", "no kernel for it"
            raise ModelError(code, text, where=path.name)
        return open_session(path, *more)

    monkeypatch.setattr(contest, "open_session", broken)
    result = auto(tmp_path, monkeypatch, {"int8": 9.0, "int8-dynamic": 2.0, "int8-weights": 1.0})
    assert result.scheme == "int8-dynamic"
    assert "int8 was left out: no kernel for it" in result.warnings
    assert (result.trials[0].failed, result.trials[0].ratio) == ("no kernel for it", None)
    assert "int8 (failed: no kernel for it)" in result.scheme_reason


@pytest.mark.parametrize(("speed", "form"), [(1.1, "block"), (0.8, "folded")])
def test_weights_alone_are_folded_where_no_kernel_is_as_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speed: float, form: str
) -> None:
    def given(_: object, paths: Mapping[str, Path], __: object) -> dict[str, float]:
        return {name: 1.0 if name.endswith("folded") else speed for name in paths}

    monkeypatch.setattr(contest, "_ratios", given)
    # Weights that are most of the file, in blocks too.
    constants = {"w": normal(20, 256, 256), "v": normal(21, 256, 256)}
    model = write(tmp_path / "m.onnx", TEXT.replace("64", "256"), **constants)
    samples = [{"x": normal(seed, 4, 256)} for seed in range(10)]
    recipe = Recipe(version=1, scheme="int8-weights")
    found = quantize(model, samples, tmp_path / "o.onnx", recipe=recipe, options=BRIEF)
    assert found.scheme_reason.startswith("asked for; measured int8-weights, block")
    assert any(entry.folded for entry in found.plan.weights) == (form == "folded")
    assert bool(found.plan.blocks) == (form == "block")
    assert found.verification is not None
    kernels = found.verification.kernels
    assert kernels.missed == ()
    assert kernels.folded == kernels.planned_folded == (2 if form == "folded" else 0)


@pytest.mark.parametrize("scheme", ["int8", "int8-dynamic", "int8-weights"])
def test_what_a_scheme_leaves_unheeded_is_said(tmp_path: Path, scheme: str) -> None:
    model = write(tmp_path / "m.onnx", TEXT, w=normal(20, 64, 64), v=normal(21, 64, 64))
    recipe = Recipe.model_validate({"scheme": scheme, "format": "qoperator"})
    options = RunOptions(timing=None)
    found = quantize(model, SAMPLES, tmp_path / "o.onnx", recipe=recipe, options=options)
    assert any('format = "qoperator"' in text for text in found.warnings) == (scheme != "int8")
    machine = inspect_machine()
    bounded = scheme != "int8-weights" and machine.x86 and not machine.vnni
    assert any("no VNNI" in text for text in found.warnings) == bounded


def test_a_bound_is_reached_by_another_scheme_than_the_fastest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ratios = {"int8": 3.0, "int8-dynamic": 2.0, "int8-weights": 1.5}
    trials = auto(tmp_path, monkeypatch, ratios).trials
    weights = max(t.sqnr_db or 0 for t in trials if t.scheme == "int8-weights")
    others = max(t.sqnr_db or 0 for t in trials if t.scheme != "int8-weights")
    assert weights > others
    options = RunOptions(timing=BRIEF.timing, min_sqnr=(weights + others) / 2, allow_miss=True)
    recipe = Recipe(version=1)
    found = quantize(
        tmp_path / "m.onnx", SAMPLES, tmp_path / "p.onnx", recipe=recipe, options=options
    )
    assert found.scheme == "int8-weights"
