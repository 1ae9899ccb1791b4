"""Copies fashion_resnet with all 10,000 labelled test images; the model itself is committed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import numpy as np

from models.fashion_mnist_files import files, load
from models.source import ModelSource, Origin

HERE: Final = Path(__file__).parent
CALIBRATION: Final = HERE.parent.parent / "calibration_data" / "fashion_mnist" / "calibration.npy"


def write(folder: Path) -> None:
    """Copy the committed files and write the test half."""
    shutil.copy(HERE / "fashion_resnet.onnx", folder / "model.onnx")
    shutil.copy(CALIBRATION, folder / "calibration.npy")
    test = load("test")
    np.save(folder / "evaluation.npy", test.images)
    np.save(folder / "labels.npy", test.labels)


SOURCE: Final = ModelSource(
    name="fashion_resnet",
    origins=(Origin("apt:dataset-fashion-mnist", "MIT", "images and labels"),),
    tools=(),
    reads=lambda: (HERE / "fashion_resnet.onnx", CALIBRATION, *files("test")),
    write=write,
)
