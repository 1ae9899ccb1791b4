"""What a model's ``build.py`` declares, and helpers that write its samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Origin:
    """Something that a model or its samples are made from.

    Attributes:
        package: The distribution, as pip names it; or what installs the files, if not pip.
        licence: SPDX identifier, or a few words where there is none.
        what: What is taken from it.
    """

    package: str
    licence: str
    what: str


@dataclass(frozen=True)
class ModelSource:
    """How a model is built.

    Attributes:
        name: Folder below ``models/`` and below the cache.
        origins: The packages that weights and data are read from.
        tools: Packages that the result also depends on, such as ``"torch"``.
        reads: Returns the files and folders that are read; fails if a package is missing.
        write: Writes ``model.onnx``, ``calibration/``, ``evaluation/`` and, if there are labels,
            ``labels.npy`` or ``labels.txt`` into a folder that exists and is empty.
    """

    name: str
    origins: tuple[Origin, ...]
    tools: tuple[str, ...]
    reads: Callable[[], tuple[Path, ...]]
    write: Callable[[Path], None]


def write_samples(folder: Path, samples: Iterable[Mapping[str, NDArray[Any]]]) -> int:
    """Write one ``.npz`` a sample, ``0000.npz`` and on, and return how many.

    Args:
        folder: Created if it does not exist.
        samples: Arrays by input name, with the batch dimension.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for sample in samples:
        np.savez(folder / f"{count:04d}.npz", **sample)  # type: ignore[arg-type]
        count += 1
    return count
