"""The way through: quantize, apply, calibrate, inspect, on small models."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from onnxq import pipeline
from onnxq.algorithms import lookup_tables
from onnxq.calibration.stats import load_stats
from onnxq.errors import DataError, InternalError, ModelError, PlanError, UsageError
from onnxq.graph.io import digest, load
from onnxq.pipeline import QuantizeResult, RunOptions, apply, calibrate, inspect, quantize
from onnxq.plan import load_plan, save_plan
from onnxq.recipe import CalibrationSettings, Recipe, Rule
from onnxq.runtime.kernels import executed
from onnxq.stages import bundled
from onnxq.stages.calibrate import ERROR_SAMPLES
from tests.small_models import Feeds, normal, run, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxq.plan import Plan

UNTIMED = RunOptions(timing=None)
PLAIN = Recipe(channel_scaling="off")
MINMAX = Recipe(channel_scaling="off", calibration=CalibrationSettings(method="minmax"))
ONE_SCALE = Recipe(
    rules=(Rule.model_validate({"match": ("op:Gemm",), "weight": {"granularity": "tensor"}}),)
)

GRAPH = """g (float[N, 8] x) => (float[N, 4] y) {
    a = Gemm(x, w, b)
    r = Relu(a)
    y = Gemm(r, v)
}"""


def weights() -> dict[str, NDArray[Any]]:
    return {"w": normal(0, 8, 16), "b": normal(1, 16), "v": normal(2, 16, 4)}


def batches(count: int = 6, *shape: int, seed: int = 10) -> list[Feeds]:
    return [{"x": normal(seed + i, *(shape or (5, 8)))} for i in range(count)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path / "model.onnx", GRAPH, **weights())


@pytest.fixture
def small_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of any size are stored as integers."""
    monkeypatch.setattr(lookup_tables, "_SMALL_TABLE", 0)


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def decisions(result: QuantizeResult) -> dict[str, str]:
    return {site.name: site.decision for site in result.plan.sites}


# What quantize does.


@pytest.mark.parametrize("recipe", [Recipe(), PLAIN, MINMAX, ONE_SCALE])
def test_quantize_writes_a_verified_model(model: Path, tmp_path: Path, recipe: Recipe) -> None:
    output = tmp_path / "int8.onnx"
    result = quantize(model, batches(8, 40, 8), output, recipe=recipe, options=UNTIMED)
    assert result.output == output
    assert result.verification is not None
    assert (result.verification.fidelity.sqnr_db or 0) > 25
    assert result.verification.fidelity.independent
    assert result.verification.kernels.integer == result.verification.kernels.planned == 2
    assert result.verification.kernels.mac_share == 1.0
    assert (result.missed, result.scheme, result.target) == ("", "int8", "cpu")
    assert set(decisions(result).values()) == {"int8"}
    assert names(tmp_path) == ["int8.onnx", "model.onnx"]
    feeds = batches(1, seed=99)[0]
    for level in ("none", "all"):
        found = run(output, feeds, "none" if level == "none" else "all")[0]
        expected = run(model, feeds)[0]
        assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


def test_inputs_outputs_and_metadata_stay(tmp_path: Path, model: Path) -> None:
    original = onnx.load(model)
    onnx.helper.set_model_props(original, {"author": "nobody"})
    onnx.save(original, model)
    quantize(model, batches(), tmp_path / "o.onnx", options=UNTIMED)
    result = onnx.load(tmp_path / "o.onnx")
    assert list(result.graph.input) == list(original.graph.input)
    assert list(result.graph.output) == list(original.graph.output)
    props = {entry.key: entry.value for entry in result.metadata_props}
    assert props["author"] == "nobody"
    assert props["onnxq.float_model"] == digest(load(model))
    assert props["onnxq.compared_on"] == "held-out samples"


def test_a_kept_site_stays_float_with_the_reason(tmp_path: Path, model: Path) -> None:
    site = inspect(model).sites[1].name
    recipe = Recipe(rules=(Rule(match=(site,), keep="float", reason="by hand"),))
    result = quantize(model, batches(), tmp_path / "o.onnx", recipe=recipe, options=UNTIMED)
    entry = next(entry for entry in result.plan.sites if entry.name == site)
    assert entry.decision == "float"
    assert "by hand" in entry.reason


def test_a_quantized_model_is_refused(tmp_path: Path, model: Path) -> None:
    quantize(model, batches(), tmp_path / "o.onnx", options=UNTIMED)
    with pytest.raises(ModelError, match="quantized already"):
        quantize(tmp_path / "o.onnx", batches(), tmp_path / "p.onnx", options=UNTIMED)
    assert inspect(tmp_path / "o.onnx").quantized_form


def test_a_model_without_sites_is_written_unchanged(tmp_path: Path) -> None:
    model = write(tmp_path / "m.onnx", "g (float[N, 8] x) => (float[N, 8] y) { y = Tanh(x) }")
    result = quantize(model, batches(), tmp_path / "o.onnx", options=UNTIMED)
    assert digest(load(tmp_path / "o.onnx")) == digest(load(model))
    assert onnx.load(tmp_path / "o.onnx").metadata_props == onnx.load(model).metadata_props
    assert result.verification is None
    assert result.calibration is None
    assert any("written unchanged" in text for text in result.warnings)


def test_the_reason_is_given_where_no_site_can_be_quantized(tmp_path: Path) -> None:
    text = "g (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y) { y = Conv(x, w) }"
    model = write(tmp_path / "m.onnx", text, w=normal(0, 4, 3, 1, 1))
    result = quantize(model, batches(4, 1, 3, 8, 8), tmp_path / "o.onnx", options=UNTIMED)
    assert digest(load(tmp_path / "o.onnx")) == digest(load(model))
    assert any("must keep its value" in text for text in result.warnings)


