"""Throughput by batch and threads: what is run, in which order. No time is asserted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from onnxq.compare import throughput as rates
from onnxq.compare.throughput import Loads, throughput
from onnxq.errors import DataError, UsageError
from onnxq.runtime.provider_options import in_use
from onnxq.runtime.timing import LatencyResult, Timing, TimingSettings
from tests.pretended import pretend
from tests.small_models import normal, write

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from onnxq.runtime.timing import Contender

TEXT = "g (float[n, 4] x) => (float[n, 3] y) { y = MatMul(x, w) }"
BRIEF = TimingSettings(rounds=1, runs=1, warmup=0, seconds=0.0)
SAMPLES = [{"x": normal(0, 1, 4)}]
W = normal(1, 4, 3)


def test_every_batch_with_every_number_of_threads(tmp_path: Path) -> None:
    models = [write(tmp_path / f"{name}.onnx", TEXT, w=W) for name in "ab"]
    steps: list[tuple[str, int, int]] = []
    found = throughput(
        models, SAMPLES, loads=Loads((1, 3), (1, 2)), timing=BRIEF,
        report=lambda *step: steps.append(step),
    )  # fmt: skip
    assert [(entry.model.stem, entry.batch, entry.threads) for entry in found] == [
        ("a", 1, 1), ("b", 1, 1), ("a", 1, 2), ("b", 1, 2),
        ("a", 3, 1), ("b", 3, 1), ("a", 3, 2), ("b", 3, 2),
    ]  # fmt: skip
    assert steps == [("throughput", done, 8) for done in range(1, 9)]
    for entry in found:
        assert entry.low == entry.per_second == entry.high
        assert entry.per_second == pytest.approx(entry.batch / entry.median_ms * 1e3)


def test_tensorrt_is_told_of_all_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "tensorrt")
    told: list[dict[str, str]] = []

    def measure(contenders: Sequence[Contender], *_: object) -> Timing:
        told.append(dict(in_use().get("TensorrtExecutionProvider", {})))
        result = LatencyResult(1.0, 1.0, 1.0, 1.0, (1.0,), 1.0, 1)
        return Timing({contender.name: result for contender in contenders}, BRIEF)

    monkeypatch.setattr(rates, "measure", measure)
    model = write(tmp_path / "m.onnx", TEXT, w=W)
    throughput([model], SAMPLES, providers=["tensorrt"], loads=Loads((1, 8, 32)))
    shapes = {"min": "x:1x4", "opt": "x:8x4", "max": "x:32x4"}
    assert told == [{f"trt_profile_{k}_shapes": v for k, v in shapes.items()}] * 3
    assert in_use() == {}


def test_a_model_that_takes_no_batches_is_named(tmp_path: Path) -> None:
    fixed = write(tmp_path / "fixed.onnx", TEXT.replace("n,", "1,"), w=W)
    free = write(tmp_path / "free.onnx", TEXT, w=W)
    with pytest.raises(DataError, match="batch of 2 does not fit") as caught:
        throughput([free, fixed], SAMPLES, loads=Loads((1, 2)), timing=BRIEF)
    assert caught.value.where == str(fixed)


@pytest.mark.parametrize("loads", [Loads((0,)), Loads((1,), (0,)), Loads((1,), (-1,))])
def test_numbers_below_one(loads: Loads, tmp_path: Path) -> None:
    model = write(tmp_path / "m.onnx", TEXT, w=W)
    with pytest.raises(UsageError, match="from 1 on"):
        throughput([model], [{"x": np.ones((1, 4), np.float32)}], loads=loads)
