"""Types and ranks that ONNX's shape inference does not know, from ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper, parser

from onnxq.errors import ModelError
from onnxq.graph.edit import value_by_name
from onnxq.pipeline import RunOptions, apply, inspect, quantize
from onnxq.recipe import Recipe
from onnxq.stages.learn import learn_types
from onnxq.stages.prepare import prepare
from tests.small_models import Feeds, normal, run, source

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.stages.prepare import Prepared

GRAPH = """g (float[N, 8] x) => (float[N, 4] y) {
    a = MatMul(x, w)
    h = com.microsoft.BiasGelu(a, b)
    y = MatMul(h, v)
}"""
WEIGHTS = {"w": normal(0, 8, 16), "b": normal(1, 16), "v": normal(2, 16, 4)}
SAMPLES: list[Feeds] = [{"x": normal(i + 10, 5, 8)} for i in range(6)]


def write(path: Path, text: str, **weights: Any) -> Path:
    """A model that imports operators of ONNX Runtime's own domain."""
    imports = '["" : 17, "com.microsoft" : 1, "ai.onnx.ml" : 3]'
    model = parser.parse_model(f"<ir_version: 9, opset_import: {imports}> {text}")
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in weights.items())
    onnx.save(model, path)
    return path


def types(prepared: Prepared) -> dict[str, tuple[ir.DataType | None, int | None]]:
    return {
        name: (value.dtype, None if value.shape is None else len(value.shape))
        for name, value in value_by_name(prepared.model.graph).items()
        if not value.is_initializer()
    }


def test_a_model_that_is_known_is_left_as_it_is(tmp_path: Path) -> None:
    text = "g (float[N, 8] x) => (float[N, 16] y) { y = MatMul(x, w) }"
    prepared = prepare(write(tmp_path / "m.onnx", text, w=WEIGHTS["w"]), Recipe())
    assert learn_types(prepared, source(prepared.model, SAMPLES)) is prepared


def test_types_and_ranks_behind_an_operator_of_another_domain(tmp_path: Path) -> None:
    prepared = prepare(write(tmp_path / "m.onnx", GRAPH, **WEIGHTS), Recipe())
    before = types(prepared)
    assert before["h"] == (None, None)
    learned = learn_types(prepared, source(prepared.model, SAMPLES))
    assert types(learned)["h"] == (ir.DataType.FLOAT, 2)
    assert {name: types(learned)[name] for name in ("x", "a", "y")} == {
        name: before[name] for name in ("x", "a", "y")
    }
    # Lengths stay open, and the model that was given is not touched.
    assert list(value_by_name(learned.model.graph)["h"].shape or ()) == [ir.SymbolicDim(None)] * 2
    assert types(prepared) == before


def test_other_element_types(tmp_path: Path) -> None:
    text = """g (float[N, 8] x) => (float[N, 8] y) {
        h = com.microsoft.Gelu(x)
        i = Cast<to = 7>(h)
        p = Greater(h, x)
        c = Where(p, h, x)
        m = MatMul(c, w)
        l, k = Split<axis = 1>(h)
        y = Tanh(m)
    }"""
    model = write(tmp_path / "m.onnx", text, w=normal(0, 8, 8))
    prepared = prepare(model, Recipe())
    learned = types(learn_types(prepared, source(prepared.model, SAMPLES)))
    assert all(dtype is not None and rank is not None for dtype, rank in learned.values())
    assert learned["c"] == (ir.DataType.FLOAT, 2)


def test_a_site_behind_it_is_quantized_and_computes_the_same(tmp_path: Path) -> None:
    model = write(tmp_path / "m.onnx", GRAPH, **WEIGHTS)
    options = RunOptions(timing=None, plan_out=tmp_path / "plan")
    result = quantize(model, SAMPLES, tmp_path / "o.onnx", options=options)
    assert {site.decision for site in result.plan.sites} == {"int8"}
    assert len(result.plan.sites) == 2
    assert result.verification is not None
    assert result.verification.kernels.integer == 2
    assert (result.verification.fidelity.sqnr_db or 0) > 25
    expected = run(model, SAMPLES[0])[0]
    found = run(tmp_path / "o.onnx", SAMPLES[0], "all")[0]
    assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


def test_inspect_with_data_knows_as_much(tmp_path: Path) -> None:
    found = inspect(write(tmp_path / "m.onnx", GRAPH, **WEIGHTS), SAMPLES)
    assert [site.decision for site in found.sites] == ["int8", "int8"]
    assert all(site.sqnr_db is not None and site.sqnr_db > 25 for site in found.sites)


def test_apply_gives_the_same_bytes_without_data(tmp_path: Path) -> None:
    model = write(tmp_path / "m.onnx", GRAPH, **WEIGHTS)
    options = RunOptions(timing=None, plan_out=tmp_path / "plan")
    quantize(model, SAMPLES, tmp_path / "o.onnx", options=options)
    (tmp_path / "again").mkdir()
    apply(model, tmp_path / "plan", tmp_path / "again" / "o.onnx")
    assert (tmp_path / "again" / "o.onnx").read_bytes() == (tmp_path / "o.onnx").read_bytes()


def test_values_that_are_no_tensors_stay_unknown(tmp_path: Path) -> None:
    text = """g (float[N, 8] x) => (float[N, 4] y) {
        h = com.microsoft.Gelu(x)
        s = SplitToSequence<axis = 1, keepdims = 1>(h)
        c = ConcatFromSequence<axis = 1>(s)
        y = MatMul(c, w)
    }"""
    prepared = prepare(write(tmp_path / "m.onnx", text, w=normal(0, 8, 4)), Recipe())
    learned = learn_types(prepared, source(prepared.model, SAMPLES))
    found = types(learned)
    assert (found["h"], found["c"]) == ((ir.DataType.FLOAT, 2),) * 2
    assert found["s"] == types(prepared)["s"]
    assert [site.reason for site in learned.sites] == [""]


def test_nothing_is_learned_where_all_is_texts(tmp_path: Path) -> None:
    text = """g (string[N] x, float[N, 8] z) => (float[N, 4] y) {
        t = com.microsoft.Tokenizer<mark = 0, mincharnum = 1, pad_value = "", separators = [" "]>(x)
        n = Size(t)
        f = Cast<to = 1>(n)
        m = MatMul(z, w)
        y = Mul(m, f)
    }"""
    samples: list[Feeds] = [{"x": np.asarray(["A B", "B B"], object), "z": normal(0, 2, 8)}]
    prepared = prepare(write(tmp_path / "m.onnx", text, w=normal(0, 8, 4)), Recipe())
    assert types(prepared)["t"] == (None, None)
    assert learn_types(prepared, source(prepared.model, samples)) is prepared


def test_a_model_that_does_not_run_is_refused(tmp_path: Path) -> None:
    text = GRAPH.replace("float[N, 8] x", "float[N, L] x")
    prepared = prepare(write(tmp_path / "m.onnx", text, **WEIGHTS), Recipe())
    with pytest.raises(ModelError):
        learn_types(prepared, source(prepared.model, [{"x": normal(0, 5, 9)}]))