# Values that must be kept.


def quantized_outputs(
    folder: Path, text: str, samples: list[Feeds], feeds: Feeds, **constants: NDArray[Any]
) -> tuple[list[NDArray[Any]], list[NDArray[Any]], onnx.ModelProto]:
    """Outputs of the float and of the quantized model, and the quantized model."""
    model = write(folder / "keep.onnx", text, **constants)
    result = quantize(model, samples, folder / "kept.onnx", recipe=PLAIN, options=UNTIMED)
    assert result.verification is not None
    found = run(folder / "kept.onnx", feeds, "all")
    return run(model, feeds, "all"), found, onnx.load(folder / "kept.onnx")


def readers(model: onnx.ModelProto, tensor: str) -> set[str]:
    return {node.op_type for node in model.graph.node if tensor in node.input}


def test_a_graph_output_keeps_its_value(tmp_path: Path) -> None:
    text = """g (float[N, 8] x) => (float[N, 8] h, float[N, 4] y) {
        h = Tanh(x)
        y = MatMul(h, w)
    }"""
    feeds = batches(1)[0]
    expected, found, model = quantized_outputs(tmp_path, text, batches(), feeds, w=normal(0, 8, 4))
    np.testing.assert_array_equal(found[0], expected[0])
    assert not np.array_equal(found[1], expected[1])
    assert readers(model, "h") == {"QuantizeLinear"}


@pytest.mark.usefixtures("small_tables")
def test_an_embedding_that_is_an_output_keeps_its_value(tmp_path: Path) -> None:
    text = """g (int64[N] i) => (float[N, 8] e, float[N, 4] y) {
        e = Gather(t, i)
        y = MatMul(e, w)
    }"""
    samples: list[Feeds] = [{"i": np.asarray([k, 3, 19 - k])} for k in range(6)]
    expected, found, _ = quantized_outputs(
        tmp_path, text, samples, samples[0], t=normal(0, 20, 8), w=normal(1, 8, 4)
    )
    np.testing.assert_array_equal(found[0], expected[0])


def test_an_activation_that_a_subgraph_captures_keeps_its_value(tmp_path: Path) -> None:
    text = """g (float[N, 8] x, bool c) => (float[N, 4] y, float[N, 8] z) {
        h = Tanh(x)
        y = MatMul(h, w)
        z = If (c) <
            then_branch = t () => (float[N, 8] a) { a = Neg(h) },
            else_branch = e () => (float[N, 8] b) { b = Exp(h) }
        >
    }"""
    samples: list[Feeds] = [{**feeds, "c": np.asarray(True)} for feeds in batches()]
    expected, found, _ = quantized_outputs(tmp_path, text, samples, samples[0], w=normal(0, 8, 4))
    np.testing.assert_array_equal(found[1], expected[1])
    assert not np.array_equal(found[0], expected[0])


def test_a_conv_whose_output_a_subgraph_captures_stays_float(tmp_path: Path) -> None:
    text = """g (float[N, 3, 4, 4] x, bool c) => (float[N, 3, 4, 4] y, float[N, 3, 4, 4] z) {
        a = Conv(x, w)
        r = Relu(a)
        d = Conv(r, v)
        y = Tanh(d)
        z = If (c) <
            then_branch = t () => (float[N, 3, 4, 4] p) { p = Neg(r) },
            else_branch = e () => (float[N, 3, 4, 4] q) { q = Exp(r) }
        >
    }"""
    samples: list[Feeds] = [{**feeds, "c": np.asarray(False)} for feeds in batches(5, 2, 3, 4, 4)]
    expected, found, model = quantized_outputs(
        tmp_path, text, samples, samples[0], w=normal(0, 3, 3, 1, 1), v=normal(1, 3, 3, 1, 1)
    )
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-6)
    assert "Relu" in {node.op_type for node in model.graph.node}


def test_what_feeds_shape_arithmetic_keeps_its_value(tmp_path: Path) -> None:
    """Rounded, the greatest value of h would be another length."""
    text = """g (float[1, 8] x) => (float[1, 4] y, float[L] z) {
        h = Mul(x, k)
        y = MatMul(h, w)
        top = ReduceMax<keepdims = 0>(h)
        length = Cast<to = 7>(top)
        shape = Reshape(length, one)
        z = ConstantOfShape(shape)
    }"""
    samples: list[Feeds] = [{"x": np.abs(normal(i, 1, 8)) + 1} for i in range(8)]
    constants: dict[str, NDArray[Any]] = {
        "k": np.full(8, 777, np.float32),
        "w": normal(0, 8, 4),
        "one": np.asarray([1]),
    }
    for feeds in samples:
        expected, found, _ = quantized_outputs(tmp_path, text, samples, feeds, **constants)
        assert found[1].shape == expected[1].shape


def test_the_mean_of_a_kept_tensor_is_not_rounded_in_front_of_float_readers(
    tmp_path: Path,
) -> None:
    text = """g (float[N, 8] x) => (float[N, 4] y, float[N, 8] s) {
        h = Tanh(x)
        y = MatMul(h, w)
        s = Softmax(h)
    }"""
    feeds = batches(1)[0]
    expected, found, _ = quantized_outputs(tmp_path, text, batches(), feeds, w=normal(0, 8, 4))
    np.testing.assert_array_equal(found[1], expected[1])


# Odd models and data.


