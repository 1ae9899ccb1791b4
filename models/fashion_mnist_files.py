"""Reads Fashion-MNIST from the files of Debian's package ``dataset-fashion-mnist``.

Format: IDX, https://yann.lecun.org/exdb/mnist — big-endian magic (``0x0803`` images, ``0x0801``
labels), one 32-bit size per axis, then the bytes.
"""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from models.packages import MissingPackageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDER: Final = Path("/usr/share/datasets/fashion-mnist")
PREFIX: Final = {"train": "train", "test": "t10k"}
CLASSES: Final = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


@dataclass(frozen=True)
class FashionMnist:
    """One half of the data set.

    Attributes:
        images: float32 ``[n, 1, 28, 28]``, pixel / 255, so between 0 and 1.
        labels: int64 ``[n]``, indices into `CLASSES`.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]


def files(half: Literal["train", "test"], folder: Path = FOLDER) -> tuple[Path, Path]:
    """Return the paths of the images and of the labels of a half."""
    prefix = PREFIX[half]
    return (
        folder / f"{prefix}-images-idx3-ubyte.gz",
        folder / f"{prefix}-labels-idx1-ubyte.gz",
    )


def load(half: Literal["train", "test"], folder: Path = FOLDER) -> FashionMnist:
    """Read one half: 60,000 training or 10,000 test images, in the files' order.

    Raises:
        MissingPackageError: The data set is not installed.
        ValueError: A file is not IDX.
    """
    images_path, labels_path = files(half, folder)
    if not images_path.is_file():
        msg = f"needs {images_path} of Debian's package: apt install dataset-fashion-mnist"
        raise MissingPackageError(msg)
    pixels = _read_idx(images_path, axes=3).astype(np.float32) / np.float32(255.0)
    return FashionMnist(pixels[:, np.newaxis], _read_idx(labels_path, axes=1).astype(np.int64))


def _read_idx(path: Path, *, axes: int) -> NDArray[np.uint8]:
    content = gzip.decompress(path.read_bytes())
    header = 4 + 4 * axes
    magic, *sizes = struct.unpack(f">{1 + axes}I", content[:header])
    if magic != 0x0800 + axes:
        msg = f"{path}: not an IDX file of bytes with {axes} axes (magic {magic:#x})"
        raise ValueError(msg)
    return np.frombuffer(content, np.uint8, offset=header).reshape(sizes)
