"""Packages that only some kinds of data need."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from onnxq.errors import DataError

if TYPE_CHECKING:
    from types import ModuleType

_EXTRAS = {
    "PIL": ("images", "Pillow"),
    "tokenizers": ("text", "tokenizers"),
    "pyarrow": ("tables", "pyarrow"),
}


def require(module: str, where: str) -> ModuleType:
    """Import a module of an optional package.

    Args:
        module: Its name, e.g. ``pyarrow.parquet``.
        where: The data that need it.

    Raises:
        DataError: It is not installed; the remedy names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        extra, package = _EXTRAS[module.partition(".")[0]]
        code, text = "data.missing_package", f"reading this needs {package}, which is missing"
        remedy = f"pip install 'onnxq[{extra}]'"
        raise DataError(code, text, where=where, remedy=remedy) from error
