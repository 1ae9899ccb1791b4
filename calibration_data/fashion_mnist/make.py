"""Writes the Fashion-MNIST samples from the files of Debian's ``dataset-fashion-mnist``.

Run from the repository root::

    python -m calibration_data.fashion_mnist.make              # the committed files
    python -m calibration_data.fashion_mnist.make --full DIR   # all 10,000 test images

Each ``.npy`` of images is float32 ``[n, 1, 28, 28]``, pixel / 255; a row is a sample.
Calibration images come from the training half, test images from the test half.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import numpy as np

from models.fashion_mnist_files import load

HERE: Final = Path(__file__).parent
SEED: Final = 0
CALIBRATION_SAMPLES: Final = 256
TEST_SAMPLES: Final = 1000


def write_samples(folder: Path) -> None:
    """Write 256 calibration images, and 1,000 test images with their labels, picked by seed."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(SEED)
    training, test = load("train"), load("test")
    picked = np.sort(generator.choice(len(training.images), CALIBRATION_SAMPLES, replace=False))
    np.save(folder / "calibration.npy", training.images[picked])
    picked = np.sort(generator.choice(len(test.images), TEST_SAMPLES, replace=False))
    np.save(folder / "test.npy", test.images[picked])
    np.save(folder / "test_labels.npy", test.labels[picked])


def write_full_test(folder: Path) -> None:
    """Write all 10,000 test images and their labels."""
    folder.mkdir(parents=True, exist_ok=True)
    test = load("test")
    np.save(folder / "test.npy", test.images)
    np.save(folder / "test_labels.npy", test.labels)


def main() -> None:
    """Read the command line and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full", type=Path, metavar="DIR", help="write all 10,000 test images")
    full: Path | None = parser.parse_args().full
    if full is None:
        write_samples(HERE)
    else:
        write_full_test(full)


if __name__ == "__main__":
    main()