@pytest.mark.parametrize("method", ["minmax", "auto", "percentile"])
@pytest.mark.parametrize("scaling", ["auto", "off"])
def test_nan_keeps_a_site_float_with_a_reason(tmp_path: Path, method: Any, scaling: Any) -> None:
    text = """g (float[N, 8] x) => (float[N, 4] y, float[N, 4] z) {
        h = Log(x)
        y = MatMul(h, w)
        z = MatMul(x, v)
    }"""
    model = write(tmp_path / "m.onnx", text, w=normal(0, 8, 4), v=normal(1, 8, 4))
    recipe = Recipe(channel_scaling=scaling, calibration=CalibrationSettings(method=method))
    result = quantize(model, batches(), tmp_path / "o.onnx", recipe=recipe, options=UNTIMED)
    spoilt, other = result.plan.sites
    assert (spoilt.decision, other.decision) == ("float", "int8")
    assert "NaN" in spoilt.reason
    assert "'h'" in spoilt.reason


@pytest.mark.parametrize("recipe", [Recipe(), PLAIN, MINMAX])
def test_nan_in_front_of_every_site_leaves_the_model_unchanged(
    tmp_path: Path, recipe: Recipe
) -> None:
    text = "g (float[N, 8] x) => (float[N, 4] y) { h = Log(x) y = MatMul(h, w) }"
    model = write(tmp_path / "m.onnx", text, w=normal(0, 8, 4))
    options = RunOptions(timing=None, plan_out=tmp_path / "plan")
    result = quantize(model, batches(), tmp_path / "o.onnx", recipe=recipe, options=options)
    assert set(decisions(result).values()) == {"float"}
    assert (result.scheme, result.plan.scheme) == ("float", "float")
    assert result.output == tmp_path / "o.onnx"
    assert result.verification is None
    (warning,) = [text for text in result.warnings if "written unchanged" in text]
    assert "NaN was seen in its input 'h'" in warning
    assert digest(load(tmp_path / "o.onnx")) == digest(load(model))
    assert onnx.load(tmp_path / "o.onnx").metadata_props == onnx.load(model).metadata_props
    assert load_plan(tmp_path / "plan").model_dump() == result.plan.model_dump()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bias_that_is_not_finite_keeps_its_site_float(tmp_path: Path, bad: float) -> None:
    bias = normal(1, 16)
    bias[3] = bad
    text = """g (float[N, 8] x) => (float[N, 16] z, float[N, 16] y) {
        z = Gemm(x, w, b)
        y = MatMul(x, v)
    }"""
    model = write(tmp_path / "m.onnx", text, w=normal(0, 8, 16), b=bias, v=normal(2, 8, 16))
    result = quantize(model, batches(), tmp_path / "o.onnx", options=UNTIMED)
    spoilt, other = result.plan.sites
    assert (spoilt.decision, other.decision) == ("float", "int8")
    assert "'b' holds 1 values that are NaN or infinite" in spoilt.reason


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bias_behind_a_matmul_that_is_not_finite_is_no_fault(tmp_path: Path, bad: float) -> None:
    """It has no integers: the Add keeps it, and where the two run in float that is told."""
    text = """g (float[N, 8] x) => (float[N, 4] y, float[N, 4] z) {
        h = MatMul(x, w)
        y = Add(h, b)
        z = MatMul(x, v)
    }"""
    bias = normal(1, 4)
    bias[2] = bad
    model = write(tmp_path / "m.onnx", text, w=normal(0, 8, 4), b=bias, v=normal(2, 8, 4))
    result = quantize(model, batches(), tmp_path / "o.onnx", options=UNTIMED)
    assert decisions(result)[result.plan.sites[1].name] == "int8"
    assert result.plan.biases == ()
    assert result.verification is not None
    missed = result.verification.kernels.missed
    assert any("run in float" in text for text in result.warnings) is bool(missed)
    feeds = batches(1, seed=99)[0]
    found, expected = run(tmp_path / "o.onnx", feeds, "all"), run(model, feeds)
    finite = np.isfinite(bias)
    np.testing.assert_array_equal(found[0][:, ~finite], expected[0][:, ~finite])
    for got, wanted in ((found[0][:, finite], expected[0][:, finite]), (found[1], expected[1])):
        assert np.abs(got - wanted).max() < 0.1 * np.abs(wanted).max()


@pytest.mark.parametrize("bound", [1.0, 3.0, 6.0, 0.7])
def test_a_clip_as_far_below_0_as_above_is_absorbed(bound: float, tmp_path: Path) -> None:
    """To 255 steps its bounds lie at ties: the rounding of the scale must not decide."""
    text = """g (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y) {
        c = Conv(x, w)
        r = Clip(c, lo, hi)
        d = Conv(r, v)
        y = Sigmoid(d)
    }"""
    weights = {"w": 4 * bound * normal(0, 4, 3, 1, 1), "v": normal(1, 4, 4, 1, 1)}
    bounds = {"lo": np.asarray(-bound, np.float32), "hi": np.asarray(bound, np.float32)}
    model = write(tmp_path / "m.onnx", text, **weights, **bounds)
    recipe = Recipe.model_validate({"scheme": "int8", "calibration": {"method": "minmax"}})
    data = batches(5, 1, 3, 8, 8)
    result = quantize(model, data, tmp_path / "o.onnx", recipe=recipe, options=UNTIMED)
    assert [entry.op for entry in result.plan.absorbed] == ["Clip"]
    assert result.verification is not None
    assert result.verification.kernels.integer == 2


