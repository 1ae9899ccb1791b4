"""Weights of few bits through the public API: accuracy, forms, what stays float, apply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from onnxq.algorithms.block_algorithm import ALGORITHMS
from onnxq.errors import ModelError
from onnxq.numerics.metrics import sqnr_db
from onnxq.pipeline import RunOptions, apply, quantize
from onnxq.recipe import Recipe
from onnxq.stages import prepare
from tests.small_models import Feeds, normal, run, write

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir
    from numpy.typing import NDArray

    from onnxq.pipeline import QuantizeResult

# A gated feed-forward layer as decoders have it: two groups, both of which fold.
LAYER = """g (float[N, 64] x) => (float[N, 64] y) {
    n = LayerNormalization<axis = -1>(x, g, b)
    gate = MatMul(n, wg) s = Sigmoid(gate) silu = Mul(gate, s)
    up = MatMul(n, wu) e = Mul(silu, up)
    d = MatMul(e, wd)
    y = Add(x, d)
}"""
PAIR = "g (float[N, 64] x) => (float[N, 8] y, float[N, 8] z) { y = MatMul(x, w) z = MatMul(x, v) }"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def layer(path: Path) -> Path:
    # As in trained models a few channels are much larger than the others.
    gamma, large = np.exp(normal(4, 64)), np.exp(normal(6, 96))
    gate, up, down = normal(1, 64, 96) / 8, normal(2, 64, 96) / 8 * large, normal(3, 96, 64) / 9
    return write(path / "float.onnx", LAYER, g=gamma, b=normal(5, 64) / 10, wg=gate, wu=up, wd=down)


def pair(path: Path, w: NDArray[Any], v: NDArray[Any]) -> Path:
    return write(path / "float.onnx", PAIR, w=w, v=v)


def samples(count: int = 12, columns: int = 64) -> list[Feeds]:
    """Tokens whose channels vary together."""
    decay = np.exp(-np.arange(columns, dtype=np.float32) / 12)
    mixing = decay[:, np.newaxis] * normal(7, columns, columns)
    return [{"x": normal(100 + seed, 48, columns) @ mixing} for seed in range(count)]


def recipe(scheme: str = "int4", rules: tuple[Any, ...] = (), **weights: Any) -> Recipe:
    # Level 1 keeps activations float32, so that weights alone err.
    settings = {"block_size": 32, "accuracy_level": 1, **weights}
    return Recipe.model_validate({"scheme": scheme, "weights": settings, "rules": rules})


def convert(model: Path, wanted: Recipe, data: list[Feeds] | None) -> QuantizeResult:
    folder = model.parent
    options = RunOptions(timing=None, plan_out=folder / "plan")
    return quantize(model, data, folder / "small.onnx", recipe=wanted, options=options)


def applied(model: Path) -> bytes:
    again = model.with_name("again.onnx")
    apply(model, model.with_name("plan"), again)
    return again.read_bytes()


def measured(model: Path, data: list[Feeds]) -> float:
    """SQNR of the quantized model's output on samples, in decibels."""
    pairs = [(run(model, x)[0], run(model.with_name("small.onnx"), x)[0]) for x in data]
    signal = sum(float(np.square(a, dtype=np.float64).sum()) for a, _ in pairs)
    noise = sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in pairs)
    return sqnr_db(signal, noise)


def decisions(result: QuantizeResult) -> list[str]:
    return [site.decision for site in result.plan.sites]


