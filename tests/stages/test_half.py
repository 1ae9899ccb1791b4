"""float16 and bfloat16 through the public API: overflow seen on data, what is said, apply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxq.errors import ModelError, UsageError
from onnxq.pipeline import RunOptions, apply, calibrate, inspect, quantize
from onnxq.recipe import HalfSettings, Recipe, Rule, WeightOverride
from onnxq.runtime import providers
from tests.small_models import Feeds, normal, run, write

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.pipeline import QuantizeResult

# The second product is large where the input is: no weight shows it.
TEXT = """g (float[N, 16] x) => (float[N, 16] y, float[N, 16] z) {
    a = MatMul(x, w) b = MatMul(a, v) y = Tanh(b) z = Neg(a)
}"""
WEIGHTS = {"w": normal(0, 16, 16), "v": normal(1, 16, 16)}
QUIET = RunOptions(timing=None)


def recipe(scheme: str, form: str = "auto", **more: Any) -> Recipe:
    return Recipe.model_validate({"scheme": scheme, "half": {"form": form}, **more})


def samples(factor: float, count: int = 4) -> list[Feeds]:
    return [{"x": normal(seed, 3, 16) * np.float32(factor)} for seed in range(count)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path / "float.onnx", TEXT, **WEIGHTS)


def convert(model: Path, wanted: Recipe, data: list[Feeds] | None) -> QuantizeResult:
    return quantize(model, data, model.with_name("half.onnx"), recipe=wanted, options=QUIET)


def decisions(result: QuantizeResult) -> dict[str, str]:
    return {site.op + site.name[-1:]: site.decision for site in result.plan.sites}


def kinds(path: Path) -> set[ir.DataType]:
    return {ir.DataType(tensor.data_type) for tensor in onnx.load(path).graph.initializer}


@pytest.mark.parametrize(("scheme", "kind"), [("float16", 10), ("bfloat16", 16)])
def test_weights_are_stored_and_become_float_at_load(model: Path, scheme: str, kind: int) -> None:
    result = convert(model, recipe(scheme), samples(1))
    assert result.scheme == scheme
    assert kinds(model.with_name("half.onnx")) == {ir.DataType(kind)}
    assert {site.decision for site in result.plan.sites} == {scheme}
    assert result.verification is not None
    kernels = result.verification.kernels
    assert (kernels.planned_folded, kernels.folded, kernels.missed) == (2, 2, ())
    # A model of two products of a few weights is no smaller for it, which is said.
    assert [text.split(":")[0] for text in result.warnings] == ["nothing was gained"]


def test_everything_is_converted_where_nothing_overflows(model: Path) -> None:
    result = convert(model, recipe("float16", "compute"), samples(1))
    assert {site.decision for site in result.plan.sites} == {"float16"}
    assert result.verification is not None
    assert result.verification.kernels.planned_half == 4
    assert result.verification.fidelity.sqnr_db is not None
    assert result.verification.fidelity.sqnr_db > 50
    assert result.calibration is not None
    assert result.calibration.method == "extrema"


def test_overflow_is_found_before_it_happens(model: Path) -> None:
    result = convert(model, recipe("float16", "compute"), samples(1500))
    told = {site.reason for site in result.plan.sites if site.decision == "float"}
    assert len(told) == 1
    (reason,) = told
    assert "were seen in 'b', and float16 ends at 65504" in reason
    # What reads or makes `b` stays; the first product and Neg do not.
    assert sum(site.decision == "float16" for site in result.plan.sites) == 2
    feeds = samples(1500)[0]
    for expected, got in zip(
        run(model, feeds), run(model.with_name("half.onnx"), feeds), strict=True
    ):
        assert np.isfinite(got).all()
        np.testing.assert_allclose(got, expected, rtol=0.02, atol=0.02 * np.abs(expected).max())


def test_without_data_it_says_that_overflow_was_not_looked_for(model: Path) -> None:
    result = convert(model, recipe("float16", "compute"), None)
    assert any("overflow of float16 was looked for on made-up inputs" in w for w in result.warnings)
    assert any("puts Casts around float32 kernels" in w for w in result.warnings)


def test_apply_gives_the_same_bytes(model: Path, tmp_path: Path) -> None:
    for form in ("weights", "compute"):
        output, folder = tmp_path / f"{form}.onnx", tmp_path / f"plan-{form}"
        options = RunOptions(timing=None, plan_out=folder)
        wanted = recipe("float16", form)
        quantize(model, samples(1500), output, recipe=wanted, options=options)
        again = tmp_path / "again" / f"{form}.onnx"
        again.parent.mkdir(exist_ok=True)
        apply(model, folder, again)
        assert again.read_bytes() == output.read_bytes()


def test_bfloat16_is_not_computed_where_there_are_no_kernels(model: Path) -> None:
    with pytest.raises(UsageError, match="cpu has no bfloat16 kernel for MatMul") as caught:
        convert(model, recipe("bfloat16", "compute"), samples(1))
    assert 'form = "weights"' in caught.value.remedy


def test_a_rule_keeps_any_node(model: Path) -> None:
    rules = (Rule(match=("op:Neg",), keep="float", reason="asked"),)
    wanted = recipe("float16", "compute").model_copy(update={"rules": rules})
    result = convert(model, wanted, samples(1))
    assert [s.reason for s in result.plan.sites if s.decision == "float"] == ["asked"]


def test_a_rule_about_integers_is_not_heeded_in_silence(model: Path) -> None:
    rules = (Rule(match=("op:MatMul",), weight=WeightOverride(granularity="tensor")),)
    wanted = recipe("float16").model_copy(update={"rules": rules, "format": "qoperator"})
    told = convert(model, wanted, None).warnings
    assert any("a rule says how integers are found; float16 heeds keep alone" in w for w in told)
    assert any("how static INT8 is written, float16 is not" in w for w in told)


def test_a_model_of_16_bits_is_refused(tmp_path: Path) -> None:
    text = "g (float16[N, 16] x) => (float16[N, 16] y) { y = MatMul(x, w) }"
    path = write(tmp_path / "half.onnx", text, w=normal(0, 16, 16).astype(np.float16))
    for form in ("weights", "compute"):
        with pytest.raises(ModelError, match="the model is float16 already"):
            quantize(path, None, tmp_path / "out.onnx", recipe=recipe("bfloat16", form))


def test_the_float32_part_of_a_mixed_model_is_converted(tmp_path: Path) -> None:
    text = """g (float[N, 16] x) => (float[N, 16] y) {
        h = Cast<to = 10>(x) a = MatMul(h, w) f = Cast<to = 1>(a) d = Cast<to = 11>(f)
        e = Mul(d, k) g = Cast<to = 1>(e) y = MatMul(g, v)
    }"""
    weights: Feeds = {"w": normal(0, 16, 16).astype(np.float16), "v": normal(1, 16, 16)}
    weights["k"] = normal(2, 16).astype(np.float64)
    path = write(tmp_path / "mixed.onnx", text, **weights)
    for form in ("weights", "compute"):
        result = quantize(
            path, samples(1), tmp_path / "out.onnx", recipe=recipe("float16", form), options=QUIET
        )
        assert result.plan.sites[-1].decision == "float16"
        assert result.verification is not None
        assert (result.verification.fidelity.sqnr_db or 0) > 40


def test_inspect_shows_the_same_decisions(model: Path) -> None:
    wanted = recipe("float16", "compute")
    found = inspect(model, samples(1500), recipe=wanted)
    assert [site.decision for site in found.sites] == [
        site.decision for site in convert(model, wanted, samples(1500)).plan.sites
    ]
    assert all(site.decision == "float16" for site in inspect(model, recipe=wanted).sites)


def test_calibrate_is_of_int8(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="statistics are of INT8"):
        calibrate(model, samples(1), tmp_path / "stats", recipe=recipe("float16"))


def test_the_form_is_auto_unless_said() -> None:
    assert HalfSettings().form == "auto"


@pytest.mark.parametrize("target", ["cuda", "tensorrt"])
def test_bfloat16_that_cannot_be_tried_here_is_refused(
    target: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "available", lambda: (providers.CPU,))
    wanted = recipe("bfloat16", target=target)
    with pytest.raises(UsageError, match="the CPU does not compute in it") as caught:
        convert(model, wanted, None)
    assert "--scheme float16" in caught.value.remedy
    assert not model.with_name("half.onnx").exists()
    assert convert(model, recipe("bfloat16", "weights", target=target), None).output is not None


def test_a_plan_of_bfloat16_from_elsewhere_is_refused_where_it_cannot_be_tried(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "available", lambda: (providers.CPU,))
    folder = tmp_path / "plan"
    options = RunOptions(timing=None, plan_out=folder)
    wanted = recipe("float16", "compute", target="cuda")
    quantize(model, None, tmp_path / "a.onnx", recipe=wanted, options=options)
    (plan,) = folder.glob("plan*.json")
    plan.write_text(
        plan.read_text(encoding="utf-8").replace("float16", "bfloat16"), encoding="utf-8"
    )
    with pytest.raises(UsageError, match="cannot be tried here"):
        apply(model, folder, tmp_path / "b.onnx")
    assert not (tmp_path / "b.onnx").exists()
