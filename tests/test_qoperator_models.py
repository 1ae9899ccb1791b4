"""Real models as operators on integers, end to end: bytes, bits, kernels."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxq.data import open_data
from onnxq.graph.io import load
from onnxq.graph.structure import signature
from onnxq.pipeline import RunOptions, apply, quantize
from onnxq.recipe import CalibrationSettings, Recipe
from onnxq.runtime.kernels import count_kernels
from tests.small_models import run

ROOT = Path(__file__).parent.parent
FASHION = ROOT / "models" / "fashion_resnet" / "fashion_resnet.onnx"
FASHION_DATA = ROOT / "calibration_data" / "fashion_mnist" / "calibration.npy"
CACHE = ROOT / "models" / ".cache"


def both_forms(model: Path, data: Path, folder: Path, samples: int) -> None:
    """The forms have the same bits, from ``apply`` too, and run in the same kernels."""
    settings = CalibrationSettings(method="minmax", samples=samples)
    found: dict[str, Any] = {}
    for form in ("qdq", "qoperator"):
        recipe = Recipe.model_validate(
            {"version": 1, "format": form, "channel_scaling": "off", "calibration": settings}
        )
        options = RunOptions(timing=None, plan_out=folder / form)
        path = folder / f"{form}.onnx"
        found[form] = quantize(model, str(data), path, recipe=recipe, options=options)
        apply(model, folder / form, folder / "again.onnx")
        assert (folder / "again.onnx").read_bytes() == path.read_bytes()
        kernels = found[form].verification.kernels
        assert kernels.integer == kernels.planned > 0
    qdq, integers = folder / "qdq.onnx", folder / "qoperator.onnx"
    assert count_kernels(integers) == count_kernels(qdq)
    assert integers.stat().st_size < qdq.stat().st_size
    assert found["qoperator"].warnings == found["qdq"].warnings
    for sample in itertools.islice(open_data(str(data), signature(load(model))), 4):
        feeds = sample.feeds
        expected = run(qdq, feeds, "all")
        for level in ("all", "none"):
            result = run(integers, feeds, level)
            assert all(np.array_equal(a, b) for a, b in zip(result, expected, strict=True))


def test_fashion_resnet(tmp_path: Path) -> None:
    both_forms(FASHION, FASHION_DATA, tmp_path, 32)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["minilm", "efficientnet_lite0", "magika", "ppocr_v6"])
def test_built_models(name: str, tmp_path: Path) -> None:
    folder = CACHE / name
    if not (folder / "model.onnx").exists():
        pytest.skip(f"{name} is not built; `python -m models.build {name}` builds it")
    both_forms(folder / "model.onnx", folder / "calibration", tmp_path, 8)
