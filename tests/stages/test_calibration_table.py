"""The table of ranges of a model as it is, against the values that ONNX Runtime computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnxruntime.quantization.CalTableFlatBuffers.TrtTable import TrtTable

from onnxq import export_calibration_table, pipeline
from onnxq.errors import ModelError, UsageError
from onnxq.recipe import CalibrationSettings, Recipe
from onnxq.stages import calibration_table
from tests.small_models import normal, proto, write

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

TEXT = """g (float[n, 8] x, int64[n] at, bool[1] c) => (float[n, 4] y, float[n, 4] z) {
    h = MatMul(x, w)
    less = Neg(r)
    r = Relu(h)
    one = Constant<value = float {1.0}>()
    y = Sub(less, one)
    shape = Shape(x)
    half = Cast<to = 10>(h)
    z = If(c)<
        then_branch = yes () => (float[n, 4] a) { b = Neg(h) a = Neg(b) },
        else_branch = no () => (float[n, 4] d) { d = Identity(h) }
    >
}""".replace("    less = Neg(r)\n    r = Relu(h)\n", "    r = Relu(h)\n    less = Neg(r)\n")
W = normal(7, 8, 4)
FLOATS = {"x", "h", "r", "less", "y", "half", "z"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path / "m.onnx", TEXT, w=W)


def samples(count: int = 6) -> list[dict[str, NDArray[Any]]]:
    return [
        {"x": normal(n, n + 1, 8), "at": np.zeros(n + 1, np.int64), "c": np.ones(1, np.bool_)}
        for n in range(count)
    ]


def recipe(method: Any = "minmax", **more: Any) -> Recipe:
    return Recipe(calibration=CalibrationSettings(method=method, **more))


def read(path: Path) -> dict[str, float]:
    table: Any = TrtTable.GetRootAs(path.read_bytes(), 0)
    entries = [table.Dict(index) for index in range(table.DictLength())]
    return {entry.Key().decode(): float(entry.Value()) for entry in entries}


def test_every_float_activation_with_its_greatest_magnitude(model: Path, tmp_path: Path) -> None:
    found = export_calibration_table(model, samples(), tmp_path / "t", recipe=recipe())
    table = read(tmp_path / "t")
    assert set(table) == FLOATS
    assert (found.tensors, found.samples, found.method) == (len(FLOATS), 6, "minmax")
    h = [sample["x"].astype(np.float64) @ W.astype(np.float64) for sample in samples()]
    most = max(np.abs(value).max() for value in h)
    positive = max(value.max() for value in h)
    expected = {"h": most, "z": most, "r": positive, "less": positive, "y": positive + 1}
    for name, value in expected.items():
        assert table[name] == pytest.approx(value, rel=1e-5), name
    assert table["x"] == pytest.approx(max(np.abs(s["x"]).max() for s in samples()), rel=1e-6)
    assert table["half"] == pytest.approx(most, rel=1e-3)
    assert found.notes == ("what 3 nodes in subgraphs and functions compute is not in the table",)
    assert found.options == {
        "trt_int8_enable": "1",
        "trt_int8_calibration_table_name": str(tmp_path / "t"),
        "trt_int8_use_native_calibration_table": "0",
    }


@pytest.mark.parametrize("method", ["percentile", "entropy", "mse", "moving-average", "auto"])
def test_other_methods_clip_an_outlier(method: str, model: Path, tmp_path: Path) -> None:
    data = samples()
    data[2]["x"] = normal(9, 10_000, 8)
    data[2]["at"] = np.zeros(10_000, np.int64)
    # So many values lose more by wide steps than one does by being cut.
    data[2]["x"][0, 0] = 60.0
    settings = {"percentile": 90.0} if method == "percentile" else {}
    export_calibration_table(model, data, tmp_path / "t", recipe=recipe(method, **settings))
    assert 0 < read(tmp_path / "t")["x"] < 59.9


def test_as_many_samples_as_the_recipe_says(model: Path, tmp_path: Path) -> None:
    found = export_calibration_table(model, samples(), tmp_path / "t", recipe=recipe(samples=2))
    assert found.samples == 2


def test_nan_is_left_out_and_told(tmp_path: Path) -> None:
    text = "g (float[n, 4] x) => (float[n, 4] y) { y = Log(x) }"
    path = write(tmp_path / "m.onnx", text)
    data = [{"x": np.asarray([[1.0, -1.0, 2.0, 0.0]], np.float32)}]
    found = export_calibration_table(path, data, tmp_path / "t", recipe=recipe())
    assert read(tmp_path / "t")["y"] == pytest.approx(np.log(2.0), rel=1e-6)
    assert found.notes == (
        "NaN were left out of the ranges of y",
        "infinite values or mask constants were left out of the ranges of y",
    )


def test_a_quantized_model_is_refused(tmp_path: Path) -> None:
    text = "g (float[n, 64] x) => (float[n, 32] y) { y = MatMul(x, w) }"
    path, output = write(tmp_path / "m.onnx", text, w=normal(0, 64, 32)), tmp_path / "q.onnx"
    data = [{"x": normal(n, 2, 64)} for n in range(4)]
    options = pipeline.RunOptions(timing=None)
    pipeline.quantize(path, data, output, recipe=Recipe(scheme="int8"), options=options)
    with pytest.raises(ModelError, match="quantized already"):
        export_calibration_table(output, data, tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_a_bundle_is_refused(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration_table, "is_bundle", lambda loaded: True)
    with pytest.raises(ModelError, match="pre- or postprocessing"):
        export_calibration_table(model, samples(), tmp_path / "t")


def test_the_model_is_not_replaced(model: Path) -> None:
    before = model.read_bytes()
    with pytest.raises(UsageError, match="replace the model"):
        export_calibration_table(model, samples(), model)
    assert model.read_bytes() == before


def test_old_opsets_and_functions(tmp_path: Path) -> None:
    made = proto("g (float[n, 4] x) => (float[n, 4] y) { t = own.Twice(x) y = Neg(t) }")
    function = onnx.parser.parse_function(
        '<opset_import: ["" : 11], domain: "own"> Twice (a) => (b) { c = Add(a, a) b = Neg(c) }'
    )
    made.functions.append(function)
    made.opset_import.add(domain="own", version=1)
    made.opset_import[0].version = 11
    onnx.save(made, tmp_path / "m.onnx")
    data = [{"x": np.full((1, 4), 3.0, np.float32)}]
    found = export_calibration_table(tmp_path / "m.onnx", data, tmp_path / "t", recipe=recipe())
    assert read(tmp_path / "t") == {"x": 3.0, "t": 6.0, "y": 6.0}
    assert found.notes[0].startswith("what 2 nodes in subgraphs and functions")
