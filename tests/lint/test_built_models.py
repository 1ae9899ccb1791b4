"""What onnxq writes for the CPU has no errors and no warnings, model by model, scheme by scheme."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from onnxq.lint import lint
from onnxq.pipeline import RunOptions, quantize
from onnxq.recipe import Recipe

if TYPE_CHECKING:
    from onnxq.lint import Finding

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "models" / ".cache"
FASHION = ROOT / "models" / "fashion_resnet" / "fashion_resnet.onnx"
IMAGES = ROOT / "calibration_data" / "fashion_mnist" / "calibration.npy"
FORMS: dict[str, dict[str, Any]] = {
    "int8": {"scheme": "int8"},
    "int8, qoperator": {"scheme": "int8", "format": "qoperator"},
    "int8-dynamic": {"scheme": "int8-dynamic"},
    "int8-weights": {"scheme": "int8-weights"},
    "int4": {"scheme": "int4", "weights": {"algorithm": "rtn"}},
    "float16": {"scheme": "float16"},
    "bfloat16": {"scheme": "bfloat16"},
}
FP8 = {"fp8": {"scheme": "fp8"}}
ON_GPU = [
    ("tensorrt", "int8"),
    ("tensorrt", "fp8"),
    ("tensorrt", "int4"),
    ("tensorrt", "float16"),
    ("cuda", "int4"),
    ("cuda", "float16"),
]
SLOW = [
    *(("magika", form) for form in FORMS),
    ("ppocr_v6", "int8"),
    ("ppocr_v6", "int8, qoperator"),
    ("ppocr_v6", "int8-dynamic"),
    ("ppocr_v6", "int4"),
    ("minilm", "int8"),
    ("minilm", "int8-dynamic"),
    ("minilm", "int4"),
    ("efficientnet_lite0", "int8"),
    ("efficientnet_lite0", "int8-weights"),
]


def counting(
    model: Path, data: Path, form: str, folder: Path, target: str = "cpu"
) -> tuple[Finding, ...]:
    """Errors and warnings in what ``quantize`` writes for a target."""
    few, wanted = {"method": "minmax", "samples": 8}, {**FORMS, **FP8}[form]
    recipe = Recipe.model_validate(
        {
            "version": 1,
            "target": target,
            "channel_scaling": "off",
            "calibration": few,
            **wanted,
        }
    )
    given = str(data) if wanted["scheme"] in ("int8", "fp8") else None
    output = folder / "model.onnx"
    quantize(model, given, output, recipe=recipe, options=RunOptions(timing=None))
    return lint(output, target).counting


@pytest.mark.parametrize("form", FORMS)
def test_fashion_resnet(form: str, tmp_path: Path) -> None:
    assert counting(FASHION, IMAGES, form, tmp_path) == ()


@pytest.mark.parametrize(("target", "form"), ON_GPU)
def test_fashion_resnet_for_a_gpu(target: str, form: str, tmp_path: Path) -> None:
    assert counting(FASHION, IMAGES, form, tmp_path, target) == ()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["int8", "fp8"])
@pytest.mark.parametrize("name", ["magika", "ppocr_v6", "minilm", "efficientnet_lite0"])
def test_built_models_for_tensorrt(name: str, form: str, tmp_path: Path) -> None:
    folder = CACHE / name
    if not (folder / "model.onnx").exists():
        pytest.skip(f"{name} is not built; `python -m models.build {name}` builds it")
    found = counting(folder / "model.onnx", folder / "calibration", form, tmp_path, "tensorrt")
    assert found == ()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "form"), SLOW)
def test_built_models(name: str, form: str, tmp_path: Path) -> None:
    folder = CACHE / name
    if not (folder / "model.onnx").exists():
        pytest.skip(f"{name} is not built; `python -m models.build {name}` builds it")
    assert counting(folder / "model.onnx", folder / "calibration", form, tmp_path) == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["magika", "ppocr_v6", "minilm", "efficientnet_lite0", "smollm2"])
def test_float_models(name: str) -> None:
    path = CACHE / name / "model.onnx"
    if not path.exists():
        pytest.skip(f"{name} is not built; `python -m models.build {name}` builds it")
    assert lint(path).counting == ()
