"""Tells PyTorch's files apart by what is in them; nothing in them is loaded.

Both are zip archives. An ExportedProgram (``.pt2``) has an entry ``archive_format`` that says
``pt2``; TorchScript has a folder ``code`` and ``constants.pkl``. What ``torch.save`` writes has
``data.pkl`` alone, or is no archive at all: a pickle, whose loading executes what it says.
"""

from __future__ import annotations

import zipfile
from enum import Enum
from typing import TYPE_CHECKING, Final

from onnxq.errors import UsageError
from onnxq.files import open_regular

if TYPE_CHECKING:
    from pathlib import Path


class Kind(Enum):
    """What a file is."""

    PROGRAM = "an ExportedProgram"
    SCRIPT = "TorchScript"


_FORMS: Final = (
    "a folder with config.json, a .pt2 of torch.export.save, TorchScript of torch.jit.save, and "
    "pkg.module:factory are exported"
)


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
