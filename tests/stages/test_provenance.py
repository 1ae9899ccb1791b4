"""What a quantized model says of where it comes from, and that it repeats."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from onnxq import pipeline
from onnxq.pipeline import RunOptions, quantize
from onnxq.plan import load_plan, plan_digest
from onnxq.recipe import Recipe
from tests.small_models import normal, write

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

TEXT = "g (float[N, 64] x) => (float[N, 32] y) { h = MatMul(x, w) y = Relu(h) }"
RECIPE = Recipe.model_validate({"scheme": "int8", "calibration": {"method": "minmax"}})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path / "m.onnx", TEXT, w=normal(0, 64, 32))


def samples(count: int = 10) -> list[dict[str, NDArray[Any]]]:
    return [{"x": normal(seed, 4, 64)} for seed in range(count)]


def props(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def test_it_carries_recipe_plan_versions_and_accuracy(model: Path, tmp_path: Path) -> None:
    options = RunOptions(timing=None, plan_out=tmp_path / "plan")
    result = quantize(model, samples(), tmp_path / "q.onnx", recipe=RECIPE, options=options)
    found = props(tmp_path / "q.onnx")
    assert json.loads(found["onnxq.recipe"]) == {
        "scheme": "int8",
        "calibration": {"method": "minmax"},
    }
    assert found["onnxq.plan"] == plan_digest(load_plan(tmp_path / "plan"))
    assert json.loads(found["onnxq.made_with"]).keys() == {"onnxruntime", "onnx"}
    measured = json.loads(found["onnxq.measured"])
    assert result.verification is not None
    assert measured["sqnr_db"] == pytest.approx(result.verification.fidelity.sqnr_db, rel=1e-3)
    assert (measured["samples"], measured["on"]) == (2, "samples")
    assert found["onnxq.compared_on"] == "held-out samples"
    assert result.verification.quantized_bytes == (tmp_path / "q.onnx").stat().st_size
    assert not any(str(tmp_path) in text for text in found.values())


def test_apply_and_another_run_give_the_same_bytes(model: Path, tmp_path: Path) -> None:
    options = RunOptions(timing=None, plan_out=tmp_path / "plan")
    for name in ("a.onnx", "b.onnx"):
        quantize(model, samples(), tmp_path / name, recipe=RECIPE, options=options)
    pipeline.apply(model, tmp_path / "plan", tmp_path / "c.onnx")
    contents = [(tmp_path / f"{name}.onnx").read_bytes() for name in "abc"]
    assert contents[0] == contents[1] == contents[2]


def test_made_up_inputs_are_no_verification(model: Path, tmp_path: Path) -> None:
    recipe = Recipe.model_validate({"scheme": "int8-weights"})
    options = RunOptions(timing=None)
    quantize(model, None, tmp_path / "q.onnx", recipe=recipe, options=options)
    assert props(tmp_path / "q.onnx")["onnxq.compared_on"] == (
        "made-up inputs: not independently verified"
    )


def test_equal_outputs_have_no_number_of_decibels(tmp_path: Path) -> None:
    """A weight of small integers is exact in int8: infinite decibels, which JSON lacks."""
    weight = np.tile(np.asarray([[-127], [0], [127], [1]], np.float32), (16, 32))
    model = write(tmp_path / "m.onnx", TEXT, w=weight)
    recipe = Recipe.model_validate({"scheme": "int8-weights", "weights": {"form": "folded"}})
    options = RunOptions(timing=None, plan_out=tmp_path / "plan")
    quantize(model, samples(), tmp_path / "q.onnx", recipe=recipe, options=options)
    measured = json.loads(props(tmp_path / "q.onnx")["onnxq.measured"])
    pipeline.apply(model, tmp_path / "plan", tmp_path / "again.onnx")
    assert measured["sqnr_db"] == "inf"
    assert (tmp_path / "q.onnx").read_bytes() == (tmp_path / "again.onnx").read_bytes()


def test_inspect_shows_it(model: Path, tmp_path: Path) -> None:
    options = RunOptions(timing=None)
    quantize(model, samples(), tmp_path / "q.onnx", recipe=RECIPE, options=options)
    found = pipeline.inspect(tmp_path / "q.onnx").provenance
    assert found == {k: v for k, v in sorted(props(tmp_path / "q.onnx").items()) if "onnxq." in k}
    assert pipeline.inspect(model).provenance == {}
