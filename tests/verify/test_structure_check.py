from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from onnxq.errors import InternalError, ModelError
from onnxq.pipeline import RunOptions, quantize
from onnxq.recipe import Recipe
from onnxq.verify.structure import check_structure, level_for
from tests.small_models import normal, proto, write

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

GRAPH = "g (float[N, 8] x) => (float[N, 4] y) { y = MatMul(x, w) }"


def check(result: Path) -> None:
    """Check a result that was made from a good model."""
    source = write(result.with_name("source.onnx"), GRAPH, w=normal(0, 8, 4))
    check_structure(result, source)


def test_a_source_that_is_at_fault_itself_is_named(tmp_path: Path) -> None:
    wrong = GRAPH.replace("float[N, 4] y", "float[N, 5] y")
    model = write(tmp_path / "m.onnx", wrong, w=normal(0, 8, 4))
    with pytest.raises(ModelError, match="breaks the ONNX specification") as caught:
        check_structure(model, model)
    assert caught.value.where == str(model)


def test_a_good_model_passes(tmp_path: Path) -> None:
    check(write(tmp_path / "m.onnx", GRAPH, w=normal(0, 8, 4)))


def test_a_model_against_the_specification_is_refused(tmp_path: Path) -> None:
    model = proto(GRAPH, w=normal(0, 8, 4))
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(InternalError, match="no valid ONNX model") as caught:
        check(tmp_path / "m.onnx")
    assert caught.value.where == "m.onnx"


def test_shapes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InternalError, match="no valid ONNX model"):
        check(write(tmp_path / "m.onnx", GRAPH, w=normal(0, 7, 4)))


def test_a_model_that_does_not_load_is_refused(tmp_path: Path) -> None:
    """Valid for the checker, which passes over operators of other domains."""
    model = proto(GRAPH, w=normal(0, 8, 4))
    model.graph.node[0].domain = "nobody.knows"
    model.opset_import.append(onnx.helper.make_opsetid("nobody.knows", 1))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(InternalError, match="does not load at optimization 'none'") as caught:
        check(tmp_path / "m.onnx")
    assert caught.value.where == "m.onnx"


def test_a_zero_point_of_another_type_is_refused(tmp_path: Path) -> None:
    text = """g (float[N, 8] x) => (float[N, 8] y) {
        q = QuantizeLinear(x, s, z)
        y = DequantizeLinear(q, s, u)
    }"""
    constants: dict[str, NDArray[Any]] = {
        "s": np.asarray(0.1, np.float32),
        "z": np.asarray(0, np.uint8),
        "u": np.asarray(0, np.int8),
    }
    with pytest.raises(InternalError):
        check(write(tmp_path / "m.onnx", text, **constants))


def test_what_the_cpu_alone_makes_of_a_model_for_another_is_left_out(tmp_path: Path) -> None:
    """On x86 ONNX Runtime makes int8 uint8, and of this graph what does not load."""
    text = "g (float[2, 5, 16] x) => (float[2, 5, 8] y) { h = MatMul(x, w) y = Add(h, b) }"
    model = proto(text, w=normal(0, 16, 8), b=normal(1, 8))
    model.opset_import[0].version, model.ir_version = 21, 10
    source, output = tmp_path / "m.onnx", tmp_path / "q.onnx"
    onnx.save(model, source)
    data = [{"x": normal(seed, 2, 5, 16)} for seed in range(5)]
    recipe, options = Recipe(scheme="int8", target="tensorrt"), RunOptions(timing=None)
    result = quantize(source, data, output, recipe=recipe, options=options)
    assert [site.decision for site in result.plan.sites] == ["int8"]
    assert result.verification is not None
    assert result.verification.fidelity.sqnr_db is not None
    assert result.verification.fidelity.sqnr_db > 25
    assert level_for("tensorrt", "cpu") == "basic"
    assert level_for("tensorrt", "tensorrt") == level_for("cpu", "cpu") == "all"
