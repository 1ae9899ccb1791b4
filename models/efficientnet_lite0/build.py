"""Builds efficientnet_lite0: the exported classifier, and crops of photographs.

Calibration and evaluation share no photograph: calibration crops come from scikit-image and
scikit-learn, evaluation crops from foolbox's 20 labelled ImageNet photographs.
``calibration_512/`` goes on where ``calibration/`` ends; it is for measuring memory.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import numpy as np

from models.efficientnet_lite0.model import CODE_PACKAGE, SIZE, WEIGHTS_PACKAGE, factory, weights
from models.images import (
    FOOLBOX,
    SKIMAGE,
    SKLEARN,
    center_crop,
    label,
    labelled_photographs,
    photographs,
    random_crops,
)
from models.packages import package_file
from models.source import ModelSource, Origin, write_samples
from onnxq.export import export

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

CALIBRATION_SAMPLES: Final = 128
MEMORY_SAMPLES: Final = 512
CROPS_PER_LABELLED: Final = 16


def feeds(pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Turn pixels ``[224, 224, 3]`` into the model's input ``[1, 3, 224, 224]``."""
    image = (pixels.transpose(2, 0, 1)[np.newaxis].astype(np.float32) - 127) / 128
    return {"image": np.ascontiguousarray(image)}


def write(folder: Path) -> None:
    """Export the model and write the crops.

    Evaluation: the middle of each of the 20 photographs, then 15 random parts of each.
    """
    export(factory, folder / "model.onnx")
    crops = random_crops(photographs(), MEMORY_SAMPLES, SIZE, seed=1, smallest=0.3)
    write_samples(folder / "calibration_512", map(feeds, crops))
    (folder / "calibration").mkdir()
    for path in sorted((folder / "calibration_512").iterdir())[:CALIBRATION_SAMPLES]:
        os.link(path, folder / "calibration" / path.name)

    labelled = labelled_photographs()
    further = (CROPS_PER_LABELLED - 1) * len(labelled)
    evaluation = [center_crop(path, SIZE) for path in labelled]
    evaluation += random_crops(labelled, further, SIZE, seed=2, smallest=0.7)
    write_samples(folder / "evaluation", map(feeds, evaluation))
    labels = np.array([label(path) for path in labelled], np.int64)
    np.save(folder / "labels.npy", np.tile(labels, CROPS_PER_LABELLED))


SOURCE: Final = ModelSource(
    name="efficientnet_lite0",
    origins=(
        Origin(WEIGHTS_PACKAGE, "Apache-2.0", "weights"),
        Origin(CODE_PACKAGE, "Apache-2.0", "the network's code"),
        Origin(
            SKIMAGE, "BSD-3-Clause; photographs: skimage/data/README.txt", "calibration photographs"
        ),
        Origin(SKLEARN, "BSD-3-Clause; photographs CC BY 2.0", "calibration photographs"),
        Origin(FOOLBOX, "MIT; photographs from ImageNet, for research", "evaluation photographs"),
    ),
    tools=("torch", "pillow"),
    reads=lambda: (
        weights(),
        package_file(CODE_PACKAGE, "efficientnet_lite_pytorch"),
        *photographs(),
        *labelled_photographs(),
    ),
    write=write,
)
