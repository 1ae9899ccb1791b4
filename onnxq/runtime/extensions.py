"""Sessions of preprocessing models, with the operators of onnxruntime-extensions."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from onnxq.errors import ModelError
from onnxq.runtime.session import SessionSettings, open_session

if TYPE_CHECKING:
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
        if library or "is not a registered function/op" not in error.message:
            raise
        code, text, where = error.code, error.message, error.where
        remedy = "pip install 'onnxq[extensions]' for the operators of onnxruntime-extensions"
        raise ModelError(code, text, where=where, remedy=remedy) from error


def _library() -> tuple[Path, ...]:
    try:
        extensions = importlib.import_module("onnxruntime_extensions")
    except ImportError:
        return ()
    return (Path(extensions.get_library_path()),)