def test_a_bound_of_a_clip_that_a_caller_replaces(tmp_path: Path) -> None:
    text = """g (float[N, 3, 8, 8] x, float hi) => (float[N, 4, 8, 8] y) {
        c = Conv(x, w)
        r = Clip(c, lo, hi)
        d = Conv(r, v)
        y = Sigmoid(d)
    }"""
    model = write(
        tmp_path / "m.onnx",
        text,
        w=normal(0, 4, 3, 1, 1),
        v=normal(1, 4, 4, 1, 1),
        lo=np.asarray(0, np.float32),
        hi=np.asarray(6, np.float32),
    )
    result = quantize(model, batches(5, 1, 3, 8, 8), tmp_path / "o.onnx", options=UNTIMED)
    assert set(decisions(result).values()) == {"int8"}
    assert result.plan.absorbed == ()
    feeds = batches(1, 1, 3, 8, 8, seed=99)[0]
    for high in (0.5, 6.0, 50.0):
        replaced = {**feeds, "hi": np.asarray(high, np.float32)}
        expected = run(model, replaced)[0]
        for level in ("none", "all"):
            found = run(tmp_path / "o.onnx", replaced, "none" if level == "none" else "all")[0]
            np.testing.assert_allclose(found, expected, atol=0.05)


@pytest.mark.parametrize("shape", [(4,), (1, 4)])
def test_a_vector_times_a_matrix_keeps_the_rank_of_its_output(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    """A bias of two axes gives the sum two, though the activation has one."""
    declared = ", ".join(map(str, shape))
    text = f"g (float[8] x) => (float[{declared}] y) {{ h = MatMul(x, w) y = Add(h, b) }}"
    model = write(tmp_path / "m.onnx", text, w=normal(0, 8, 4), b=normal(1, *shape))
    result = quantize(model, batches(6, 8), tmp_path / "o.onnx", recipe=PLAIN, options=UNTIMED)
    assert set(decisions(result).values()) == {"int8"}
    onnx.checker.check_model(str(tmp_path / "o.onnx"), full_check=True)
    feeds = batches(1, 8, seed=99)[0]
    expected = run(model, feeds)[0]
    assert expected.shape == shape
    for found in (run(tmp_path / "o.onnx", feeds)[0], run(tmp_path / "o.onnx", feeds, "all")[0]):
        assert found.shape == shape
        assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


def test_a_weight_that_is_stored_twice_is_told(tmp_path: Path) -> None:
    text = """g (float[N, 8] x) => (float[N, 8] y, float[N, 8] z) {
        h = Tanh(x)
        y = MatMul(x, w)
        z = MatMul(h, w)
    }"""
    model = write(tmp_path / "m.onnx", text, w=normal(0, 8, 8))
    kept = inspect(model).sites[1].name
    for rules in ((Rule(match=(kept,), keep="float"),), ()):
        recipe = Recipe(rules=rules)
        result = quantize(model, batches(), tmp_path / "o.onnx", recipe=recipe, options=UNTIMED)
        told = [text for text in result.warnings if "stored twice" in text]
        assert len(told) == len(rules)
        assert all(text.startswith("w: ") and kept in text for text in told)
        stored = {entry.name for entry in onnx.load(tmp_path / "o.onnx").graph.initializer}
        assert ("w" in stored) is bool(rules)


def test_a_site_that_reads_mask_constants_stays_float(tmp_path: Path) -> None:
    text = """g (float[N, 8] x, float[N, 8] z) => (float[N, 4] y) {
        h = Mul(x, k)
        a = MatMul(h, w)
        b = MatMul(z, w)
        y = Add(a, b)
    }"""
    constants = {"k": np.ones(8, np.float32) * 2, "w": normal(0, 8, 4)}
    model = write(tmp_path / "m.onnx", text, **constants)
    samples = [{"x": normal(i, 5, 8), "z": normal(9 + i, 5, 8)} for i in range(6)]
    samples[0]["x"][0, 0] = -1e38
    options = RunOptions(timing=None, eval_data=samples[1:2])
    calibration = [samples[0], *samples[2:]]
    result = quantize(model, calibration, tmp_path / "o.onnx", recipe=PLAIN, options=options)
    assert sorted(decisions(result).values()) == ["float", "int8"]
    why = "stays float: infinite values or mask constants were seen in its input 'h'"
    assert any(why in text for text in result.warnings)


def test_an_output_that_a_clip_never_passes_is_no_fault(tmp_path: Path) -> None:
    """A range of zero alone has no scale that saturates where the clip does."""
    text = """g (float[1, 3, 8, 8] x) => (float[1, 4, 8, 8] y) {
        c = Conv(x, w, b)
        r = Clip(c, zero, six)
        d = Conv(r, v)
        y = Sigmoid(d)
    }"""
    model = write(
        tmp_path / "m.onnx",
        text,
        w=normal(0, 4, 3, 1, 1),
        b=np.full(4, -1000, np.float32),
        v=normal(1, 4, 4, 1, 1),
        zero=np.asarray(0, np.float32),
        six=np.asarray(6, np.float32),
    )
    quantize(model, batches(5, 1, 3, 8, 8), tmp_path / "o.onnx", options=UNTIMED)
    feeds = batches(1, 1, 3, 8, 8)[0]
    np.testing.assert_allclose(
        run(tmp_path / "o.onnx", feeds, "all")[0], run(model, feeds)[0], atol=0.05
    )


def test_a_symmetric_activation_behind_a_relu_is_no_fault(tmp_path: Path) -> None:
    """The quantizer of a symmetric range does not saturate at 0, so it cannot absorb the Relu."""
    text = """g (float[1, 3, 8, 8] x) => (float[1, 4, 8, 8] y) {
        c = Conv(x, w)
        r = Relu(c)
        d = Conv(r, v)
        y = Sigmoid(d)
    }"""
    model = write(tmp_path / "m.onnx", text, w=normal(0, 4, 3, 1, 1), v=normal(1, 4, 4, 1, 1))
    rule = Rule.model_validate({"match": ("op:Conv",), "activation": {"symmetric": True}})
    recipe = Recipe(rules=(rule,))
    quantize(model, batches(5, 1, 3, 8, 8), tmp_path / "o.onnx", recipe=recipe, options=UNTIMED)
    feeds = batches(1, 1, 3, 8, 8)[0]
    np.testing.assert_allclose(
        run(tmp_path / "o.onnx", feeds, "all")[0], run(model, feeds)[0], atol=0.1
    )


@pytest.mark.usefixtures("small_tables")
def test_a_table_that_is_a_weight_too(tmp_path: Path) -> None:
    text = """g (int64[N] i) => (float[N, 20] y) {
        e = Gather(t, i)
        h = Tanh(e)
        y = Gemm<transB = 1>(h, t)
    }"""
    model = write(tmp_path / "m.onnx", text, t=normal(0, 20, 8))
    samples: list[Feeds] = [{"i": np.asarray([k, 3, 19 - k])} for k in range(6)]
    result = quantize(model, samples, tmp_path / "o.onnx", options=UNTIMED)
    assert result.verification is not None
    assert (result.verification.fidelity.sqnr_db or 0) > 25
    assert "t" not in [entry.name for entry in onnx.load(tmp_path / "o.onnx").graph.initializer]


def test_one_sample_is_not_independently_verified(model: Path, tmp_path: Path) -> None:
    result = quantize(model, batches(1), tmp_path / "o.onnx", options=UNTIMED)
    assert any("not independently verified" in text for text in result.warnings)
    assert result.verification is not None
    assert not result.verification.fidelity.independent
    props = {p.key: p.value for p in onnx.load(tmp_path / "o.onnx").metadata_props}
    assert "not independently verified" in props["onnxq.compared_on"]


def test_evaluation_data_of_its_own_is_independent(model: Path, tmp_path: Path) -> None:
    options = RunOptions(timing=None, eval_data=batches(2, seed=70))
    result = quantize(model, batches(1), tmp_path / "o.onnx", options=options)
    assert result.verification is not None
    assert result.verification.fidelity.independent
    assert result.verification.fidelity.samples == 2
    assert result.calibration is not None
    assert result.calibration.samples == 1


def test_evaluating_on_the_calibration_data_is_not_independent(model: Path, tmp_path: Path) -> None:
    options = RunOptions(timing=None, eval_data=batches())
    result = quantize(model, batches(), tmp_path / "o.onnx", options=options)
    assert any("not independently verified" in text for text in result.warnings)
    assert not result.plan.independent


@pytest.mark.parametrize("shared", [1, 0])
def test_a_single_shared_sample_takes_the_independence_away(
    model: Path, tmp_path: Path, shared: int
) -> None:
    """Also where it is another array, in other data, at another place."""
    fresh = batches(4, seed=70)
    again = [{"x": feeds["x"].copy()} for feeds in batches()[2 : 2 + shared]]
    options = RunOptions(timing=None, eval_data=[*fresh, *again])
    result = quantize(model, batches(), tmp_path / "o.onnx", options=options)
    assert result.verification is not None
    independent = not shared
    assert result.verification.fidelity.independent is result.plan.independent is independent
    told = any("not independently verified" in text for text in result.warnings)
    assert told is not independent
    props = {p.key: p.value for p in onnx.load(tmp_path / "o.onnx").metadata_props}
    assert ("not independently verified" in props["onnxq.compared_on"]) is not independent


def test_held_out_samples_that_calibration_has_twice_are_no_proof(
    model: Path, tmp_path: Path
) -> None:
    result = quantize(model, batches(1) * 6, tmp_path / "o.onnx", options=UNTIMED)
    assert not result.plan.independent


def test_shared_samples_that_calibration_does_not_take_do_no_harm(
    model: Path, tmp_path: Path
) -> None:
    """Of what is evaluated on, only the samples that calibration really saw count."""
    recipe = Recipe(calibration=CalibrationSettings(samples=2, method="minmax"))
    options = RunOptions(timing=None, eval_data=batches(1, seed=70))
    samples = [*batches(2), *batches(2)]
    result = quantize(model, samples, tmp_path / "o.onnx", recipe=recipe, options=options)
    assert result.plan.independent


# Plans.


@pytest.mark.parametrize("recipe", [Recipe(), PLAIN, ONE_SCALE])
def test_apply_gives_the_same_bytes_each_time(model: Path, tmp_path: Path, recipe: Recipe) -> None:
    plan = tmp_path / "plan"
    options = RunOptions(timing=None, plan_out=plan)
    quantize(model, batches(), tmp_path / "o.onnx", recipe=recipe, options=options)
    expected = (tmp_path / "o.onnx").read_bytes()
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        apply(model, plan, tmp_path / str(number) / "o.onnx")
        assert (tmp_path / str(number) / "o.onnx").read_bytes() == expected


@pytest.mark.parametrize("seed", [0, 1])
def test_quantizing_again_gives_the_same_bytes(model: Path, tmp_path: Path, seed: int) -> None:
    """With statistics from the cache as well as with none."""
    recipe = Recipe(seed=seed)
    first = quantize(model, batches(), tmp_path / "a.onnx", recipe=recipe, options=UNTIMED)
    second = quantize(model, batches(), tmp_path / "b.onnx", recipe=recipe, options=UNTIMED)
    assert first.calibration is not None
    assert second.calibration is not None
    assert (first.calibration.reused, second.calibration.reused) == (False, True)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_the_plan_of_another_model_is_refused(model: Path, tmp_path: Path) -> None:
    options = RunOptions(timing=None, plan_out=tmp_path / "plan")
    quantize(model, batches(), tmp_path / "o.onnx", options=options)
    other = write(tmp_path / "other.onnx", GRAPH, **{**weights(), "v": normal(9, 16, 4)})
    with pytest.raises(PlanError, match="another model") as caught:
        apply(other, tmp_path / "plan", tmp_path / "p.onnx")
    assert caught.value.where == str(other)
    assert not (tmp_path / "p.onnx").exists()


def test_a_tampered_plan_is_refused_and_writes_nothing(model: Path, tmp_path: Path) -> None:
    options = RunOptions(timing=None, plan_out=tmp_path / "plan")
    quantize(model, batches(), tmp_path / "o.onnx", options=options)
    path = tmp_path / "plan" / "plan.json"
    content = json.loads(path.read_text())
    content["activations"][0]["tensor"] = "nowhere"
    path.write_text(json.dumps(content))
    before = names(tmp_path)
    with pytest.raises(PlanError, match="nowhere"):
        apply(model, tmp_path / "plan", tmp_path / "p.onnx")
    assert names(tmp_path) == before


def test_a_plan_that_lacks_its_factors_is_refused(tmp_path: Path) -> None:
    skew = np.geomspace(0.01, 100, 8, dtype=np.float32)
    text = "g (float[N, 8] x) => (float[N, 4] y) { h = Tanh(x) s = Mul(h, k) y = MatMul(s, w) }"
    model = write(tmp_path / "m.onnx", text, k=skew, w=normal(0, 8, 4) / skew[:, None])
    plan = tmp_path / "plan"
    options = RunOptions(timing=None, plan_out=plan)
    decided = quantize(model, batches(), tmp_path / "o.onnx", options=options).plan
    factors = {f"scaling/{entry.tensor}/factor" for entry in decided.scalings}
    assert factors
    assert factors <= decided.arrays.keys()
    arrays = {key: array for key, array in decided.arrays.items() if key not in factors}
    save_plan(decided.model_copy(update={"arrays": arrays}), plan)
    with pytest.raises(PlanError, match=r"scaling/.*/factor") as caught:
        apply(model, plan, tmp_path / "p.onnx")
    assert caught.value.code == "plan.incomplete"
    assert not (tmp_path / "p.onnx").exists()


# The cache.


def assert_same_plan(found: Plan, expected: Plan) -> None:
    assert found.model_dump() == expected.model_dump()
    assert found.arrays.keys() == expected.arrays.keys()
    for key, array in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[key], array)


