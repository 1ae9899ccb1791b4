"""Private temporary folders that no crash leaves behind for long.

A folder is readable by its owner alone and goes when it is closed. A process that is killed cannot
clean up, so every new folder first removes those beside it whose owner is dead: the owner holds a
lock on its folder, which the kernel drops with the process, whatever ended it. (Without such locks,
on Windows, a killed process leaves its folder.)
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from types import TracebackType

PREFIX: Final = "onnxq-scratch-"
"""Nothing else may be called so: such folders without a living owner are removed."""
_UNLOCKED: Final = "onnxq.new-"


class Scratch:
    """A private folder, from its making to :meth:`close`; use it in a ``with`` statement.

    Attributes:
        path: The folder, mode 0700.
    """

    def __init__(self, parent: str | Path | None = None) -> None:
        """Make it in the system's temporary folder, or hidden in ``parent``.

        Raises:
            OSError: It cannot be made there.
        """
        folder = Path(tempfile.gettempdir() if parent is None else parent)
        hidden = "" if parent is None else "."
        remove_abandoned(folder, f"{hidden}{PREFIX}")
        # It gets its name once it is locked, so that nobody finds it abandoned in between.
        made = Path(tempfile.mkdtemp(prefix=f"{hidden}{_UNLOCKED}", dir=folder))
        self._lock = _lock(made)
        self.path = made.with_name(made.name.replace(_UNLOCKED, PREFIX, 1))
        made.rename(self.path)

    def close(self) -> None:
        """Remove the folder and all that is in it; does nothing the second time."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Path:
        """The folder."""
        return self.path

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove it."""
        self.close()


def remove_abandoned(folder: Path, prefix: str) -> None:
    """Remove the folders of this user whose owner is dead; what cannot be removed stays."""
    with contextlib.suppress(OSError):
        for path in folder.glob(f"{prefix}*"):
            _remove_if_abandoned(path)


def _remove_if_abandoned(path: Path) -> None:
    status = path.lstat()
    if sys.platform == "win32" or not stat.S_ISDIR(status.st_mode):
        return
    if status.st_uid != os.geteuid():
        return
    with contextlib.suppress(OSError):
        handle = _lock(path)
        shutil.rmtree(path, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def _lock(folder: Path) -> int | None:
    """A handle that holds the folder's lock.

    Raises:
        OSError: Another process holds it.
    """
    if sys.platform == "win32":
        return None
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle
