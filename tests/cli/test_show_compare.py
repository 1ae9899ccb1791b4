"""The tables of ``compare``: nothing is lost at 80 columns, and the reference is called by name."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onnxq.cli import json_output
from onnxq.cli.console import console
from onnxq.cli.show_compare import views
from onnxq.compare.compare import ComparedRun, Comparison
from onnxq.compare.engines import KeptEngine
from onnxq.data.shape_ranges import ShapeRange
from onnxq.runtime.placement import PlacedNode, Placement
from onnxq.runtime.providers import CPU, SHORT
from onnxq.runtime.timing import LatencyResult, Ratio, TimingSettings
from onnxq.stages.shape_profile import ShapeProfile
from onnxq.verify.fidelity import Fidelity

PLACED = Placement(
    SHORT["cuda"],
    (PlacedNode("a", "Conv", "", SHORT["cuda"]), PlacedNode("b", "Cast", "", CPU)),
    12,
)
LATENCY = LatencyResult(
    median_ms=0.00549,
    p90_ms=0.00561,
    p99_ms=1234.5,
    first_ms=12345.6,
    per_round_median_ms=(1.0,),
    load_seconds=123.4,
    peak_rss_bytes=1_234_000_000,
    device_bytes=868_000_000,
    joules=0.000123,
)
FIDELITY = Fidelity(
    output="a_rather_long_output",
    sqnr_db=-12.3,
    cosine=0.12345,
    max_error=1.23e-5,
    top1_agreement=0.98765,
    float_accuracy=0.9,
    quantized_accuracy=0.9,
    equal_share=0.98765,
    not_finite=(),
    left_out=0,
    other_shape=0,
    samples=32,
    independent=True,
)


def run(fidelity: Fidelity | None, ratio: Ratio | None) -> ComparedRun:
    return ComparedRun(
        model=Path("some/folder/with/a/long/name/efficientnet_lite0.int8.onnx"),
        provider="tensorrt:1",
        file_bytes=1_234_000,
        kernels=None,
        placement=PLACED,
        fidelity=fidelity,
        accuracy=0.9,
        perplexity=12.345,
        latency=LATENCY,
        ratio=ratio,
    )


def shown(found: Comparison) -> str:
    """What is printed of a comparison, in one line."""
    out = io.StringIO()
    screen = console(out)
    for view in views(found):
        screen.print(view)
    return " ".join(out.getvalue().split())


@pytest.mark.parametrize("metric", ["auto", "sqnr"])
def test_every_column_fits_80(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    runs = (run(FIDELITY, None), run(FIDELITY, Ratio(1234.5, 1000.25, 2000.75)))
    found = Comparison(runs, 32, TimingSettings(), tokens=None, metric=metric)
    text = io.StringIO()
    screen = console(text)
    for view in views(found):
        screen.print(view)
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in text.getvalue()
    # Runs, latency, start and memory; then numerics, or the number that was asked for.
    assert sum(line.startswith("run  ") for line in lines) == 4
    # None of the two runs is the reference.
    assert " run 1" not in text.getvalue().replace("warning: run 1", "")
    assert "efficientnet_lite0.int8.onnx on the CPU" in text.getvalue()


def test_what_tensorrt_is_told_is_shown_and_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    inputs = tuple(
        ShapeRange(name, (1, 16), (1, 33), (1, 128)) for name in ("input_ids", "attention_mask")
    )
    profile = ShapeProfile(inputs, 64, "the data has a note")
    kept = replace(run(FIDELITY, None), engine=KeptEngine(Path("kept/0123"), 12.345))
    found = Comparison((run(None, None), kept), 64, None, profile=profile)
    words = shown(found)
    assert "TensorRT's profile, from 64 samples" in words
    assert "attention_mask 1x16 1x33 1x128" in words
    assert "warning: the data has a note" in words
    assert "run 2: TensorRT built its engine in 12.3 s" in words
    document: Any = json_output.plain(json_output.compared(found))
    shapes = document["shape_profile"]
    assert shapes["samples"] == 64
    assert shapes["inputs"][1] == {
        "name": "attention_mask", "least": [1, 16], "typical": [1, 33], "greatest": [1, 128],
    }  # fmt: skip
    assert shapes["options"]["trt_profile_opt_shapes"] == "input_ids:1x33,attention_mask:1x33"
    assert document["runs"][1]["engine"] == {"folder": "kept/0123", "build_seconds": 12.345}
    assert document["runs"][0]["engine"] is None


def test_outputs_beside_the_first_are_shown_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    others, equal = {"a": 30.5, "b": -3.2}, {"ids": 0.75, "mask": 1.0}
    other = run(replace(FIDELITY, others=others, others_equal=equal), None)
    found = Comparison((run(None, None), other), 32, None)
    words = shown(found)
    assert "2 b -3.2 dB 2" in words
    assert "run 2: low accuracy in outputs beside the first: 'b' -3.2 dB" in words
    assert "run 2: 25 % of the elements of ids differ" in words
    assert "mask" not in words
    document: Any = json_output.plain(json_output.compared(found))
    metrics = document["runs"][1]["metrics"]
    assert (metrics["others"], metrics["others_equal"]) == (others, equal)