def test_errors_measured_on_other_samples_are_not_reused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seed alone chooses on which of many samples candidates are compared."""
    text = """g (float[N, 16] x) => (float[N, 8] y) {
        a = MatMul(x, w)
        b = Softplus(a)
        c = MatMul(b, v)
        y = Tanh(c)
    }"""
    model = write(tmp_path / "m.onnx", text, w=normal(0, 16, 24), v=normal(1, 24, 8) / 20)
    rng = np.random.default_rng(2)
    samples: list[Feeds] = [
        {"x": rng.standard_t(2.5, (4, 16)).astype(np.float32)} for _ in range(ERROR_SAMPLES + 16)
    ]
    options = RunOptions(timing=None, eval_data=batches(2, 4, 16, seed=90))

    def result(seed: int) -> QuantizeResult:
        recipe = Recipe(seed=seed)
        return quantize(model, samples, tmp_path / "o.onnx", recipe=recipe, options=options)

    def reused(found: QuantizeResult) -> bool:
        assert found.calibration is not None
        return found.calibration.reused

    first, second, again = result(0), result(1), result(0)
    assert [reused(found) for found in (first, second, again)] == [False, False, True]
    assert_same_plan(again.plan, first.plan)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    assert_same_plan(second.plan, result(1).plan)


def test_other_samples_are_calibrated_afresh(model: Path, tmp_path: Path) -> None:
    for seed in (10, 40):
        result = quantize(
            model, batches(seed=seed), tmp_path / "o.onnx", recipe=PLAIN, options=UNTIMED
        )
        assert result.calibration is not None
        assert not result.calibration.reused


def test_the_order_of_runs_does_not_change_a_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one recipe measured is not taken for what another one asks."""
    text = """g (float[N, 16] x) => (float[N, 8] y, float[N, 8] z) {
        y = MatMul(x, w)
        z = MatMul(x, v)
    }"""
    skew = np.geomspace(0.01, 100, 16, dtype=np.float32)
    model = write(
        tmp_path / "m.onnx",
        text,
        w=normal(0, 16, 8) / skew[:, None],
        v=normal(1, 16, 8) * np.abs(normal(2, 16))[:, None],
    )
    samples: list[Feeds] = [{"x": normal(20 + i, 20, 16) * skew} for i in range(6)]
    other = inspect(model).sites[1].name
    narrow = Recipe.model_validate(
        {
            "rules": (
                Rule(match=(other,), keep="float"),
                Rule.model_validate({"match": ("op:MatMul",), "weight": {"bits": 7}}),
            )
        }
    )
    plans = {}
    for name, recipes in {"alone": [Recipe()], "after": [narrow, Recipe()]}.items():
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        for recipe in recipes:
            result = quantize(model, samples, tmp_path / "o.onnx", recipe=recipe, options=UNTIMED)
        plans[name] = result.plan
    assert_same_plan(plans["after"], plans["alone"])


