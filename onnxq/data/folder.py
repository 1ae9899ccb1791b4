"""What a folder of data holds: ``.npz`` samples, or images."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING

from onnxq.data.decode import SUFFIXES
from onnxq.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

BESIDE_DATA = ("README*", "LICENSE*", "NOTICE*", "*.json", "labels.npy", "labels.txt", "labels.csv")
"""Files that may lie beside the samples; hidden files too."""


def list_samples(folder: Path) -> tuple[Path, ...]:
    """The samples of a folder: all ``.npz``, or all images, one folder deeper too.

    Args:
        folder: The folder. Symbolic links are followed to files, not to folders.

    Returns:
        The files, sorted by path.

    Raises:
        DataError: There is no sample, or something that is neither a sample nor usual beside one.
    """
    entries = _entries(folder)
    if any(entry.suffix.lower() == ".npz" for entry in entries):
        return _samples(folder, entries, {".npz"})
    inner = [entry for entry in entries if entry.is_dir() and not entry.is_symlink()]
    below = [entry for sub in inner for entry in _entries(sub)]
    files = [entry for entry in entries if entry not in inner]
    return _samples(folder, [*files, *below], SUFFIXES)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        code, text = "data.unreadable", f"the folder cannot be read ({error.strerror})"
        remedy = "Check its permissions."
        raise DataError(code, text, where=str(folder), remedy=remedy) from error


def _samples(
    folder: Path, entries: Collection[Path], suffixes: Collection[str]
) -> tuple[Path, ...]:
    # A named pipe, a socket, a device and a loop of links are no files.
    files = [entry for entry in entries if entry.suffix.lower() in suffixes and entry.is_file()]
    found = frozenset(files)
    kind = ".npz files" if ".npz" in suffixes else "images"
    strays = [
        entry.relative_to(folder).as_posix()
        for entry in entries
        if entry not in found
        and not any(fnmatch.fnmatchcase(entry.name, pattern) for pattern in BESIDE_DATA)
    ]
    if strays and (files or suffixes == {".npz"}):
        rest = f" and {len(strays) - 3} more" if len(strays) > 3 else ""
        code = "data.unexpected_file"
        text = f"unexpected beside the {kind}: {', '.join(strays[:3])}{rest}"
        remedy = "Move it out of the folder: every file in it should be a sample of one kind."
        raise DataError(code, text, where=str(folder), remedy=remedy)
    if not files:
        held = f", but {', '.join(strays[:3])}" if strays else ""
        code, text = "data.empty", f"the folder holds no .npz file and no image{held}"
        remedy = (
            "Put images there, or write numpy.savez(path, **{input name: array}) for each sample."
        )
        raise DataError(code, text, where=str(folder), remedy=remedy)
    return tuple(sorted(files))
