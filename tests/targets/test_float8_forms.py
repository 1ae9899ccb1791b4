"""The graphs that are written in FP8 for TensorRT, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from pydantic import ValidationError

from onnxq import quantize
from onnxq.errors import ModelError, UsageError
from onnxq.lint import lint
from onnxq.numerics.float8 import E4M3, to_e4m3
from onnxq.pipeline import RunOptions, apply, inspect
from onnxq.plan import ActivationEntry, WeightEntry
from onnxq.recipe import Recipe
from onnxq.targets import load_target
from tests.small_models import normal, run, write
from tests.targets.test_gpu_forms import ATTENTION, UPWARDS, constant, nodes, producer, samples

if TYPE_CHECKING:
    from onnxq.pipeline import QuantizeResult

ROOT = Path(__file__).parents[2]
FASHION = ROOT / "models" / "fashion_resnet" / "fashion_resnet.onnx"
IMAGES = ROOT / "calibration_data" / "fashion_mnist" / "calibration.npy"
CACHE = ROOT / "models" / ".cache"
UNTIMED = RunOptions(timing=None)
RESIDUAL = """
    g (float[1, 16, 6, 6] x) => (float[1, 16, 6, 6] y) {
        a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w1, b1)
        r = Relu(a)
        c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (r, w2, b2)
        s = Add(c, r)
        y = Relu(s)
    }
"""
DEPTHWISE = """
    g (float[1, 32, 6, 6] x) => (float[1, 32, 6, 6] y) {
        d = Conv <group = 32, pads = [1, 1, 1, 1]> (x, w1)
        c = Clip(d, lo, hi)
        p = MaxPool <kernel_shape = [1, 1]> (c)
        y = Conv(p, w2)
    }