def test_a_damaged_cache_is_no_failure(model: Path, tmp_path: Path, cache_home: Path) -> None:
    quantize(model, batches(), tmp_path / "o.onnx", options=UNTIMED)
    kept = [path for path in cache_home.rglob("*") if path.is_file()]
    assert kept
    for path in kept:
        path.write_bytes(path.read_bytes()[:-7])
    result = quantize(model, batches(), tmp_path / "o.onnx", options=UNTIMED)
    assert result.calibration is not None
    assert not result.calibration.reused


# Bounds and failures.


def test_a_missed_bound_writes_nothing(model: Path, tmp_path: Path) -> None:
    options = RunOptions(timing=None, min_sqnr=200.0, plan_out=tmp_path / "plan")
    result = quantize(model, batches(), tmp_path / "o.onnx", options=options)
    assert result.output is None
    assert "200 dB" in result.missed
    assert names(tmp_path) == ["model.onnx"]


def test_a_missed_bound_that_is_allowed_writes(model: Path, tmp_path: Path) -> None:
    options = RunOptions(timing=None, min_sqnr=200.0, allow_miss=True)
    result = quantize(model, batches(), tmp_path / "o.onnx", options=options)
    assert result.output == tmp_path / "o.onnx"
    assert result.missed
    assert result.output.exists()


