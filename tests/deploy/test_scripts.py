"""What is deployed runs without onnxq, in a process of its own."""

from __future__ import annotations

import ast
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from onnxq.deploy import deploy
from onnxq.deploy.scripts import run_script
from onnxq.errors import ModelError
from onnxq.runtime.session import open_session
from tests.small_models import normal, write

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """g (float[N, 8] x, int64[N, S] attention_mask) => (float[N, 4] y, int64[N, S] m) {
    h = MatMul(x, w)
    y = Relu(h)
    m = Identity(attention_mask)
}"""


def run(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-I", str(folder / "run.py"), *arguments]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path / "m.onnx", TEXT, w=normal(0, 8, 4))


@pytest.mark.parametrize("form", ["script", "ort", "optimized"])
def test_each_form_runs_on_a_sample(model: Path, tmp_path: Path, form: str) -> None:
    made = deploy(model, tmp_path / "out", form)  # type: ignore[arg-type]
    assert made.difference < 1e-6
    assert "(1, 4)" in run(tmp_path / "out")
    x, mask = normal(1, 3, 8), np.ones((3, 5), np.int64)
    np.savez(tmp_path / "sample.npz", x=x, attention_mask=mask)
    out = run(tmp_path / "out", str(tmp_path / "sample.npz"), "CPUExecutionProvider")
    first = open_session(model).run({"x": x, "attention_mask": mask})[0].ravel()[:5]
    assert f"y tensor(float) (3, 4) {first}" in out


def test_what_the_program_cannot_use_is_told(model: Path, tmp_path: Path) -> None:
    made = deploy(model, tmp_path / "out", "script")
    assert made.command == f"python {tmp_path / 'out/run.py'}"
    command = [sys.executable, "-I", str(tmp_path / "out/run.py"), "sample.npy"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert found.returncode == 1
    assert found.stderr.startswith("sample.npy: neither a sample (.npz) nor")


def test_a_text_is_given_as_it_is(tmp_path: Path) -> None:
    text = "g (string[1] text) => (string[1] same) { same = Identity(text) }"
    made = deploy(write(tmp_path / "m.onnx", text), tmp_path / "out", "script")
    assert made.command.endswith(' "TEXT"')
    assert "a b.jpg" in run(tmp_path / "out", "a b.jpg")
    assert "same tensor(string) (1,) ['text']" in run(tmp_path / "out")


def test_ort_names_the_operators_that_a_build_needs(model: Path, tmp_path: Path) -> None:
    made = deploy(model, tmp_path / "out", "ort")
    assert made.files == ("model.ort", "required_operators.config", "run.py")
    text = (tmp_path / "out" / "required_operators.config").read_text(encoding="utf-8")
    assert "MatMul" in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize("form", ["ort", "optimized"])
def test_weights_in_another_file_are_refused(tmp_path: Path, form: str) -> None:
    model = write(tmp_path / "m.onnx", TEXT, w=normal(0, 8, 4))
    proto = onnx.load(model)
    onnx.save(proto, model, save_as_external_data=True, location="m.data", size_threshold=0)
    with pytest.raises(ModelError, match="another file"):
        deploy(model, tmp_path / "out", form)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_names_of_a_model_are_no_code(tmp_path: Path) -> None:
    """A name that would end the literal, or begin a line of its own, stays a name."""
    name = "x'): open('planted', 'w')\nimport os # {extensions} \"\"\""
    text = run_script("model.onnx", {name: np.zeros((1, 2), np.float32)}, extensions=False)
    (tmp_path / "run.py").write_text(text, encoding="utf-8")
    literals = [n.value for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Constant)]
    assert name in literals
    assert not any(
        isinstance(n, ast.Call) and ast.unparse(n.func) == "open" for n in ast.walk(ast.parse(text))
    )


def test_tensorrt_is_given_the_pairs_as_they_are_written() -> None:
    text = run_script("model.onnx", {"x": np.zeros((1, 2), np.float32)}, extensions=False)
    compile(text, "run.py", "exec")
    asked, entry = text[text.index("if 'Tensorrt") :].splitlines()[:2]
    assert asked == "if 'TensorrtExecutionProvider' in providers:"
    assert entry.strip() == "options.add_session_config_entry('session.disable_quant_qdq', '1')"
    assert text.index(entry) < text.index("InferenceSession(path")
