"""Writing: refusals before any work, and a file that is whole or as it was."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import numpy as np
import pytest

from onnxq.compare.compare import compare
from onnxq.compare.report import check_report, write_report
from onnxq.compare.report import page as page_module
from onnxq.errors import UsageError
from tests.compare.report.conftest import SAMPLES
from tests.small_models import write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.compare.report.conftest import Written

TEXT = "g (float[n, 4] x) => (float[n, 3] y) { a = MatMul(x, w) y = Relu(a) }"


def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "matplotlib" else found(name)
    )
    with pytest.raises(UsageError, match="matplotlib") as caught:
        check_report(tmp_path / "report.html")
    assert caught.value.code == "report.missing_package"
    assert caught.value.remedy == "pip install 'onnxq[report]'"


def test_it_replaces_no_model_and_needs_its_folder(written: Written, tmp_path: Path) -> None:
    for run in written.comparison.runs:
        with pytest.raises(UsageError, match="replace the model"):
            write_report(written.comparison, SAMPLES, run.model)
    with pytest.raises(UsageError, match="folder"):
        check_report(tmp_path / "missing" / "report.html")


def test_a_failure_leaves_the_old_report(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    path.write_text("old", encoding="utf-8")

    def fail(found: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(page_module, "render", fail)
    with pytest.raises(KeyboardInterrupt):
        write_report(written.comparison, SAMPLES, path)
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_progress_is_told(written: Written, tmp_path: Path) -> None:
    steps: dict[str, tuple[int, int]] = {}

    def report(step: str, done: int, total: int) -> None:
        steps[step] = (done, total)

    write_report(written.comparison, SAMPLES, tmp_path / "report.html", report=report)
    assert steps == {"placement": (2, 2), "layers of <b>second & third.onnx": (1, 1)}


@pytest.mark.parametrize(
    ("factor", "words"),
    [(1.0, "they are equal"), (np.nan, "its inputs are exact, its output is NaN or Inf")],
)
def test_equal_and_broken_models_have_a_report(tmp_path: Path, factor: float, words: str) -> None:
    weight = np.ones((4, 3), np.float32)
    models = [
        write(tmp_path / "one.onnx", TEXT, w=weight),
        write(tmp_path / "other.onnx", TEXT, w=weight * np.float32(factor)),
    ]
    path = tmp_path / "report.html"
    write_report(compare(models, SAMPLES, timing=None), SAMPLES, path)
    assert words in path.read_text(encoding="utf-8")
