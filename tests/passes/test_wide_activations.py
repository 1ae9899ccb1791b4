"""Activations of 16 bits: against the quantized arithmetic in numpy, float64, and what is said."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from onnxq.algorithms.static_int8 import with_override
from onnxq.graph.io import save, to_bytes
from onnxq.graph.normalize import normalize
from onnxq.graph.opset import raise_opset
from onnxq.numerics.schemes import WEIGHT_INT8, Scheme
from onnxq.passes.execute import execute
from onnxq.passes.to_qoperator import kept_in_pairs
from onnxq.pipeline import RunOptions, quantize
from onnxq.recipe import ActivationOverride, CalibrationSettings, Recipe, Rule, RuleOutcome
from onnxq.runtime.kernels import executed
from onnxq.verify.kernels import report_kernels
from onnxq.verify.structure import check_structure
from tests.given_stats import plan_for
from tests.small_models import Feeds, graph_text, normal, normalized, run, write

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir
    from numpy.typing import NDArray

    from onnxq.pipeline import QuantizeResult
    from onnxq.plan import Plan
    from onnxq.runtime.session import Optimization

KINDS = {"uint16": Scheme(16), "int16": Scheme(16, signed=True)}
LEVELS = ["none", "all"]
GEMMS = """g (float[N, 8] x) => (float[N, 4] y) {
    a = Gemm(x, w, b)
    r = Relu(a)
    y = MatMul(r, v)
}"""
RANGES = {"x": (-3.0, 3.0), "r": (0.0, 9.0)}
WEIGHTS = {"w": normal(0, 8, 6), "b": normal(1, 6), "v": normal(2, 6, 4)}


def through(plan: Plan, tensor: str, values: NDArray[Any]) -> NDArray[np.float64]:
    """Values through 16 bits, by the formulas of the operators' specification."""
    entry = next(entry for entry in plan.activations if entry.tensor == tensor)
    low, high = (-32768, 32767) if entry.signed else (0, 65535)
    coded = np.rint(np.asarray(values, np.float32) / np.float32(entry.scale)) + entry.zero_point
    return np.asarray((np.clip(coded, low, high).astype(float) - entry.zero_point) * entry.scale)


