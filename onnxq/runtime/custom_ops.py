"""Operators of other domains: libraries that the user names, and nothing else.

A library of custom operators is native code that runs with the user's rights, so it is loaded only
where the user says so, never because a model asks for it or because it lies beside one. What is
named holds for every session that is opened meanwhile, in the processes that time models too.
"""

from __future__ import annotations

import importlib.util
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Final

import onnxruntime as ort

from onnxq.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

EXTENSIONS: Final = "extensions"
"""Stands for the library of the package onnxruntime-extensions."""

EXTENSIONS_DOMAINS: Final = frozenset({"ai.onnx.contrib", "com.microsoft.extensions"})
"""The domains of its operators."""

_INSTALL: Final = "pip install 'onnxq[extensions]'"

_IN_USE: ContextVar[tuple[Path, ...]] = ContextVar("custom_ops", default=())


@contextmanager
def custom_ops(libraries: Iterable[str | Path]) -> Iterator[None]:
    """Let every session that is opened inside know the operators of these libraries.

    Args:
        libraries: Shared libraries made for ONNX Runtime, or ``"extensions"`` for that of the
            installed package onnxruntime-extensions. They run native code: name only what you
            trust.

    Raises:
        UsageError: There is no such file, or ONNX Runtime does not load it.
    """
    paths = tuple(dict.fromkeys(_path(library) for library in libraries))
    for path in paths:
        _register(ort.SessionOptions(), path)
    token = _IN_USE.set((*_IN_USE.get(), *paths))
    try:
        yield
    finally:
        _IN_USE.reset(token)


def how_to_load() -> str:
    """The remedy where operators of onnxruntime-extensions are not known."""
    install = "" if importlib.util.find_spec("onnxruntime_extensions") else f"{_INSTALL}, then "
    return f"{install}give --custom-ops {EXTENSIONS} to load that library; it is native code"


def in_use() -> tuple[Path, ...]:
    """The libraries of the present context."""
    return _IN_USE.get()


def portable() -> dict[str, Path | None]:
    """The libraries in use as a folder that can be moved holds them.

    Returns:
        For each the name of a file in that folder and the file to copy; :data:`EXTENSIONS` and None
        for that of the package, which is found where the folder is used.
    """
    found: dict[str, Path | None] = {}
    for path in in_use():
        if _is_extensions(path):
            found[EXTENSIONS] = None
            continue
        name, count = path.name, 1
        while name in found:
            count += 1
            name = f"{path.stem}-{count}{path.suffix}"
        found[name] = path
    return found


def _is_extensions(path: Path) -> bool:
    try:
        return path == _extensions()
    except UsageError:
        return False


def register(options: ort.SessionOptions) -> None:
    """Make the operators of the libraries in use known to a session about to be opened."""
    for path in in_use():
        _register(options, path)


def _path(library: str | Path) -> Path:
    if str(library) == EXTENSIONS:
        return _extensions()
    # Absolute, for a bare name would be looked for in the system's folders.
    path = Path(library).absolute()
    if not path.is_file():
        code, text = "runtime.custom_ops", "there is no such library of custom operators"
        remedy = f"name the file of a shared library, or {EXTENSIONS!r}"
        raise UsageError(code, text, where=str(library), remedy=remedy)
    return path


def _extensions() -> Path:
    try:
        from onnxruntime_extensions import get_library_path
    except ImportError as error:
        code, text = "runtime.custom_ops", f"onnxruntime-extensions cannot be imported: {error}"
        remedy = _INSTALL
        raise UsageError(code, text, where=EXTENSIONS, remedy=remedy) from error
    return Path(get_library_path())


def _register(options: ort.SessionOptions, path: Path) -> None:
    try:
        options.register_custom_ops_library(str(path))
    except Exception as error:  # its exceptions share no base but this
        reason = " ".join(str(error).split())[:300]
        code, text = "runtime.custom_ops", f"ONNX Runtime does not load this library: {reason}"
        remedy = "it must be a library of custom operators for this version of ONNX Runtime"
        raise UsageError(code, text, where=str(path), remedy=remedy) from error
