"""The operators of onnxruntime-extensions, where the user asks for what is made of them.

A preprocessing model that the user names and a bundle that the user asks for are such cases. A
model that merely holds these operators is not: their library is native code, and ``--custom-ops``
names it (:mod:`onnxq.runtime.custom_ops`).
"""

from __future__ import annotations

import importlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from onnxq.errors import ModelError, UsageError
from onnxq.runtime.custom_ops import (
    EXTENSIONS,
    EXTENSIONS_DOMAINS,
    custom_ops,
    how_to_load,
    in_use,
)
from onnxq.runtime.session import SessionSettings, open_session

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from onnxq.runtime.session import Session


def open_preprocessing(model: Path) -> Session:
    """Load a preprocessing model; it runs on the CPU.

    The library of operators is loaded if it is installed. Its image decoders must be given only
    bytes that are known to be sound: some of those that are not end the process.

    Raises:
        ModelError: It does not load; without the library the remedy names it.
    """
    library = _library()
    try:
        return open_session(model, SessionSettings(libraries=library, spinning=False))
    except ModelError as error:
        if library or error.code != "runtime.unknown_op":
            raise
        code, text, where = error.code, error.message, error.where
        remedy = "pip install 'onnxq[extensions]' for the operators of onnxruntime-extensions"
        raise ModelError(code, text, where=where, remedy=remedy) from error


@contextmanager
def extensions_for(domains: Collection[str]) -> Iterator[bool]:
    """Let sessions that are opened inside know the operators, if one of these domains is theirs.

    Yields whether one is. Libraries that are in use stay so, and no other is then loaded.

    Raises:
        UsageError: The package is not installed.
    """
    needed = not EXTENSIONS_DOMAINS.isdisjoint(domains)
    with custom_ops([EXTENSIONS] if needed and not in_use() else []):
        yield needed


def require_extensions(domains: Collection[str], where: str) -> None:
    """Refuse where one of these domains is theirs and the user has named no library.

    Raises:
        UsageError: With the option that names it.
    """
    if EXTENSIONS_DOMAINS.isdisjoint(domains) or in_use():
        return
    code, text = "runtime.custom_ops", "its preprocessing is made of onnxruntime-extensions"
    raise UsageError(code, text, where=where, remedy=how_to_load())


def _library() -> tuple[Path, ...]:
    """The library, unless one is in use already: none can be loaded twice."""
    if in_use():
        return ()
    try:
        extensions = importlib.import_module("onnxruntime_extensions")
    except ImportError:
        return ()
    return (Path(extensions.get_library_path()),)
