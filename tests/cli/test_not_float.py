"""What is printed of models whose outputs are no float scores, or cannot be compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.cli.conftest import onnxq
from tests.small_models import normal, write

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = """g (float[n, 16] x) => (int64[n] label) {
    y = MatMul(x, w)
    label = ArgMax<axis = -1, keepdims = 0>(y)
}"""
ABOVE = """g (float[n, 16] x) => (int64[d, m] found) {
    y = MatMul(x, w)
    zero = Constant<value = float {0.0}>()
    above = Greater(y, zero)
    found = NonZero(above)
}"""
MASKED = """g (float[n, 16] x) => (float[n, 8] y) {
    m = MatMul(x, w)
    zero = Constant<value = float {0.0}>()
    low = Log(zero)
    y = Where(keep, m, low)
}"""
KEEP = np.asarray([True] * 6 + [False] * 2)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.npy"
    np.save(path, normal(1, 20, 16))
    return path


def test_classes_alone_have_a_share_and_no_sqnr(tmp_path: Path, data: Path) -> None:
    model = write(tmp_path / "model.onnx", CLASSES, w=normal(0, 16, 8))
    output = tmp_path / "int8.onnx"
    arguments: list[str | Path] = ["quantize", model, "--scheme", "int8"]
    arguments += ["--data", data, "-o", output]
    run = onnxq(*arguments, "--json")
    assert run.status == 0, run.err
    metrics = run.document["metrics"]
    assert metrics["output"] == "label"
    assert metrics["equal_share"] >= 0.5
    assert [metrics[key] for key in ("sqnr_db", "cosine", "max_error")] == [None] * 3
    told = [text for text in run.document["warnings"] if "elements of label differ" in text]
    assert bool(told) is (metrics["equal_share"] < 1)
    shown = onnxq(*arguments).out
    assert "equal elements of the first output" in shown
    assert "SQNR" not in shown
    missed = onnxq(*arguments, "--min-sqnr", "1", "--json")
    assert missed.status != 0
    assert missed.document["status"] == "missed"
    assert "no float output to measure SQNR on" in missed.document["errors"][0]["message"]


def test_masked_positions_are_counted(tmp_path: Path, data: Path) -> None:
    model = write(tmp_path / "model.onnx", MASKED, w=normal(0, 16, 8), keep=KEEP)
    arguments: list[str | Path] = ["quantize", model, "--scheme", "int8", "--data", data]
    run = onnxq(*arguments, "-o", tmp_path / "int8.onnx", "--json")
    assert run.status == 0, run.err
    metrics = run.document["metrics"]
    assert metrics["sqnr_db"] > 25
    assert metrics["left_out"] == 2 * run.document["verified_on"]["samples"]
    assert any("are Inf or NaN in the float model" in text for text in run.document["warnings"])


def test_what_was_not_compared_is_not_verified(tmp_path: Path, data: Path) -> None:
    body = "h = MatMul(x, w) e = Exp(h) m = Neg(e) y = Log(m)"
    text = f"g (float[n, 16] x) => (float[n, 8] y) {{ {body} }}"
    model = write(tmp_path / "model.onnx", text, w=normal(0, 16, 8))
    arguments: list[str | Path] = ["quantize", model, "--scheme", "int8", "--data", data]
    run = onnxq(*arguments, "-o", tmp_path / "int8.onnx")
    assert run.status == 0, run.err
    assert "Not verified: outputs were not compared." in run.out
    assert "Verified on" not in run.out


def test_compare_tells_of_other_shapes(tmp_path: Path, data: Path) -> None:
    weight = normal(0, 16, 8)
    files = [
        write(tmp_path / f"{name}.onnx", ABOVE, w=w)
        for name, w in (("one", weight), ("same", weight), ("far", np.abs(weight) * 2))
    ]
    run = onnxq("compare", *files, "--data", data, "--json")
    assert run.status == 0, run.err
    metrics = [found["metrics"] for found in run.document["runs"]]
    assert (metrics[1]["equal_share"], metrics[1]["other_shape"]) == (1.0, 0)
    assert metrics[2]["other_shape"] > 0
    (warning,) = (text for text in run.document["warnings"] if "another shape" in text)
    assert warning.startswith("run 3: ")
    shown = onnxq("compare", *files, "--data", data).out
    assert "equal elements" in " ".join(shown.split())
    assert "another shape" in shown
    assert max(map(len, shown.splitlines())) <= 80
