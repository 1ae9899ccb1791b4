"""Real photographs from packages, and the crops that samples are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from models.packages import package_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

FOOLBOX: Final = "foolbox"
SKIMAGE: Final = "scikit-image"
SKLEARN: Final = "scikit-learn"
_SKIMAGE_PHOTOS: Final = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
_SKLEARN_PHOTOS: Final = ("china.jpg", "flower.jpg")


def photographs() -> tuple[Path, ...]:
    """Return unlabelled photographs: people, animals, things, textures, views."""
    return (
        *(package_file(SKIMAGE, f"skimage/data/{name}") for name in _SKIMAGE_PHOTOS),
        *(package_file(SKLEARN, f"sklearn/datasets/images/{name}") for name in _SKLEARN_PHOTOS),
    )


def labelled_photographs() -> tuple[Path, ...]:
    """Return 20 ImageNet photographs, called ``imagenet_NUMBER_LABEL.jpg``."""
    return tuple(sorted(package_file(FOOLBOX, "foolbox/data").glob("imagenet_*_*.jpg")))


def label(path: Path) -> int:
    """Return the ImageNet class (0 to 999) in the name of a labelled photograph."""
    return int(path.stem.split("_")[2])


def center_crop(path: Path, size: int) -> NDArray[np.uint8]:
    """Return the middle ``[size, size, 3]`` after the short side became ``size / 0.875``."""
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    side = size / 0.875 / min(rgb.size)
    rgb = rgb.resize((round(rgb.width * side), round(rgb.height * side)), Image.Resampling.BICUBIC)
    left, top = (rgb.width - size) // 2, (rgb.height - size) // 2
    return np.asarray(rgb.crop((left, top, left + size, top + size)))


def random_crop(
    path: Path, size: int, generator: np.random.Generator, smallest: float
) -> NDArray[np.uint8]:
    """Return a square part, ``[size, size, 3]``, mirrored half of the time.

    Args:
        path: The photograph.
        size: Pixels of a side of the result.
        generator: Picks the part.
        smallest: Share of the short side that the part measures at least.
    """
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    side = round(min(rgb.size) * generator.uniform(smallest, 1.0))
    left = int(generator.integers(0, rgb.width - side + 1))
    top = int(generator.integers(0, rgb.height - side + 1))
    part = rgb.resize(
        (size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
    )
    pixels = np.asarray(part)
    return pixels[:, ::-1] if generator.random() < 0.5 else pixels


def random_crops(
    paths: Sequence[Path], count: int, size: int, *, seed: int, smallest: float
) -> Iterator[NDArray[np.uint8]]:
    """Yield crops of the photographs in turn; the first n do not depend on `count`."""
    generator = np.random.default_rng(seed)
    for number in range(count):
        yield random_crop(paths[number % len(paths)], size, generator, smallest)
