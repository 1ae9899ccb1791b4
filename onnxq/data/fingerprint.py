"""Digests of data: each part by itself, so that no two lists of parts run together."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from onnxq.errors import DataError
from onnxq.files import open_regular

if TYPE_CHECKING:
    from pathlib import Path


def feed_file(hasher: hashlib._Hash, path: Path, name: str | None = None) -> None:
    """Hash the name and the bytes of a file.

    Raises:
        DataError: It cannot be read.
    """
    try:
        with open_regular(path) as stream:
            contents = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        code, text = "data.unreadable", f"the file cannot be read ({error.strerror})"
        remedy = "Check that it is there and may be read."
        raise DataError(code, text, where=str(path), remedy=remedy) from error
    hasher.update(f"{path.name if name is None else name}\0{contents}\0".encode())


def feed_part(hasher: hashlib._Hash, part: bytes) -> None:
    """Hash some bytes with their length."""
    hasher.update(f"{len(part)}\0".encode())
    hasher.update(part)
