"""What an export source turns out to be: what it is said to be, and how its modules are loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnxq.export.archives import Kind, kind_of
from onnxq.export.input_text import parse_input
from onnxq.export.program_check import check_program
from onnxq.export.script import script_spec
from onnxq.export.script_check import check_script
from onnxq.export.source import Source, resolve
from onnxq.export.spec import ExportSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxq.export.options import ExportOptions


@dataclass(frozen=True)
class Opened:
    """A source that was looked at, whose modules are not loaded yet.

    Attributes:
        where: What to call it in errors.
        load: Gives a specification for each ONNX file.
        files: The files' names in the folder that is written; empty where one file is.
        task: What the model of a checkpoint does.
        checkpoint: The checkpoint's folder.
    """

    where: str
    load: Callable[[], tuple[ExportSpec, ...]]
    files: tuple[str, ...] = ()
    task: str = ""
    checkpoint: Path | None = None


def open_source(source: Source | Path, options: ExportOptions) -> Opened:
    """Find out what a source is, by its content; nothing in it is executed but a factory.

    Raises:
        UsageError: If it is nothing that can be exported, damaged, or not to be trusted.
    """
    if isinstance(source, Path) or (isinstance(source, str) and _is_path(source)):
        return _open_path(Path(source), options)
    if isinstance(source, ExportSpec):
        return Opened(type(source.module).__name__, lambda: (resolve(source),))
    where = source if isinstance(source, str) else getattr(source, "__qualname__", repr(source))
    return Opened(where, lambda: (resolve(source),))


def _is_path(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        # Too long for a name, or with a NUL in it.
        return False


def _open_path(path: Path, options: ExportOptions) -> Opened:
    if path.is_dir():
        from onnxq.export.families import open_folder

        return open_folder(path, options)
    if kind_of(path) is Kind.SCRIPT:
        check_script(path)
        forms = tuple(parse_input(text) for text in options.inputs)
        return Opened(str(path), lambda: (script_spec(path, forms),))
    check_program(path)

    def load() -> tuple[ExportSpec, ...]:
        from onnxq.export.program import program_spec

        return (program_spec(path),)

    return Opened(str(path), load)
