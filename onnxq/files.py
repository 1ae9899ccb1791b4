"""Opening files that somebody else named: regular files only, and nothing that waits.

A named pipe would block for ever, a device may never end; both are refused before they are opened.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from io import BufferedReader
    from pathlib import Path

_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISDIR, "a folder"),
)
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading.

    Raises:
        OSError: It is not there, cannot be opened, or is no regular file; ``strerror`` says which.
    """
    _check(path, path.stat().st_mode)
    descriptor = os.open(path, _FLAGS)
    try:
        # Once more: another file may have taken its place.
        _check(path, os.fstat(descriptor).st_mode)
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path, limit: int) -> bytes:
    """The bytes of a regular file.

    Raises:
        OSError: As :func:`open_regular`, or there are more than ``limit`` bytes.
    """
    with open_regular(path) as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit >> 20} MiB", str(path))
    return content


def is_utf8(path: Path) -> bool:
    """Whether the path can be given to a library that takes paths as UTF-8, as onnxruntime does."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def lines_of(content: str) -> tuple[str, ...]:
    r"""The lines of a text, which end at ``\n`` or ``\r\n`` and nowhere else.

    ``str.splitlines`` would also cut at a form feed, U+0085, U+2028 and others, which may be part
    of a label or of a token.
    """
    lines = content.split("\n")
    # What ends a line begins none.
    if not lines[-1]:
        lines.pop()
    return tuple(line.removesuffix("\r") for line in lines)


def _check(path: Path, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kind = next((text for holds, text in _KINDS if holds(mode)), "something else")
    raise OSError(errno.EINVAL, f"it is {kind}, not a file", str(path))
