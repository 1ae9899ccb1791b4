from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxq.errors import InternalError, ModelError, OnnxqError, ProviderError, UsageError
from onnxq.runtime import timing
from onnxq.runtime.timing import (
    Contender,
    LatencyResult,
    Ratio,
    Timing,
    TimingSettings,
    measure,
)

BRIEF = TimingSettings(rounds=2, runs=3, warmup=1, threads=1, seconds=0.0)
FEEDS = [{"x": np.ones((rows, 4), np.float32)} for rows in (1, 2)]


@pytest.fixture
def private_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def latency(*medians: float) -> LatencyResult:
    return LatencyResult(1.0, 1.0, 1.0, 1.0, medians, 1.0, 1)


def test_ratio_is_taken_round_by_round() -> None:
    results = {"float": latency(4.0, 9.0, 8.0), "int8": latency(2.0, 3.0, 8.0)}
    taken = Timing(results, TimingSettings())
    assert taken.ratio("float", "int8") == Ratio(median=2.0, low=1.0, high=3.0)


def test_processes_alternate_and_report(
    linear_path: Path, private_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    real = timing._run_worker

    def note(spec: dict[str, Any], folder: Path, limit_seconds: float) -> dict[str, Any]:
        order.append(Path(spec["model"]).stem)
        return real(spec, folder, limit_seconds)

    monkeypatch.setattr(timing, "_run_worker", note)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    other = linear_path.with_name("other.onnx")
    other.write_bytes(linear_path.read_bytes())
    steps: list[tuple[int, int]] = []
    taken = measure(
        [Contender("a", linear_path), Contender("b", other)],
        FEEDS,
        BRIEF,
        lambda done, total: steps.append((done, total)),
    )
    assert order == ["linear", "other", "linear", "other"]
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    for result in taken.results.values():
        assert len(result.per_round_median_ms) == 2
        assert 0 < result.median_ms <= result.p90_ms
        assert result.first_ms > 0
        assert result.load_seconds > 0
    assert list(private_tmp.iterdir()) == []


def test_memory_of_the_parent_does_not_count(linear_path: Path) -> None:
    ballast = np.ones(100_000_000, np.float32)
    settings = TimingSettings(rounds=1, runs=1, warmup=0, threads=1, seconds=0.0)
    taken = measure([Contender("a", linear_path)], FEEDS, settings)
    assert 10_000_000 < taken.results["a"].peak_rss_bytes < ballast.nbytes


def test_model_that_does_not_load(tmp_path: Path, private_tmp: Path) -> None:
    with pytest.raises(ModelError) as caught:
        measure([Contender("a", tmp_path / "absent.onnx")], FEEDS, BRIEF)
    assert caught.value.code == "runtime.load"
    assert caught.value.where.endswith("absent.onnx")
    assert list(private_tmp.iterdir()) == []


def test_feed_that_does_not_fit(linear_path: Path, private_tmp: Path) -> None:
    feeds = [{"x": np.ones((1, 3), np.float32)}]
    with pytest.raises(ModelError, match="invalid dimensions for input: x"):
        measure([Contender("a", linear_path)], feeds, BRIEF)
    assert list(private_tmp.iterdir()) == []


def test_missing_provider(linear_path: Path, private_tmp: Path) -> None:
    with pytest.raises(ProviderError) as caught:
        measure([Contender("a", linear_path, "openvino")], FEEDS, BRIEF)
    assert caught.value.remedy
    assert list(private_tmp.iterdir()) == []


def test_input_called_like_a_parameter_of_numpy(tmp_path: Path) -> None:
    import onnx
    from onnx import parser

    text = (
        '<ir_version: 9, opset_import: ["" : 17]> g (float[2] file) => (float[2] y) {y=Neg(file)}'
    )
    path = tmp_path / "file.onnx"
    onnx.save(parser.parse_model(text), path)
    taken = measure([Contender("a", path)], [{"file": np.ones(2, np.float32)}], BRIEF)
    assert taken.results["a"].median_ms > 0


def worker_that(code: str, monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[str]]:
    """Have the workers run this code instead; their processes are returned."""
    real = subprocess.Popen
    started: list[subprocess.Popen[str]] = []

    class Popen(real):  # type: ignore[misc, valid-type]
        def __init__(self, _: list[str], **settings: Any) -> None:
            super().__init__([sys.executable, "-c", code], **settings)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    return started


@pytest.mark.parametrize(
    ("code", "kind", "match"),
    [
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            ModelError,
            "was ended: Killed",
        ),
        ("raise SystemExit('no room')", InternalError, "status 1: no room"),
        ("print('noise'); raise SystemExit(7)", InternalError, "status 7: it said nothing"),
    ],
)
def test_worker_that_dies(
    code: str,
    kind: type[OnnxqError],
    match: str,
    linear_path: Path,
    private_tmp: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker_that(code, monkeypatch)
    with pytest.raises(kind, match=match):
        measure([Contender("a", linear_path)], FEEDS, BRIEF)
    assert list(private_tmp.iterdir()) == []


def test_worker_over_its_limit_is_ended(
    linear_path: Path, private_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = worker_that("import time; time.sleep(60)", monkeypatch)
    settings = TimingSettings(rounds=1, runs=1, limit_seconds=0.2)
    with pytest.raises(ModelError, match=r"longer than 0\.2 seconds"):
        measure([Contender("a", linear_path)], FEEDS, settings)
    assert [process.returncode for process in started] == [-signal.SIGKILL]
    assert list(private_tmp.iterdir()) == []


def test_interrupt_ends_the_worker(
    linear_path: Path, private_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = worker_that("import time; time.sleep(60)", monkeypatch)

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        measure([Contender("a", linear_path)], FEEDS, BRIEF)
    assert [process.poll() for process in started] == [-signal.SIGKILL]
    for process in started:
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()
    assert list(private_tmp.iterdir()) == []


def test_bad_usage(linear_path: Path) -> None:
    one = Contender("a", linear_path)
    with pytest.raises(UsageError, match="no model"):
        measure([], FEEDS)
    with pytest.raises(UsageError, match="same name"):
        measure([one, one], FEEDS)
    with pytest.raises(UsageError, match="no sample"):
        measure([one], [])
    with pytest.raises(UsageError, match="at least one"):
        measure([one], FEEDS, TimingSettings(runs=0))


def test_text_inputs_need_no_pickle(tmp_path: Path) -> None:
    feeds = [{"text": np.array(["a", "bc"], dtype=object)}]
    (written,) = timing._write_feeds(feeds, BRIEF, tmp_path)
    assert written["names"] == ["text"]
    with np.load(written["path"], allow_pickle=False) as arrays:
        assert arrays["arr_0"].tolist() == ["a", "bc"]
