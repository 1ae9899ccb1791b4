"""``onnxq deploy``: one line for what is wrong, one JSON object, and the exit status."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.cli.conftest import MODEL, onnxq
from tests.deploy.folders import both, save_checkpoint

if TYPE_CHECKING:
    from pathlib import Path


def test_a_script_is_the_default(tmp_path: Path) -> None:
    run = onnxq("deploy", MODEL, "-o", tmp_path / "out", "--json")
    assert run.status == 0, run.err
    assert run.document["form"] == "script"
    assert run.document["files"] == ["model.onnx", "run.py"]
    assert run.document["difference"] == 0


def test_a_folder_is_checked(tmp_path: Path) -> None:
    model, checkpoint = both(tmp_path)
    out = tmp_path / "out"
    run = onnxq("deploy", model, "--as", "genai", "--checkpoint", checkpoint, "-o", out)
    assert run.status == 0, run.err
    assert onnxq("deploy", out, "--check").status == 0
    (out / "tokenizer.json").unlink()
    run = onnxq("deploy", out, "--check", "--json")
    assert run.status == 2
    assert run.document["errors"][0]["message"] == "tokenizer.json is missing"
    assert len(run.err.splitlines()) <= 2


def test_a_model_without_a_cache_leaves_nothing(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint")
    out = tmp_path / "out"
    run = onnxq("deploy", MODEL, "--as", "genai", "--checkpoint", checkpoint, "-o", out)
    assert run.status == 2
    assert len(run.err.splitlines()) <= 2
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_checking_writes_nothing(tmp_path: Path) -> None:
    for more in (("-o", tmp_path / "out"), ("--as", "ort"), ("--checkpoint", tmp_path)):
        run = onnxq("deploy", tmp_path, "--check", *more, "--json")
        assert run.status == 2
        assert run.document["errors"][0]["where"] == more[0]
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert onnxq("deploy", MODEL, "-o", tmp_path / "empty").status == 0
    run = onnxq("deploy", MODEL, "-o", tmp_path / "empty", "--json")
    assert (run.status, run.document["errors"][0]["code"]) == (2, "usage.exists")
    assert "an empty one" in run.document["errors"][0]["remedy"]


def test_usage_is_told(tmp_path: Path) -> None:
    assert onnxq("deploy", MODEL).status == 2
    assert "--checkpoint" in onnxq("deploy", MODEL, "--as", "genai", "-o", tmp_path / "out").err
