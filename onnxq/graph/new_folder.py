"""A folder that appears whole or not at all."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from onnxq.errors import UsageError
from onnxq.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Iterator


def check_folder_free(path: str | Path) -> None:
    """Refuse before any work a folder that could not be written at the end.

    Raises:
        UsageError: Something else than an empty folder is there, or the folder above it is not.
    """
    target = Path(path).absolute()
    if not target.parent.is_dir():
        code, text = "usage.no_folder", "the folder to write to does not exist"
        raise UsageError(code, text, where=str(target.parent), remedy="create it first")
    if target.is_symlink() or (target.exists() and not _is_empty_folder(target)):
        code, text = "usage.exists", f"there is {_what(target)} already; a folder is written"
        remedy = "name a new folder or an empty one, or remove what is there"
        raise UsageError(code, text, where=str(path), remedy=remedy)


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A private folder beside ``path`` that takes its place when the block ends without an error.

    Raises:
        UsageError: It cannot be made or moved there.
    """
    target = Path(path).absolute()
    check_folder_free(target)
    try:
        with Scratch(target.parent) as scratch:
            made = scratch / target.name
            made.mkdir()
            yield made
            if target.exists():
                target.rmdir()
            made.rename(target)
    except OSError as error:
        code, text = "graph.cannot_write", f"cannot be written: {error.strerror or error}"
        raise UsageError(code, text, where=str(path), remedy="write to another folder") from error


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _what(path: Path) -> str:
    if path.is_symlink():
        return "a link"
    return "a folder with something in it" if path.is_dir() else "a file"