def ops(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


@pytest.mark.parametrize("scheme", ["int4", "uint4", "int2", "int8-weights"])
def test_algorithms_beat_rounding_on_calibration_data(scheme: str, tmp_path: Path) -> None:
    model, data = layer(tmp_path), samples()
    found = {}
    for name in (*ALGORITHMS, "auto"):
        result = convert(model, recipe(scheme, algorithm=name), data)
        assert decisions(result) == [scheme] * 3
        assert result.calibration is not None
        assert result.plan.data_digest
        assert applied(model) == model.with_name("small.onnx").read_bytes()
        found[name] = measured(model, data)
    # The bound holds for each product by itself (test_block_group.py); half a decibel is for what
    # errors of three of them make of each other.
    assert all(value > found["rtn"] - 0.5 for value in found.values()), found
    for name in ("awq", "gptq", "awq+gptq", "auto"):
        assert found[name] > found["rtn"] + 1, found
    assert found["auto"] > max(found.values()) - 0.5


@pytest.mark.parametrize("algorithm", ["rtn", "mse", "hqq", "auto", None])
@pytest.mark.parametrize("scheme", ["int4", "int2"])
def test_without_data(scheme: str, algorithm: str | None, tmp_path: Path) -> None:
    model = layer(tmp_path)
    result = convert(model, recipe(scheme, algorithm=algorithm), None)
    assert decisions(result) == [scheme] * 3
    assert result.plan.scalings == ()
    assert result.plan.data_digest == ""
    assert measured(model, samples()) > (15 if scheme == "int4" else 2)
    assert applied(model) == model.with_name("small.onnx").read_bytes()


def test_scaling_goes_into_what_is_in_front(tmp_path: Path) -> None:
    model = layer(tmp_path)
    plan = convert(model, recipe(algorithm="awq"), samples()).plan
    into = {
        entry.tensor: [(fold.node, fold.input) for fold in entry.folds] for entry in plan.scalings
    }
    nodes = {site.name: site.op for site in plan.sites}
    # gamma and beta of the normalization; the columns of the up-projection.
    assert [index for _, index in into["n"]] == [1, 2]
    ((up, index),) = into["e"]
    assert (nodes[up], index) == ("MatMul", 1)
    before, after = onnx.load(model).graph.node, onnx.load(model.with_name("small.onnx")).graph.node
    assert len(before) == len(after)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(
    ("form", "op"), [("blocks", "MatMulNBits"), ("dq", "DequantizeLinear"), ("folded", "Cast")]
)
def test_forms(form: str, op: str, bits: int, *, symmetric: bool, tmp_path: Path) -> None:
    scheme = {2: "int2", 4: "int4", 8: "int8-weights"}[bits]
    model, data = layer(tmp_path), samples()
    wanted = recipe(scheme, form=form, symmetric=symmetric, algorithm="awq+gptq")
    result = convert(model, wanted, data)
    small = model.with_name("small.onnx")
    assert op in ops(small)
    needed = {"blocks": {}, "dq": {2: 25, 4: 21, 8: 21}, "folded": {2: 25, 4: 21}}[form].get(
        bits, 1
    )
    assert result.plan.minimum_opset == max(13, needed)
    assert onnx.load(small).opset_import[0].version == max(17, needed)
    assert all(entry.minimum_opset == needed for entry in result.plan.blocks)
    assert {entry.symmetric for entry in result.plan.blocks} == {symmetric}
    assert applied(model) == small.read_bytes()
    # The weights are the same in every form.
    other = layer(tmp_path)
    convert(other, recipe(scheme, symmetric=symmetric, algorithm="awq+gptq"), data)
    assert measured(model, data) == pytest.approx(measured(other, data), abs=0.5)


def test_a_rule_says_how_one_site_is_stored(tmp_path: Path) -> None:
    model = layer(tmp_path)
    rule = {
        "match": "*gate*",
        "weight": {"bits": 8, "block_size": 16, "symmetric": True, "algorithm": "mse"},
    }
    named = onnx.load(model)
    for node in named.graph.node:
        node.name = f"the_{node.output[0]}"
    onnx.save(named, model)
    result = convert(model, recipe(rules=(rule,), algorithm="gptq"), samples())
    stored = {e.node: (e.bits, e.block_size, e.symmetric) for e in result.plan.blocks}
    assert stored == {
        "the_gate": (8, 16, True),
        "the_up": (4, 32, False),
        "the_d": (4, 32, False),
    }
    assert "block/wg/packed" not in result.plan.arrays
    assert "block/wu/packed" in result.plan.arrays


def test_a_rule_of_two_bits_raises_the_opset(tmp_path: Path) -> None:
    rule = {"match": "op:MatMul", "weight": {"bits": 2}}
    result = convert(layer(tmp_path), recipe(rules=(rule,), form="dq"), None)
    assert result.plan.minimum_opset == 25


def test_where_only_some_are_too_short_they_stay_float(tmp_path: Path) -> None:
    text = "g (float[N, 48] x) => (float[N, 4] y) { h = MatMul(x, w) y = MatMul(h, v) }"
    model = write(tmp_path / "float.onnx", text, w=normal(0, 48, 20), v=normal(1, 20, 4))
    result = convert(model, recipe(), samples(columns=48))
    assert decisions(result) == ["int4", "float"]
    assert result.plan.sites[1].reason == "its 20 input channels are fewer than a block of 32"
    rule = {"match": "*", "weight": {"block_size": 16}}
    result = convert(model, recipe(rules=(rule,), block_size=256), samples(columns=48))
    assert decisions(result) == ["int4", "int4"]


def test_a_rule_about_activations_is_said_not_to_be_heeded(tmp_path: Path) -> None:
    rule = {"match": "*", "activation": {"type": "int8"}}
    result = convert(layer(tmp_path), recipe(rules=(rule,)), None)
    assert any("how its activation is quantized" in text for text in result.warnings)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("algorithm", ["rtn", "awq+gptq"])
def test_a_weight_that_is_not_finite(algorithm: str, value: float, tmp_path: Path) -> None:
    bad = normal(0, 64, 8)
    bad[3, 4] = value
    model = pair(tmp_path, bad, normal(1, 64, 8))
    result = convert(model, recipe(algorithm=algorithm), samples())
    assert decisions(result) == ["float", "int4"]
    assert "'w' holds 1 values that are NaN or infinite" in result.plan.sites[0].reason


def test_activations_that_are_not_finite(tmp_path: Path) -> None:
    text = """g (float[N, 64] x) => (float[N, 8] y, float[N, 8] z) {
        r = Sqrt(x) y = MatMul(r, w) z = MatMul(x, v)
    }"""
    model = write(tmp_path / "float.onnx", text, w=normal(0, 64, 8), v=normal(1, 64, 8))
    result = convert(model, recipe(algorithm="awq"), samples())
    assert decisions(result) == ["float", "int4"]
    assert "NaN" in result.plan.sites[0].reason
    assert any("stays float" in text for text in result.warnings)


@pytest.mark.parametrize("value", [1e25, -np.finfo(np.float32).max])
@pytest.mark.parametrize("algorithm", ["rtn", "awq+gptq"])
def test_huge_activations(algorithm: str, value: float, tmp_path: Path) -> None:
    """Their squares are infinite: the site stays float, and the other one is quantized."""
    text = """g (float[N, 64] x) => (float[N, 8] y, float[N, 8] z) {
        t = Tanh(x) y = MatMul(x, w) z = MatMul(t, v)
    }"""
    model = write(tmp_path / "float.onnx", text, w=normal(0, 64, 8), v=normal(1, 64, 8))
    data = samples()
    for feeds in data:
        feeds["x"][1, 1] = value
    result = convert(model, recipe(algorithm=algorithm), data)
    assert decisions(result) == ["float", "int4"]
    assert "huge values were seen in what it reads" in result.plan.sites[0].reason


@pytest.mark.parametrize("algorithm", ["rtn", "hqq", "awq+gptq", "auto"])
@pytest.mark.parametrize("at", [np.s_[:, :], np.s_[3, :], np.s_[:, 3]])
def test_zeros(at: tuple[Any, ...], algorithm: str, tmp_path: Path) -> None:
    """Weights of zero stay zero; channels of the activation that are zero do no harm."""
    w, data = normal(0, 64, 8), samples()
    w[at] = 0
    for feeds in data:
        feeds["x"][:, :5] = 0
    model = pair(tmp_path, w, normal(1, 64, 8))
    assert decisions(convert(model, recipe(algorithm=algorithm), data)) == ["int4", "int4"]
    stored = run(model.with_name("small.onnx"), {"x": np.eye(64, dtype=np.float32)})[0]
    assert (stored[at] == 0).all()


def test_a_shared_weight_is_stored_once_and_not_scaled(tmp_path: Path) -> None:
    text = (
        "g (float[N, 64] x) => (float[N, 64] y) { t = MatMul(x, w) r = Tanh(t) y = MatMul(r, w) }"
    )
    model = write(tmp_path / "float.onnx", text, w=normal(0, 64, 64) / 8)
    result = convert(model, recipe(algorithm="awq+gptq"), samples())
    assert decisions(result) == ["int4", "int4"]
    assert len({entry.initializer for entry in result.plan.blocks}) == 1
    assert applied(model) == model.with_name("small.onnx").read_bytes()
    assert measured(model, samples()) > 10


def test_few_tokens_are_not_fitted_to(tmp_path: Path) -> None:
    model = layer(tmp_path)
    data = [{"x": feeds["x"][:4]} for feeds in samples(10)]
    result = convert(model, recipe(algorithm="awq+gptq"), data)
    (warning,) = [text for text in result.warnings if "too little data" in text]
    assert "statistics of n, e: " in warning
    assert "calibration saw 32 rows of 'e', fewer than the 96 input channels" in warning
    assert result.calibration is not None
    assert result.calibration.chosen == "hqq (3)"
    assert not result.plan.scalings
    # Rounding to the nearest asks for none.
    result = convert(model, recipe(algorithm="rtn"), data)
    assert not any("too little data" in text for text in result.warnings)


def test_a_table_that_takes_a_division_is_looked_up_under_its_new_name(tmp_path: Path) -> None:
    """The rows of a table are the activation of the product behind it."""
    text = """g (int64[N] i) => (float[N, 8] y) {
        e = Gather(table, i) h = MatMul(e, w) r = Relu(h) y = MatMul(r, v)
    }"""
    table = normal(1, 4200, 64) * np.exp(2 * normal(2, 64))
    model = write(
        tmp_path / "float.onnx", text, table=table, w=normal(3, 64, 64) / 8, v=normal(4, 64, 8)
    )
    random = np.random.default_rng(0)
    data: list[Feeds] = [{"i": random.integers(0, 4200, 64)} for _ in range(12)]
    result = convert(model, recipe(algorithm="awq"), data)
    (folded,) = [e for e in result.plan.scalings if any(f.input == 0 for f in e.folds)]
    assert folded.tensor == "e"
    (lookup,) = result.plan.embeddings
    assert lookup.initializer != "table"
    assert applied(model) == model.with_name("small.onnx").read_bytes()
    assert measured(model, data) > 15


@pytest.mark.parametrize("form", ["folded", "dq"])
def test_rows_of_experts_are_divided_each_for_its_own_channel(form: str, tmp_path: Path) -> None:
    """What a product behind them gains, ``[E, K, N]`` loses along N in every expert."""
    text = """g (float[3, N, 64] x) => (float[3, N, 24] y) {
        h = MatMul(x, experts) r = Relu(h) y = MatMul(r, w)
    }"""
    large = np.exp(normal(6, 48))
    weights = {"experts": normal(1, 3, 64, 48) / 8 * large, "w": normal(2, 48, 24) / 7}
    model = write(tmp_path / "float.onnx", text, **weights)
    data: list[Feeds] = [{"x": normal(100 + seed, 3, 20, 64)} for seed in range(12)]
    result = convert(model, recipe(algorithm="awq", block_size=16, form=form), data)
    assert [entry.tensor for entry in result.plan.scalings] == ["r"]
    assert measured(model, data) > 15


def test_what_is_stored_alike_is_measured_once_and_under_its_own_size(tmp_path: Path) -> None:
    """Weights of 32 input channels have blocks of 32, whatever larger size is open."""
    text = "g (float[N, 32] x) => (float[N, 64] y) { y = MatMul(x, w) }"
    model = write(tmp_path / "float.onnx", text, w=normal(1, 32, 64))
    wanted = Recipe.model_validate({"scheme": "int4"})
    result = convert(model, wanted, [{"x": normal(seed, 8, 32)} for seed in range(12)])
    assert [trial.name for trial in result.trials] == [
        "int4, block 32, accuracy level 4",
        "int4, block 32, accuracy level 1",
    ]


@pytest.mark.parametrize(("bound", "levels"), [(None, {4}), (20.0, {4}), (60.0, {1})])
def test_untimed_a_slow_level_is_for_what_no_other_reaches(
    tmp_path: Path, bound: float | None, levels: set[int]
) -> None:
    """8 bits at level 1 take ten times as long as float."""
    text = "g (float[N, 64] x) => (float[N, 32] y) { y = MatMul(x, w) }"
    model = write(tmp_path / "float.onnx", text, w=normal(1, 64, 32))
    wanted = Recipe.model_validate({"scheme": "int8-weights", "weights": {"algorithm": "rtn"}})
    options = RunOptions(timing=None, min_sqnr=bound, allow_miss=True)
    data: list[Feeds] = [{"x": normal(seed, 8, 64)} for seed in range(12)]
    result = quantize(model, data, tmp_path / "small.onnx", recipe=wanted, options=options)
    assert {entry.accuracy_level for entry in result.plan.blocks} == levels


def test_a_result_larger_than_float_is_warned_of(tmp_path: Path) -> None:
    """A table that is too small to be stored as integers stays beside the product's copy."""
    text = """g (int64[N] i) => (float[N, 40] y) {
        e = Gather(table, i) t = Transpose<perm = [1, 0]>(table) y = MatMul(e, t)
    }"""
    model = write(tmp_path / "float.onnx", text, table=normal(0, 40, 32))
    result = convert(model, recipe(algorithm="rtn"), [{"i": np.arange(8)} for _ in range(12)])
    assert any(text.startswith("larger than float: ") for text in result.warnings)


CONVOLUTIONS = """g (float[N, 3, 12, 12] x) => (float[N, 10] y) {
    a = Conv<pads = [1, 1, 1, 1]>(x, first) r = Relu(a)
    b = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(r, second) s = Relu(b)
    f = Flatten(s) y = MatMul(f, w)
}"""


def convolutions(path: Path) -> Path:
    weights = {"first": normal(1, 16, 3, 3, 3) / 5, "second": normal(2, 24, 16, 3, 3) / 12}
    return write(path / "float.onnx", CONVOLUTIONS, **weights, w=normal(3, 24 * 36, 10) / 29)


def images() -> list[Feeds]:
    return [{"x": normal(100 + seed, 2, 3, 12, 12)} for seed in range(12)]


def test_what_no_kernel_takes_is_folded_by_default(tmp_path: Path) -> None:
    wanted = Recipe.model_validate({"scheme": "int4"})
    result = convert(convolutions(tmp_path), wanted, images())
    how = {entry.form: entry for entry in result.plan.blocks}
    assert how.keys() == {"kernel", "folded"}
    assert (how["folded"].axis, how["folded"].block_size) == (0, 32)
    (kept,) = [site for site in result.plan.sites if site.decision == "float"]
    assert kept.reason == "its 27 input channels are fewer than a block of 32"
    stored = onnx.load(tmp_path / "small.onnx")
    opset = next(each.version for each in stored.opset_import if not each.domain)
    assert opset == 21
    assert result.verification is not None
    assert result.verification.kernels.folded == 1
    assert applied(tmp_path / "float.onnx") == (tmp_path / "small.onnx").read_bytes()


def test_convolutions_are_fitted_to_what_they_read(tmp_path: Path) -> None:
    """GPTQ errs less than rounding on images that it has not seen."""
    found = {}
    for algorithm in ("rtn", "gptq"):
        wanted = recipe(algorithm=algorithm)
        convert(convolutions(tmp_path), wanted, images())
        unseen = [{"x": normal(900 + seed, 2, 3, 12, 12)} for seed in range(8)]
        found[algorithm] = measured(tmp_path / "float.onnx", unseen)
    assert found["gptq"] > found["rtn"] + 1


def test_a_model_whose_opset_cannot_be_raised_folds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(model: ir.Model, minimum: int) -> ir.Model:
        if minimum > 13:
            code, text = "model.opset", "no converter knows 'Custom'"
            raise ModelError(code, text)
        return model

    monkeypatch.setattr(prepare, "raise_opset", refuse)
    result = convert(convolutions(tmp_path), recipe(), images())
    assert {entry.form for entry in result.plan.blocks} == {"kernel"}
    reasons = [site.reason for site in result.plan.sites if site.decision == "float"]
    assert len(reasons) == 2
    assert any("has no kernel for Conv" in reason for reason in reasons)
    assert any("no converter knows 'Custom'" in note for note in result.warnings)
