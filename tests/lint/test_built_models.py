"""What onnxq writes of real models has no errors and no warnings, for each target and scheme."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from onnxq.lint import lint
from tests.lint.written import EVERY, FORMS, write

if TYPE_CHECKING:
    from onnxq.lint import Finding

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "models" / ".cache"
FASHION = ROOT / "models" / "fashion_resnet" / "fashion_resnet.onnx"
IMAGES = ROOT / "calibration_data" / "fashion_mnist" / "calibration.npy"
PLAIN = ("int8", "int8, qoperator", "int8-dynamic", "int8-weights", "int4, rtn", "float16")
"""Forms for the CPU that differ in more than numbers."""

QUICK = [("cpu", form) for form in (*PLAIN, "bfloat16")] + [
    (target, form) for target in ("tensorrt", "cuda") for form in FORMS[target]
]
SLOW = [
    *(("magika", target, form) for target, form in QUICK),
    ("ppocr_v6", "cpu", "int8"),
    ("ppocr_v6", "cpu", "int8, qoperator"),
    ("ppocr_v6", "cpu", "int8-dynamic"),
    ("ppocr_v6", "cpu", "int4, rtn"),
    ("ppocr_v6", "tensorrt", "int8"),
    ("ppocr_v6", "tensorrt", "fp8"),
    ("minilm", "cpu", "int8"),
    ("minilm", "cpu", "int8-dynamic"),
    ("minilm", "cpu", "int4, rtn"),
    ("minilm", "tensorrt", "int8"),
    ("minilm", "tensorrt", "fp8"),
    ("minilm", "tensorrt", "int4"),
    ("minilm", "cuda", "int4"),
    ("minilm", "cuda", "float16"),
    ("efficientnet_lite0", "cpu", "int8"),
    ("efficientnet_lite0", "cpu", "int8-weights"),
    ("efficientnet_lite0", "tensorrt", "int8"),
    ("efficientnet_lite0", "tensorrt", "fp8"),
    ("efficientnet_lite0", "cuda", "float16"),
]


def counting(model: Path, data: Path, target: str, form: str, folder: Path) -> tuple[Finding, ...]:
    """Errors and warnings in what ``quantize`` writes for a target."""
    output = folder / "model.onnx"
    needs_data = FORMS[target][form]["scheme"] in ("int8", "fp8")
    write(model, str(data) if needs_data else None, output, target, form)
    return lint(output, target).counting


@pytest.mark.parametrize(("target", "form"), QUICK)
def test_fashion_resnet(target: str, form: str, tmp_path: Path) -> None:
    assert counting(FASHION, IMAGES, target, form, tmp_path) == ()


@pytest.mark.slow
@pytest.mark.parametrize(("target", "form"), [pair for pair in EVERY if pair not in QUICK])
def test_fashion_resnet_in_all_other_forms(target: str, form: str, tmp_path: Path) -> None:
    output = tmp_path / "model.onnx"
    write(FASHION, str(IMAGES), output, target, form)
    assert lint(output, target).counting == ()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "target", "form"), SLOW)
def test_built_models(name: str, target: str, form: str, tmp_path: Path) -> None:
    folder = CACHE / name
    if not (folder / "model.onnx").exists():
        pytest.skip(f"{name} is not built; `python -m models.build {name}` builds it")
    found = counting(folder / "model.onnx", folder / "calibration", target, form, tmp_path)
    assert found == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["magika", "ppocr_v6", "minilm", "efficientnet_lite0", "smollm2"])
def test_float_models(name: str) -> None:
    path = CACHE / name / "model.onnx"
    if not path.exists():
        pytest.skip(f"{name} is not built; `python -m models.build {name}` builds it")
    assert lint(path).counting == ()