"""
WIDE = "g (float[1, 16, 9, 9] x) => (float[1, 16, 3, 3] y) { y = Conv(x, w) }"
PRODUCT = "g (float[N, 16] x) => (float[N, 24] y) { y = Gemm<transB = 1>(x, w, b) }"


def quantized(
    path: Path, text: str, data: Any, recipe: Any = None, **weights: Any
) -> tuple[ir.Model, QuantizeResult]:
    source = write(path / "float.onnx", text, **weights)
    output = path / "out.onnx"
    wanted = Recipe.model_validate({"scheme": "fp8", "target": "tensorrt", **(recipe or {})})
    result = quantize(source, data, output, recipe=wanted, options=UNTIMED)
    onnx.checker.check_model(output, full_check=True)
    return ir.load(output), result


def residual(path: Path) -> tuple[ir.Model, QuantizeResult]:
    convs = {f"w{i}": normal(i, 16, 16, 3, 3) for i in (1, 2)}
    biases = {f"b{i}": normal(10 + i, 16) for i in (1, 2)}
    return quantized(path, RESIDUAL, samples("x", 1, 16, 6, 6), **convs, **biases)


def product(path: Path, recipe: dict[str, Any] | None = None) -> tuple[ir.Model, QuantizeResult]:
    weights = {"w": normal(0, 24, 16), "b": normal(1, 24)}
    return quantized(path, PRODUCT, samples("x", 8, 16), recipe, **weights)


def maker(node: ir.Node, index: int) -> ir.Node:
    value = node.inputs[index]
    made = None if value is None else value.producer()
    assert made is not None
    return made


def decisions(result: QuantizeResult) -> dict[str, str]:
    return {site.op: site.decision for site in result.plan.sites}


def test_quantizers_name_their_type_and_have_no_zero_point(tmp_path: Path) -> None:
    model, _ = residual(tmp_path)
    assert model.opset_imports[""] == 21
    for node in nodes(model, "QuantizeLinear"):
        assert len(node.inputs) == 2
        assert node.attributes.get_int("output_dtype", 0) == ir.DataType.FLOAT8E4M3FN
        assert constant(node, 1).shape == ()
        assert node.outputs[0].dtype == ir.DataType.FLOAT8E4M3FN
    for node in nodes(model, "DequantizeLinear"):
        assert len(node.inputs) == 2
        assert (constant(node, 1) > 0).all()


def test_weights_are_stored_in_float8_for_each_output_channel(tmp_path: Path) -> None:
    model, _ = residual(tmp_path)
    for seed, conv in enumerate(nodes(model, "Conv"), start=1):
        dequantize = maker(conv, 1)
        assert dequantize.attributes.get_int("axis", 1) == 0
        stored, scale = constant(dequantize, 0), constant(dequantize, 1)
        assert stored.dtype == E4M3
        assert scale.shape == (16,)
        exact = normal(seed, 16, 16, 3, 3)
        wanted = to_e4m3(exact / scale.reshape(-1, 1, 1, 1))
        np.testing.assert_array_equal(stored.view(np.uint8), wanted.view(np.uint8))
        # No weight is clipped.
        assert (np.abs(exact).max(axis=(1, 2, 3)) <= scale * 448 * 1.0001).all()
        assert constant(conv, 2).dtype == np.float32


def test_the_scale_of_an_activation_ends_at_448(tmp_path: Path) -> None:
    data = samples("x", 8, 16)
    recipe = {"calibration": {"method": "minmax"}, "eval_fraction": 0.01}
    model, result = product(tmp_path, recipe)
    assert result.calibration is not None
    assert result.calibration.samples == 11
    (quantize_linear,) = nodes(model, "QuantizeLinear")
    (entry,) = result.plan.activations
    peak = max(-entry.low, entry.high)
    assert float(constant(quantize_linear, 1)) == pytest.approx(peak / 448, rel=1e-6)
    assert peak <= max(np.abs(sample["x"]).max() for sample in data)


def test_the_residual_is_quantized_as_in_int8(tmp_path: Path) -> None:
    model, _ = residual(tmp_path)
    (add,) = nodes(model, "Add")
    assert [producer(add, index) for index in (0, 1)] == ["Conv", "DequantizeLinear"]
    assert len(nodes(model, "Relu")) == 2


def test_both_operands_of_attention_are_quantized(tmp_path: Path) -> None:
    weights = {name: normal(i, 16, 16) for i, name in enumerate(("wq", "wk", "wv", "wo"))}
    model, result = quantized(tmp_path, ATTENTION, samples("x", 1, 6, 16), **weights)
    for each in nodes(model, "MatMul"):
        assert [producer(each, index) for index in (0, 1)] == ["DequantizeLinear"] * 2
    assert result.verification is not None
    assert result.verification.kernels.planned == 4


def test_one_scale_for_each_weight_on_request(tmp_path: Path) -> None:
    rule = {"match": "op:Gemm", "weight": {"granularity": "tensor"}}
    model, _ = product(tmp_path, {"rules": [rule]})
    (gemm,) = nodes(model, "Gemm")
    assert constant(maker(gemm, 1), 1).shape == ()


def test_conv_transpose_stays_float(tmp_path: Path) -> None:
    weights = {"w": normal(0, 8, 6, 2, 2), "b": normal(1, 6)}
    _, result = quantized(tmp_path, UPWARDS, samples("x", 1, 8, 5, 5), **weights)
    (site,) = result.plan.sites
    assert (site.decision, site.reason) == ("float", "tensorrt has no FP8 kernel for ConvTranspose")


def test_depthwise_and_wide_windows_stay_float(tmp_path: Path) -> None:
    weights = {"w1": normal(0, 32, 1, 3, 3), "w2": normal(1, 32, 32, 1, 1)}
    clip = {"lo": np.float32(0), "hi": np.float32(6)}
    model, result = quantized(tmp_path, DEPTHWISE, samples("x", 1, 32, 6, 6), **weights, **clip)
    first, second = result.plan.sites
    assert first.reason.endswith("of 1 input channels a group and 32 outputs, fewer than 16")
    assert (first.decision, second.decision) == ("float", "fp8")
    assert len(nodes(model, "QuantizeLinear")) == 1
    data = samples("x", 1, 16, 9, 9)
    _, wide = quantized(tmp_path, WIDE, data, w=normal(2, 16, 16, 7, 7))
    assert "a window of 49 positions, more than 32" in wide.plan.sites[0].reason


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ((16, 16, 3, 3), ""),
        ((32, 48, 1, 1), ""),
        ((24, 24, 1), ""),
        ((16, 3, 3, 3), "fewer than 16"),
        ((8, 32, 3, 3), "fewer than 16"),
        ((40, 32, 3, 3), "differ modulo 16"),
        ((16, 16, 6, 6), "36 positions"),
    ],
)
def test_which_convs_have_kernels(shape: tuple[int, ...], why: str) -> None:
    rules = load_target("tensorrt").float8
    assert rules is not None
    found = rules.why_not(shape)
    assert why in found
    assert bool(why) == bool(found)


@pytest.mark.parametrize("level", ["basic", "all"])
def test_onnxruntime_computes_what_is_written(level: Any, tmp_path: Path) -> None:
    residual(tmp_path)
    feeds = {"x": normal(99, 1, 16, 6, 6)}
    (written,) = run(tmp_path / "out.onnx", feeds)
    (ran,) = run(tmp_path / "out.onnx", feeds, level)
    assert written.min() >= 0
    # Sums in another order; a value between two steps may go to the other.
    error = np.square(ran - written).sum() / np.square(written).sum()
    assert error < 1e-3


def test_a_relu_in_front_of_a_quantizer_is_kept(tmp_path: Path) -> None:
    text = """
        g (float[4, 16] x) => (float[4, 16] y) {
            n = Neg(x)
            r = Relu(n)
            y = MatMul(r, w)
        }
    """
    quantized(tmp_path, text, samples("x", 4, 16), w=np.eye(16, dtype=np.float32))
    (found,) = run(tmp_path / "out.onnx", {"x": normal(3, 4, 16)}, "all")
    assert found.min() >= 0


def test_the_plan_gives_the_same_bytes(tmp_path: Path) -> None:
    output, again = tmp_path / "out.onnx", tmp_path / "again.onnx"
    recipe = Recipe.model_validate({"scheme": "fp8", "target": "tensorrt"})
    options = RunOptions(timing=None, plan_out=tmp_path / "plan")
    result = quantize(FASHION, IMAGES, output, recipe=recipe, options=options)
    plan = apply(FASHION, tmp_path / "plan", again)
    assert output.read_bytes() == again.read_bytes()
    assert plan.scheme == "fp8"
    assert plan.minimum_opset == 21
    assert {entry.number for entry in plan.activations} == {"float8e4m3fn"}
    assert {entry.number for entry in plan.weights} == {"float8e4m3fn"}
    # A first convolution of one channel stays float, all else is quantized.
    assert [site.decision for site in plan.sites].count("fp8") == 9
    found = result.verification
    assert found is not None
    assert found.fidelity.sqnr_db is not None
    assert found.fidelity.sqnr_db > 26
    assert found.size_ratio > 3
    assert found.latency is None
    assert not found.kernels.counted
    assert found.kernels.planned == 9
    assert not found.kernels.without_kernel
    assert lint(output, "tensorrt").counting == ()
    on_cpu = {finding.rule for finding in lint(output, "cpu").counting}
    assert on_cpu == {"float8-pairs"}
    assert {finding.rule for finding in lint(output, "cuda").counting} == {"float8-pairs"}
    form = inspect(output).quantized_form
    assert form is not None
    assert form.startswith("QDQ: 9 QuantizeLinear")
    with pytest.raises(ModelError, match="quantized already"):
        quantize(output, IMAGES, again, recipe=recipe, options=UNTIMED)


def test_inspect_shows_each_site(tmp_path: Path) -> None:
    source = write(tmp_path / "m.onnx", PRODUCT, w=normal(0, 24, 16), b=normal(1, 24))
    recipe = Recipe.model_validate({"scheme": "fp8", "target": "tensorrt"})
    assert inspect(source, recipe=recipe).sites[0].decision == "fp8"
    (site,) = inspect(source, samples("x", 8, 16), recipe=recipe).sites
    assert site.decision == "fp8"
    assert site.sqnr_db is not None
    # Two operands of three bits of mantissa each.
    assert 25 < site.sqnr_db < 35


@pytest.mark.parametrize(("target", "instead"), [("cpu", "take int8"), ("cuda", "take float16")])
def test_other_targets_warn_and_write_the_model_unchanged(
    target: str, instead: str, tmp_path: Path
) -> None:
    model, result = product(tmp_path, {"target": target})
    assert result.scheme == "float"
    assert not nodes(model, "QuantizeLinear")
    assert [site.reason for site in result.plan.sites] == [f"{target} has no FP8 kernel for Gemm"]
    assert any("multiplies no FP8" in text and instead in text for text in result.warnings)


@pytest.mark.parametrize(
    "recipe",
    [
        {"calibration": {"method": "entropy"}},
        {"activation": {"type": "uint8"}},
        {"activation": {"symmetric": False}},
        {"rules": [{"match": "*", "calibration": "entropy"}]},
        {"rules": [{"match": "*", "activation": {"symmetric": True}}]},
        {"rules": [{"match": "*", "weight": {"bits": 7}}]},
        {"weights": {"block_size": 64}},
    ],
)
def test_what_has_no_sense_in_float8_is_refused(recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fp8"):
        product(tmp_path, recipe)
    assert not (tmp_path / "out.onnx").exists()


def test_it_wants_data(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="FP8 needs calibration data"):
        quantized(tmp_path, PRODUCT, None, w=normal(0, 24, 16), b=normal(1, 24))


def test_operators_on_integers_are_no_form_of_it(tmp_path: Path) -> None:
    model, result = product(tmp_path, {"format": "qoperator"})
    assert nodes(model, "QuantizeLinear")
    assert result.plan.format == "qdq"
    assert any("fp8 is not" in text for text in result.warnings)


@pytest.mark.parametrize(
    "change", [{"bits": 4}, {"signed": False}, {"zero_point": 1}, {"number": "float8e5m2"}]
)
def test_a_damaged_activation_is_refused(change: dict[str, Any]) -> None:
    whole: dict[str, Any] = {
        "tensor": "x", "bits": 8, "signed": True, "scale": 0.1, "zero_point": 0,
        "method": "minmax", "low": -1.0, "high": 1.0, "readers": (), "number": "float8e4m3fn",
    }  # fmt: skip
    assert ActivationEntry.model_validate(whole).params().scheme.floating
    with pytest.raises(ValidationError):
        ActivationEntry.model_validate({**whole, **change})


@pytest.mark.parametrize("change", [{"bits": 7}, {"folded": True}, {"pairs": (0,)}])
def test_a_damaged_weight_is_refused(change: dict[str, Any]) -> None:
    whole: dict[str, Any] = {
        "initializer": "w", "bits": 8, "axis": 0, "readers": (), "number": "float8e4m3fn"
    }  # fmt: skip
    assert WeightEntry.model_validate(whole).scheme.floating
    with pytest.raises(ValidationError):
        WeightEntry.model_validate({**whole, **change})


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("minilm", 20.0), ("efficientnet_lite0", 13.0)])
def test_built_models(name: str, least: float, tmp_path: Path) -> None:
    folder = CACHE / name
    if not (folder / "model.onnx").exists():
        pytest.skip(f"{name} is not built; `python -m models.build {name}` builds it")
    recipe = Recipe.model_validate(
        {"scheme": "fp8", "target": "tensorrt", "calibration": {"method": "minmax", "samples": 16}}
    )
    output = tmp_path / "out.onnx"
    options = RunOptions(timing=None, eval_data=str(folder / "evaluation"))
    found = quantize(
        folder / "model.onnx", str(folder / "calibration"), output, recipe=recipe, options=options
    ).verification
    assert found is not None
    assert found.fidelity.sqnr_db is not None
    assert found.fidelity.sqnr_db > least
    assert lint(output, "tensorrt").counting == ()
