"""``compare --batches --threads --save-session``."""

from __future__ import annotations

import functools
import io
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from onnxq.cli import show_session
from onnxq.cli.console import console
from onnxq.compare import throughput
from onnxq.compare.session_search import SessionSearch, Tried
from onnxq.runtime.timing import Ratio, TimingSettings
from onnxq.runtime.tuning import Tuning
from tests.cli.conftest import IMAGES, MODEL, onnxq

if TYPE_CHECKING:
    from pathlib import Path

BRIEF = TimingSettings(rounds=1, runs=1, warmup=0, seconds=0.0)


@pytest.mark.slow
def test_throughput_and_a_session(tmp_path: Path) -> None:
    options = ("--batches", "1,4", "--threads", "1", "--save-session", tmp_path / "s")
    run = onnxq("compare", MODEL, "--data", IMAGES, *options)
    assert run.status == 0, run.err
    assert max(map(len, run.out.splitlines())) <= 80
    for words in ("Throughput", "Session settings of fashion_resnet.onnx on cpu", "Best: "):
        assert words in run.out
    found = json.loads((tmp_path / "s/session.json").read_text(encoding="utf-8"))
    assert found["model"] == "fashion_resnet.onnx"
    assert (tmp_path / "s/load_session.py").exists()


def test_settings_that_lost_to_the_defaults_are_told() -> None:
    threads = Tuning(threads=1)
    found = SessionSearch(
        model=MODEL,
        provider="cpu",
        best=Tuning(),
        default_ms=2.0,
        best_ms=2.0,
        faster=Ratio(1.0, 1.0, 1.0),
        tried=(Tried(threads, 1.0, Ratio(2.0, 1.9, 2.1), taken=True),),
        left_out=(),
        lost=Tried(threads, 1.9, Ratio(1.05, 0.98, 1.1), taken=False),
        timing=BRIEF,
    )
    compared: Any = SimpleNamespace(runs=(), throughput=(), session=found)
    out = io.StringIO()
    screen = console(out)
    for view in show_session.views(compared, ()):
        screen.print(view)
    text = " ".join(out.getvalue().split())
    assert "Best: the defaults (2.00 ms)." in text
    assert "1 thread, 1.05 (0.98-1.10) times as fast (1.90 ms), which is not faster" in text


def test_throughput_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    brief = functools.partial(throughput.throughput, timing=BRIEF)
    monkeypatch.setattr(throughput, "throughput", brief)
    run = onnxq("compare", MODEL, "--data", IMAGES, "--batches", "1,4", "--json")
    assert run.status == 0, run.err
    entries = run.document["throughput"]
    assert [(entry["batch"], entry["threads"]) for entry in entries] == [(1, 2), (4, 2)]
    assert "session" not in run.document


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--batches", "1,x"), "'x' is no number"),
        (("--threads", "0"), "'0' is no number"),
        (("--threads", "100000"), "'100000' is no number"),
        (("--batches", "9" * 5000), "is no number"),
        (("--batches", ","), "',' is no number"),
        (("--levels", ","), "no optimization level ','"),
        (("--save-session", MODEL), "this is a file, a folder is wanted"),
        (("--save-session", MODEL / "deep/er"), "this is a file, a folder is wanted"),
        (("--provider-option", "cuda.use_tf32=0"), "which is not used"),
        (("--engine-cache", "cache"), "only TensorRT builds engines, and it is not used"),
        (("--engine-cache", MODEL), "this is a file, a folder is wanted"),
        (("--batches", "1", "--metric", "sqnr"), "--metric times nothing"),
    ],
)
def test_bad_usage(options: tuple[str | Path, ...], words: str) -> None:
    run = onnxq("compare", MODEL, "--data", IMAGES, *options)
    assert run.status == 2
    assert words in run.err
