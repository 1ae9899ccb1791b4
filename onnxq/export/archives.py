"""PyTorch's files: told apart by what is in them, and copied for PyTorch; nothing is loaded.

Both are zip archives. An ExportedProgram (``.pt2``) has an entry ``archive_format`` that says
``pt2``; TorchScript has a folder ``code`` and ``constants.pkl``. What ``torch.save`` writes has
``data.pkl`` alone, or is no archive at all: a pickle, whose loading executes what it says.

PyTorch reads archives in its own way: names in any case, a directory of entries where the end of
the file says it is, though another lies there. What was checked is therefore written anew, and
PyTorch is given that.
"""

from __future__ import annotations

import shutil
import zipfile
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Final

from onnxq.errors import UsageError
from onnxq.files import open_regular
from onnxq.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Kind(Enum):
    """What a file is."""

    PROGRAM = "an ExportedProgram"
    SCRIPT = "TorchScript"


_FORMS: Final = (
    "a folder with config.json, a .pt2 of torch.export.save, TorchScript of torch.jit.save, and "
    "pkg.module:factory are exported"
)


_PACKED_LIMIT: Final = 512 << 20
"""Bytes that compressed entries may unfold to. Tensors are stored as they are."""


def entries_of(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The entries by their path in the one folder in which all of them lie.

    Raises:
        ValueError: Entries lie elsewhere, two have names that differ in case alone, or they unfold
            to more than a program is.
    """
    found: dict[str, zipfile.ZipInfo] = {}
    folders = {entry.filename.partition("/")[0] for entry in archive.infolist()}
    for entry in archive.infolist():
        found[entry.filename.partition("/")[2]] = entry
    if (
        len(folders) != 1
        or "" in found
        or len({n.lower() for n in found}) < len(archive.infolist())
    ):
        msg = "its entries are not those of one folder, each once"
        raise ValueError(msg)
    packed = [entry for entry in found.values() if entry.compress_type != zipfile.ZIP_STORED]
    if sum(entry.file_size for entry in packed) > _PACKED_LIMIT:
        msg = f"its compressed entries unfold to more than {_PACKED_LIMIT >> 20} MiB"
        raise ValueError(msg)
    return found


@contextmanager
def copied(path: Path, kind: Kind) -> Iterator[Path]:
    """The same entries in an archive of our own, gone when the block ends.

    Raises:
        ValueError: As :func:`entries_of`.
        OSError: The archive cannot be read, or written.
        zipfile.BadZipFile: It is damaged.
    """
    with Scratch() as folder:
        copy = folder / ("model.pt2" if kind is Kind.PROGRAM else "model.pt")
        with (
            open_regular(path) as stream,
            zipfile.ZipFile(stream) as source,
            zipfile.ZipFile(copy, "w") as target,
        ):
            for name, entry in entries_of(source).items():
                made = zipfile.ZipInfo(f"model/{name}")
                made.file_size = entry.file_size
                with source.open(entry) as read, target.open(made, "w") as written:
                    shutil.copyfileobj(read, written)
        yield copy


def kind_of(path: Path) -> Kind:
    """Return what a file is.

    Raises:
        UsageError: If it cannot be read, is a pickle, or something else.
    """
    where = str(path)
    try:
        with open_regular(path) as stream:
            start = stream.read(16)
            entries, head = _entries(stream) if start.startswith(b"PK") else ((), b"")
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        text = f"the file cannot be read: {reason}"
        remedy = "write or copy it again"
        raise UsageError(code="export.damaged", message=text, where=where, remedy=remedy) from error
    # Everything lies in a folder of the file's name.
    names = {name.partition("/")[2] for name in entries}
    if head == b"pt2":
        return Kind.PROGRAM
    if "constants.pkl" in names and any(name.startswith("code/") for name in names):
        return Kind.SCRIPT
    if "data.pkl" in names or start.startswith(b"\x80"):
        text = "this is a pickle of torch.save, which executes what it says when it is loaded"
        remedy = "save the program: torch.export.save, or export it by a factory"
        raise UsageError(code="export.pickle", message=text, where=where, remedy=remedy)
    text = "this is nothing that is exported"
    raise UsageError(code="export.bad_source", message=text, where=where, remedy=_FORMS)


def _entries(stream: object) -> tuple[list[str], bytes]:
    """The names of an archive's entries, and the beginning of ``archive_format``."""
    with zipfile.ZipFile(stream) as archive:  # type: ignore[call-overload]
        names = archive.namelist()
        found = next((name for name in names if name.partition("/")[2] == "archive_format"), None)
        if found is None:
            return names, b""
        with archive.open(found) as entry:
            return names, entry.read(8)