@pytest.mark.parametrize("step", ["verify", "execute", "publish", "save"])
def test_a_failure_leaves_the_old_output(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    output = tmp_path / "o.onnx"
    output.write_bytes(b"an older result")

    def fail(*_: object, **__: object) -> None:
        code, text = "test.failure", "a fault in the middle"
        raise InternalError(code, text)

    monkeypatch.setattr(bundled if step == "publish" else pipeline, step, fail)
    with pytest.raises(InternalError, match="in the middle"):
        quantize(model, batches(), output, options=UNTIMED)
    assert output.read_bytes() == b"an older result"
    assert names(tmp_path) == ["model.onnx", "o.onnx"]


def test_an_interrupt_leaves_the_old_output(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "o.onnx"
    output.write_bytes(b"an older result")

    def interrupt(step: str, done: int, total: int) -> None:
        if step == "compare":
            raise KeyboardInterrupt

    options = RunOptions(timing=None, report=interrupt)
    with pytest.raises(KeyboardInterrupt):
        quantize(model, batches(), output, options=options)
    assert output.read_bytes() == b"an older result"
    assert names(tmp_path) == ["model.onnx", "o.onnx"]


def test_bad_samples_write_nothing(model: Path, tmp_path: Path) -> None:
    samples = batches()
    samples[2]["x"] = samples[2]["x"][:, :3]
    with pytest.raises(DataError):
        quantize(model, samples, tmp_path / "o.onnx", options=UNTIMED)
    assert names(tmp_path) == ["model.onnx"]


@pytest.mark.parametrize("place", ["data", "eval_data"])
@pytest.mark.parametrize("scheme", ["auto", "int8", "int8-dynamic", "int8-weights"])
def test_every_sample_is_checked_before_the_work(
    model: Path, tmp_path: Path, scheme: Any, place: str
) -> None:
    """The last of them, too: nothing is observed, tried or compared before it is refused."""
    good, bad = batches(), batches(seed=40)
    bad[-1]["x"][0, 0] = np.nan

    def report(step: str, done: int, total: int) -> None:
        pytest.fail(f"{step} began")

    data, eval_data = (bad, good) if place == "data" else (good, bad)
    options = RunOptions(timing=None, eval_data=eval_data, report=report)
    with pytest.raises(DataError, match="1 of 40 elements") as caught:
        quantize(model, data, tmp_path / "o.onnx", recipe=Recipe(scheme=scheme), options=options)
    assert caught.value.where.startswith("sample 5")
    for refused in (
        lambda: inspect(model, bad, recipe=Recipe(scheme=scheme), report=report),
        lambda: calibrate(model, bad, tmp_path / "s", report=report),
    ):
        with pytest.raises(DataError, match="1 of 40 elements"):
            refused()
    assert names(tmp_path) == ["model.onnx"]


def test_what_is_filled_in_is_said(tmp_path: Path) -> None:
    text = """g (int64[B, T] input_ids, int64[B, T] attention_mask, int64[B, T] position_ids)
        => (float[B, T, 4] y) {
        i = Add(input_ids, position_ids) e = Gather(t, i) m = Cast<to = 1>(attention_mask)
        u = Unsqueeze(m, last) k = Mul(e, u) y = MatMul(k, w)
    }"""
    constants = {"t": normal(0, 30, 8), "w": normal(1, 8, 4), "last": np.asarray([2])}
    model = write(tmp_path / "m.onnx", text, **constants)
    samples: list[Feeds] = [{"input_ids": np.asarray([[k, 3, 19 - k]])} for k in range(6)]
    result = quantize(model, samples, tmp_path / "o.onnx", options=UNTIMED)
    seen = inspect(model, samples)
    for name, value in (("attention_mask", "ones"), ("position_ids", "0, 1, 2")):
        said = f"{name} is not in the data: filled with {value}"
        assert any(said in text for text in result.warnings)
        assert any(said in text for text in seen.notes)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"w": normal(0, 8, 16).astype(np.float64)}, "runtime.load"),
        ({"w": np.ones((8, 16), np.int64)}, "runtime.load"),
        ({"op_type": "Glue"}, "runtime.unknown_op"),
        ({"domain": "mine"}, "runtime.unknown_op"),
        ({"elem_type": onnx.TensorProto.INT64}, "runtime.load"),
    ],
    ids=["double weight", "integer weight", "operator", "domain", "type of the output"],
)
@pytest.mark.parametrize("scheme", ["int8", "int8-dynamic", "int8-weights"])
def test_a_model_that_does_not_run_is_refused_before_the_work(
    tmp_path: Path, scheme: Any, change: dict[str, Any], code: str
) -> None:
    """By its file and with a remedy; wrong types, unknown operators and domains."""
    arrays = {key: value for key, value in change.items() if isinstance(value, np.ndarray)}
    path = write(tmp_path / "model.onnx", GRAPH, **{**weights(), **arrays})
    wrong = onnx.load(path)
    if "elem_type" in change:
        wrong.graph.output[0].type.tensor_type.elem_type = change["elem_type"]
    for key in change.keys() & {"op_type", "domain"}:
        setattr(wrong.graph.node[1], key, change[key])
    wrong.opset_import.add(domain="mine", version=1)
    onnx.save(wrong, path)
    options = RunOptions(timing=None, report=lambda *_: pytest.fail("the work began"))
    with pytest.raises(ModelError) as caught:
        quantize(
            path, batches(), tmp_path / "o.onnx", recipe=Recipe(scheme=scheme), options=options
        )
    assert caught.value.code == code
    assert caught.value.where == str(path)
    assert caught.value.remedy
    assert names(tmp_path) == ["model.onnx"]


