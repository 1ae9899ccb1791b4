"""One comparison with names that would like to be markup, and its report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from onnxq.compare.compare import Comparison, compare
from onnxq.compare.report import ReportLimits, write_report
from onnxq.compare.report.evidence import Evidence, gather
from onnxq.runtime.timing import TimingSettings
from tests.small_models import proto

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


HOSTILE = '<script>alert("x")</script><img src=//a.test onerror=alert(1)>{{ 7*7 }}$\\frac'
LINEAR = "g (float[n, 4] x) => (float[n, 3] y) { a = MatMul(x, w) b = Relu(a) y = MatMul(b, v) }"
QUICK = TimingSettings(rounds=1, runs=3, warmup=1, threads=1, seconds=0.0)
RANDOM = np.random.default_rng(0)
FIRST = RANDOM.standard_normal((4, 5)).astype(np.float32)
SECOND = RANDOM.standard_normal((5, 3)).astype(np.float32)
SAMPLES = [{"x": RANDOM.standard_normal((rows, 4)).astype(np.float32)} for rows in (1, 3, 2, 5)]


@dataclass(frozen=True)
class Written:
    """A comparison, what was gathered of it, and the file."""

    comparison: Comparison
    evidence: Evidence
    path: Path

    @property
    def text(self) -> str:
        """The page."""
        return self.path.read_text(encoding="utf-8")


def hostile_model(path: Path, first: NDArray[np.float32]) -> Path:
    """A model whose nodes bear a name that would like to be markup, a script and a template."""
    model = proto(LINEAR, w=first, v=SECOND)
    for number, node in enumerate(model.graph.node):
        node.name = f"{HOSTILE}{number}\x1b[31m\u202e\u6f22"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("report")
    noisy = (FIRST * (1 + 0.2 * RANDOM.standard_normal(FIRST.shape))).astype(np.float32)
    models = [
        hostile_model(folder / "first.onnx", FIRST),
        hostile_model(folder / "<b>second & third.onnx", noisy),
    ]
    comparison = compare(models, SAMPLES, timing=QUICK)
    path = folder / "report.html"
    write_report(comparison, SAMPLES, path, command=f"onnxq compare '{HOSTILE}'")
    evidence = gather(comparison, SAMPLES, ReportLimits(), "", lambda step, done, total: None)
    return Written(comparison, evidence, path)
