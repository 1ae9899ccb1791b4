"""``onnxq lint``: exit statuses, the JSON object, the table, what it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest

from tests.cli.conftest import MODEL, Quantized, onnxq
from tests.lint.cases import BASE, CASES
from tests.lint.models import write

if TYPE_CHECKING:
    from pathlib import Path


def test_a_model_that_is_fine() -> None:
    run = onnxq("lint", MODEL)
    assert (run.status, run.err) == (0, "")
    # Lines are cut where the folder has a long name.
    assert run.out.split() == f"{MODEL}: nothing found for target cpu.".split()


def test_what_quantize_writes_has_no_errors_and_no_warnings(quantized: Quantized) -> None:
    run = onnxq("lint", quantized.model, "--json")
    assert run.status == 0, run.out
    assert {finding["severity"] for finding in run.document["findings"]} <= {"note"}


def test_findings_are_told_with_what_backs_them(tmp_path: Path) -> None:
    path = write(CASES["axis-misread"].broken, tmp_path / "model.onnx")
    run = onnxq("lint", path, "--json")
    assert run.status == 1
    found = run.document
    assert (found["schema_version"], found["status"], found["output"]) == (1, "missed", None)
    assert found["target"] == "cpu"
    (error,) = found["errors"]
    assert error["code"] == "lint.findings"
    first = next(entry for entry in found["findings"] if entry["rule"] == "axis-misread")
    assert set(first) == {
        "rule", "severity", "node", "op", "message", "why", "evidence", "verified", "remedy",
        "fixable",
    }  # fmt: skip
    assert (first["severity"], first["op"], first["fixable"]) == ("error", "Conv", False)
    assert first["node"] == "Conv_3"
    assert all(text.startswith("tests/lint/test_measured.py::") for text in first["evidence"])
    assert first["verified"] == "cpu measurement"


def test_the_worst_comes_first_and_no_gpu_is_claimed(tmp_path: Path) -> None:
    path = write(BASE, tmp_path / "model.onnx")
    run = onnxq("lint", path, "--target", "tensorrt")
    assert run.status == 1
    assert "8 errors for target tensorrt" in run.err
    assert "\x1b" not in run.out
    assert max(map(len, run.out.splitlines())) <= 80
    text = " ".join(run.out.split())
    assert text.startswith("error: tensorrt-zero-point (4 nodes)")
    assert "Evidence (unverified, no GPU has confirmed it): https://github.com/NVIDIA" in text
    assert "not checked: does-not-load: this ONNX Runtime has no Tensorrt" in text


def test_notes_do_not_count(tmp_path: Path) -> None:
    path = write(CASES["unnamed-node"].broken, tmp_path / "model.onnx")
    run = onnxq("lint", path)
    assert (run.status, run.err) == (0, "")
    assert "note: unnamed-node (6 nodes)" in run.out


def test_fix_writes_what_it_repaired(tmp_path: Path) -> None:
    path, output = write(CASES["pair-twice"].broken, tmp_path / "model.onnx"), tmp_path / "out.onnx"
    run = onnxq("lint", path, "--fix", "-o", output)
    assert run.status == 0, run.err
    assert "fixed: pair-twice: QuantizeLinear_3" in run.out
    assert "equal" in run.out
    assert len(onnx.load(output).graph.node) == len(onnx.load(path).graph.node) - 2
    found = onnxq("lint", path, "--fix", "-o", output, "--json").document
    assert found["output"] == str(output)
    assert found["fixed"] == [{"rule": "pair-twice", "nodes": ["QuantizeLinear_3"]}]
    assert found["verified_on"] == {"made_up": True, "sqnr_db": None, "why_none": ""}


def test_what_cannot_be_repaired_is_left_and_counts(tmp_path: Path) -> None:
    path, output = write(BASE, tmp_path / "model.onnx"), tmp_path / "out.onnx"
    asked = ("lint", path, "--target", "tensorrt", "--fix", "-o", output)
    run = onnxq(*asked)
    assert run.status == 1
    assert "Nothing is written: nothing of what is wrong can be repaired." in run.out
    assert "each finding names its remedy" in run.err
    assert not output.exists()
    found = onnxq(*asked, "--json").document
    assert (found["output"], found["fixed"]) == (None, [])
    assert found["why_not_written"] == "nothing of what is wrong can be repaired"


def test_what_is_fine_is_written_as_it_was(tmp_path: Path) -> None:
    """So that what comes next in a pipeline finds its file whenever the status is 0."""
    path, output = write(BASE, tmp_path / "model.onnx"), tmp_path / "out.onnx"
    run = onnxq("lint", path, "--fix", "-o", output)
    assert (run.status, run.err) == (0, "")
    assert "Nothing needed repair; the model is written as it was." in run.out
    assert output.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--fix"], "given together"),
        (["-o", "out.onnx"], "given together"),
        (["--target", "npu"], "targets: cpu, cuda, tensorrt"),
        (["--target", "cpu", "--data", "x"], "No such option"),
    ],
)
def test_wrong_usage(arguments: list[str], words: str) -> None:
    run = onnxq("lint", MODEL, *arguments)
    assert run.status == 2
    assert words in run.err
    assert run.out == ""


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    run = onnxq("lint", path, "--json")
    assert run.status == 2
    assert run.document["status"] == "error"
    assert onnxq("lint", tmp_path / "none.onnx").status == 2