def test_a_folder_that_does_not_exist_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        quantize(model, batches(), tmp_path / "none" / "o.onnx", options=UNTIMED)


@pytest.mark.parametrize("place", ["none/o.onnx", ".", "model.onnx"])
def test_a_bad_output_is_refused_before_any_work(model: Path, tmp_path: Path, place: str) -> None:
    """No sample is looked at, and no plan read: there is none."""

    class Untouched:
        def __iter__(self) -> Iterator[Feeds]:
            pytest.fail("the data was read")

    before = model.read_bytes()
    with pytest.raises(UsageError):
        quantize(model, Untouched(), tmp_path / place, options=UNTIMED)
    with pytest.raises(UsageError):
        calibrate(model, Untouched(), tmp_path / place)
    with pytest.raises(UsageError):
        apply(model, tmp_path / "no_plan", tmp_path / place)
    assert names(tmp_path) == ["model.onnx"]
    assert model.read_bytes() == before


RESIDUAL = """g (float[N, 8] x) => (float[N, 8] y) {
    a = MatMul(x, w)
    s = Add(a, x)
    n = LayerNormalization(s, g, b)
    y = MatMul(n, v)
}"""


def test_a_residual_is_kept_apart_from_its_norm(tmp_path: Path) -> None:
    """In the plan, in the file, and when the plan is applied again."""
    constants = {"w": normal(0, 8, 8), "g": normal(1, 8), "b": normal(2, 8), "v": normal(3, 8, 8)}
    model = write(tmp_path / "m.onnx", RESIDUAL, **constants)
    options = RunOptions(timing=None, plan_out=tmp_path / "plan")
    result = quantize(model, batches(), tmp_path / "o.onnx", options=options)
    (entry,) = result.plan.kept_apart
    ops = {node.name: node.op_type for node in onnx.load(tmp_path / "o.onnx").graph.node}
    assert ops[entry.node] == entry.op == "Sum"
    assert not any(node.op == "SkipLayerNormalization" for node in executed(tmp_path / "o.onnx"))
    (tmp_path / "again").mkdir()
    apply(model, tmp_path / "plan", tmp_path / "again" / "o.onnx")
    assert (tmp_path / "again" / "o.onnx").read_bytes() == (tmp_path / "o.onnx").read_bytes()


# calibrate and inspect.


def test_calibrate_writes_statistics(model: Path, tmp_path: Path) -> None:
    run_of = calibrate(model, batches(), tmp_path / "s", recipe=PLAIN)
    stats = load_stats(tmp_path / "s")
    assert (run_of.samples, stats.samples) == (6, 6)
    values = np.concatenate([feeds["x"] for feeds in batches()])
    assert stats.tensors["x"].low == values.min()
    assert stats.tensors["x"].high == values.max()
    assert stats.model_digest == digest(load(model))


def test_inspect_shows_each_site_and_its_error(model: Path) -> None:
    bare = inspect(model)
    assert [site.op for site in bare.sites] == ["Gemm", "Gemm"]
    assert all(site.sqnr_db is None and site.decision == "int8" for site in bare.sites)
    measured = inspect(model, batches(), recipe=PLAIN)
    for site in measured.sites:
        assert site.sqnr_db is not None
        assert 25 < site.sqnr_db < 60
        assert site.weight is not None


def test_the_site_with_an_outlier_is_the_worst(tmp_path: Path) -> None:
    text = """g (float[N, 8] x) => (float[N, 4] y, float[N, 4] z) {
        y = MatMul(x, w)
        h = Mul(x, k)
        z = MatMul(h, v)
    }"""
    k = np.asarray([1000, 1, 1, 1, 1, 1, 1, 1], np.float32)
    v = normal(1, 8, 4)
    v[0] = 0
    model = write(tmp_path / "m.onnx", text, w=normal(0, 8, 4), k=k, v=v)
    found = {site.name: site.sqnr_db for site in inspect(model, batches(), recipe=MINMAX).sites}
    fine, coarse = found.values()
    assert fine is not None
    assert coarse is not None
    assert coarse < fine - 20


def test_a_small_budget_changes_no_byte(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Recipe(calibration=CalibrationSettings(memory_budget=1))
    steps: list[tuple[str, int, int]] = []
    options = RunOptions(timing=None, report=lambda *step: steps.append(step))
    quantize(model, batches(), tmp_path / "a.onnx", recipe=small, options=options)
    assert max(total for name, _, total in steps if name == "calibrate") > 6
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    quantize(model, batches(), tmp_path / "b.onnx", options=UNTIMED)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
