"""Libraries of custom operators: native code, loaded where it is named and nowhere else."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from onnxq.runtime import kernel_speed
from tests.cli.conftest import onnxq
from tests.small_models import normal, proto

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """g (float[N, 8] x, string[N] t) => (float[N, 4] y, string[N] u) {
    y = MatMul(x, w) u = ai.onnx.contrib.StringUpper(t)
}"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    made = proto(TEXT, w=normal(0, 8, 4))
    made.opset_import.add(domain="ai.onnx.contrib", version=1)
    onnx.save(made, tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for index in range(4):
        np.savez(folder / f"{index}.npz", x=normal(index, 3, 8), t=np.asarray(["a", "b", "c"]))
    return folder


def test_they_are_loaded_where_they_are_named_alone(
    model: Path, data: Path, tmp_path: Path
) -> None:
    extensions = pytest.importorskip("onnxruntime_extensions")
    # One that lies beside the model is nobody's.
    shutil.copy(extensions.get_library_path(), tmp_path / "extensions.so")
    output = tmp_path / "out.onnx"
    arguments = ("quantize", model, "--data", data, "--scheme", "int8", "-o", output, "--json")
    for _ in range(2):
        run = onnxq(*arguments)
        assert run.status == 2
        (error,) = run.document["errors"]
        assert error["code"] == "runtime.unknown_op"
        assert error["where"] == str(model)
        assert "--custom-ops extensions" in error["remedy"]
        assert not output.exists()
        run = onnxq(*arguments, "--custom-ops", "extensions")
        assert run.status == 0, run.err
        assert [site["decision"] for site in run.document["sites"]] == ["int8"]
        output.unlink()


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "no such library"), (b"", "does not load"), (b"\x7fELF" * 100, "does not load")],
)
def test_what_is_no_library_is_refused(
    model: Path, data: Path, tmp_path: Path, content: bytes | None, says: str
) -> None:
    library = tmp_path / "library.so"
    if content is not None:
        library.write_bytes(content)
    run = onnxq("inspect", model, "--data", data, "--custom-ops", library, "--json")
    assert run.status == 2
    (error,) = run.document["errors"]
    assert error["code"] == "runtime.custom_ops"
    assert says in error["message"]
    assert error["where"] == str(library)
    assert error["remedy"]


def test_doctor_runs_what_is_in_front_of_a_models_products(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime_extensions")
    monkeypatch.setattr(kernel_speed, "kernel_speeds", lambda *_, **__: ())
    text = """g (float[4, 8] x) => (float[4, 4] y) {
        p, n = ai.onnx.contrib.NegPos(x)
        y = MatMul(p, w)
    }"""
    made = proto(text, w=normal(0, 8, 4))
    made.opset_import.add(domain="ai.onnx.contrib", version=1)
    path = tmp_path / "m.onnx"
    onnx.save(made, path)
    refused = onnxq("doctor", "--model", path, "--json")
    assert refused.status == 2
    (error,) = refused.document["errors"]
    assert (error["code"], error["where"]) == ("runtime.unknown_op", str(path))
    assert "--custom-ops extensions" in error["remedy"]
    run = onnxq("doctor", "--model", path, "--custom-ops", "extensions")
    assert run.status == 0, run.err
    assert "4x8x4" in run.out