def rounded(plan: Plan, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    scale = plan.arrays[f"weight/{name}/scale"].astype(float).reshape(shape)
    return np.asarray(np.clip(np.rint(WEIGHTS[name] / scale), -127, 127) * scale)


def model_of(opset: int) -> ir.Model:
    return normalize(raise_opset(normalized(GEMMS, **WEIGHTS), opset)).model


@pytest.mark.parametrize("opset", [17, 21])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", KINDS)
def test_numbers(kind: str, level: Optimization, opset: int) -> None:
    model = model_of(opset)
    plan = plan_for(model, RANGES, weight=WEIGHT_INT8, activation=KINDS[kind])
    assert {entry.bits for entry in plan.activations} == {16}
    low, high = RANGES["x"]
    assert plan.activations[0].scale == pytest.approx((high - low) / 65535, rel=1e-7)
    x = normal(3, 40, 8)
    hidden = through(plan, "x", x) @ rounded(plan, "w", (1, 6)) + WEIGHTS["b"]
    expected = through(plan, "r", np.maximum(hidden, 0)) @ rounded(plan, "v", (1, 4))
    result = execute(plan, model)
    found = run(result, {"x": x}, level)[0]
    # A tie that falls to the other side moves an output by a step of r times a weight.
    step = next(entry.scale for entry in plan.activations if entry.tensor == "r")
    assert np.abs(found - expected).max() <= 2 * step * np.abs(WEIGHTS["v"]).max() + 2e-5


def test_a_convolution_and_its_bias() -> None:
    """The bias stays float: in units of 16 bits it would not fit into int32."""
    graph = "g (float[N, 2, 4, 4] x) => (float[N, 3, 4, 4] y) { c = Conv(x, w, b)  y = Tanh(c) }"
    w, b = normal(4, 3, 2, 1, 1), np.asarray([1000, -2000, 0.5], np.float32)
    model = normalized(graph, w=w, b=b)
    plan = plan_for(model, {"x": (-4, 4), "c": (-2100, 2100)}, activation=KINDS["uint16"])
    assert plan.biases == ()
    assert plan.warnings == ()
    result = execute(plan, model)
    assert np.array_equal(result.graph.initializers["b"].const_value.numpy(), b)  # type: ignore[union-attr]
    scale = plan.arrays["weight/w/scale"].astype(float).reshape(3, 1, 1, 1)
    kernel = (np.clip(np.rint(w / scale), -127, 127) * scale)[:, :, 0, 0]
    x = normal(5, 2, 2, 4, 4)
    sums = np.einsum("nchw,mc->nmhw", through(plan, "x", x), kernel) + b.reshape(1, 3, 1, 1)
    expected = np.tanh(through(plan, "c", sums))
    step = next(entry.scale for entry in plan.activations if entry.tensor == "c")
    for level in LEVELS:
        found = run(result, {"x": x}, level)[0]  # type: ignore[arg-type]
        assert np.abs(found - expected).max() <= 1.01 * step


def test_form(tmp_path: Path) -> None:
    """Pairs of com.microsoft below opset 21, ONNX's own from there on; weights in ONNX's form."""
    expected = """QuantizeLinear(x, x_scale, x_zero_point) -> x_quantized
DequantizeLinear(x_quantized, x_scale, x_zero_point) -> x_dequantized
DequantizeLinear(v_quantized, v_scale, v_zero_point) -> v_dequantized
DequantizeLinear(w_quantized, w_scale, w_zero_point) -> w_dequantized
Gemm(x_dequantized, w_dequantized, b) -> r
QuantizeLinear(r, r_scale, r_zero_point) -> r_quantized
DequantizeLinear(r_quantized, r_scale, r_zero_point) -> r_dequantized
MatMul(r_dequantized, v_dequantized) -> y"""
    for opset, domain in ((17, "com.microsoft"), (21, "")):
        model = model_of(opset)
        result = execute(plan_for(model, RANGES, activation=KINDS["uint16"]), model)
        assert graph_text(result) == expected
        assert {node.domain for node in result.graph} == {"", domain}
        assert result.opset_imports == {"": opset, **({domain: 1} if domain else {})}
        save(result, tmp_path / "m.onnx")
        check_structure(tmp_path / "m.onnx", tmp_path / "m.onnx")


def test_the_provider_does_not_round_the_activations_again() -> None:
    """Else it makes MatMulNBits, which rounds them to 8 bits in blocks."""
    model = model_of(17)
    result = to_bytes(execute(plan_for(model, RANGES, activation=KINDS["uint16"]), model))
    assert [node.op for node in executed(result)].count("MatMul") == 1
    proto = onnx.load_from_string(result)
    weight = next(node for node in proto.graph.node if node.output[0] == "v_dequantized")
    weight.attribute[0].i = 1
    assert "MatMulNBits" in [node.op for node in executed(proto.SerializeToString())]


def test_one_site_of_16_bits_among_others(tmp_path: Path) -> None:
    model = model_of(17)
    site = next(node.name or "" for node in model.graph if node.op_type == "MatMul")
    rule = RuleOutcome(activation=ActivationOverride(type="int16"))
    seven = replace(WEIGHT_INT8, bits=7)  # processors without VNNI saturate on 8
    plan = plan_for(model, RANGES, outcomes={site: rule}, weight=seven)
    assert [(entry.tensor, entry.bits, entry.signed) for entry in plan.activations] == [
        ("x", 8, False),
        ("r", 16, True),
    ]
    assert [entry.node for entry in plan.biases] != []
    save(execute(plan, model), tmp_path / "m.onnx")
    found = report_kernels(tmp_path / "m.onnx", plan, {})
    # Gemm is meant to run in integers; ONNX Runtime does not fuse it with 16 bits behind it.
    assert (found.planned, found.missed, found.without_kernel) == (1, ("Gemm_0",), (site,))
    integers = execute(plan.model_copy(update={"format": "qoperator"}), model)
    assert [node.op_type for node in integers.graph].count("QGemm") == 1
    (said,) = kept_in_pairs(integers)
    assert said.startswith(f"1 MatMul ({site})")
    assert "its input 0 is int16, and integer operators take 8 bits" in said
    x = {"x": normal(6, 30, 8)}
    plain = run(tmp_path / "m.onnx", x, "all")[0]
    step = plan.activations[1].scale * float(np.abs(WEIGHTS["v"]).sum(axis=0).max())
    assert np.abs(run(integers, x, "all")[0] - plain).max() < step


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (ActivationOverride(), Scheme(8)),
        (ActivationOverride(symmetric=True), Scheme(8, symmetric=True)),
        (ActivationOverride(type="int8"), Scheme(8, signed=True)),
        (ActivationOverride(type="uint16"), Scheme(16)),
        (
            ActivationOverride(type="int16", symmetric=True),
            Scheme(16, signed=True, symmetric=True),
        ),
    ],
)
def test_override(override: ActivationOverride, expected: Scheme) -> None:
    assert with_override(Scheme(8), override) == expected


def quantized(folder: Path, kind: str | None, **more: Any) -> QuantizeResult:
    recipe = Recipe.model_validate({"version": 1, "activation": {"type": kind}, **more})
    path = write(folder / "float.onnx", GEMMS, **WEIGHTS)
    samples: list[Feeds] = [{"x": normal(20 + i, 16, 8)} for i in range(10)]
    options = RunOptions(timing=None)
    return quantize(path, samples, folder / "out.onnx", recipe=recipe, options=options)


def test_end_to_end(tmp_path: Path) -> None:
    """The default recipe but for the type: candidates of 16 bits are compared in the model."""
    narrow = quantized(tmp_path, None).verification
    wide = quantized(tmp_path, "uint16")
    assert narrow is not None
    assert wide.verification is not None
    assert (wide.verification.fidelity.sqnr_db or 0) > (narrow.fidelity.sqnr_db or 0) + 1
    told = [text for text in wide.warnings if "run in float" in text]
    assert len(told) == 1
    assert told[0].startswith("2 sites run in float")
    # Nothing is multiplied in integers that could saturate, on whatever processor.
    assert {(entry.bits, entry.pairs) for entry in wide.plan.weights} == {(8, ())}
    assert not any("no VNNI" in text for text in wide.warnings)


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
def test_every_method(tmp_path: Path, method: str) -> None:
    settings = CalibrationSettings.model_validate({"method": method})
    found = quantized(tmp_path, "int16", calibration=settings, channel_scaling="off")
    assert found.verification is not None
    assert (found.verification.fidelity.sqnr_db or 0) > 30


@pytest.mark.parametrize("by_rule", [False, True])
@pytest.mark.parametrize("kind", ["int8", "uint16", "int16"])
def test_a_constant_beside_such_activations_loads(tmp_path: Path, kind: str, by_rule: bool) -> None:
    """It is quantized only where the target has a kernel for integers of its kind."""
    text = """g (float[N, 3, 6, 6] x) => (float[N, 4, 6, 6] y) {
        a = Conv(x, w) b = Mul(a, c) z = Conv(b, v) y = Sigmoid(z)
    }"""
    # One factor for each row, which no Conv takes in.
    weights = {"w": normal(0, 4, 3, 1, 1), "c": normal(1, 1, 1, 6, 1), "v": normal(2, 4, 4, 1, 1)}
    path = write(tmp_path / "float.onnx", text, **weights)
    wanted: dict[str, Any] = {"activation": {"type": kind}}
    if by_rule:
        wanted = {"rules": [{"match": "*", **wanted}]}
    recipe = Recipe.model_validate({"version": 1, "scheme": "int8", **wanted}, strict=False)
    samples: list[Feeds] = [{"x": normal(20 + i, 2, 3, 6, 6)} for i in range(5)]
    options = RunOptions(timing=None)
    found = quantize(path, samples, tmp_path / "out.onnx", recipe=recipe, options=options)
    assert found.verification is not None
    assert (found.verification.fidelity.sqnr_db or 0) > 15
    assert bool(found.plan.constants) == by_rule


def test_a_rule_may_go_back_to_8_bits(tmp_path: Path) -> None:
    rule = Rule(match=("op:Gemm",), activation=ActivationOverride(type="uint8"))
    found = quantized(tmp_path, "uint16", rules=(rule,)).verification
    assert found is not None
    assert found.kernels.planned == 1
    assert found.kernels.without_kernel == ("MatMul_2",)
