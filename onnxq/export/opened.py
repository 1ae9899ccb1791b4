"""What an export source turns out to be: what it is said to be, and how its modules are loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnxq.export.archives import Kind, kind_of
from onnxq.export.input_text import parse_input
from onnxq.export.options import check_options
from onnxq.export.program_check import check_program
from onnxq.export.script import script_spec
from onnxq.export.script_check import check_script
from onnxq.export.source import Source, resolve
from onnxq.export.spec import ExportSpec
from onnxq.graph.io import check_output
from onnxq.graph.new_folder import check_folder_free

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
        reads: The files that it is loaded from, where they are known.
    """

    where: str
    load: Callable[[], tuple[ExportSpec, ...]]
    files: tuple[str, ...] = ()
    task: str = ""
    checkpoint: Path | None = None
    reads: tuple[Path, ...] = ()

    def check_output(self, target: Path) -> None:
        """Refuse before any work what could not be written, or would replace what is read.

        Raises:
            UsageError: As :func:`onnxq.graph.io.check_output`; of several files, if something
                else than an empty folder is there.
        """
        if self.files:
            check_folder_free(target)
        else:
            check_output(target, files=self.reads)


def open_source(source: Source | Path, options: ExportOptions) -> Opened:
    """Find out what a source is, by its content; nothing in it is executed but a factory.

    Raises:
        UsageError: If it is nothing that can be exported, damaged, or not to be trusted; or an
            option does not concern it.
    """
    if isinstance(source, Path) or (isinstance(source, str) and _is_path(source)):
        return _open_path(Path(source), options)
    if isinstance(source, ExportSpec):
        where = type(source.module).__name__
    elif isinstance(source, str):
        where = source
    else:
        where = getattr(source, "__qualname__", repr(source))
    check_options(options, (), "a factory, which gives the module and its inputs", where)
    # That of another folder is not found, and need not be: nobody would name it by accident.
    module = where.partition(":")[0].replace(".", "/")
    reads = (Path(f"{module}.py"),) if isinstance(source, str) else ()
    return Opened(where, lambda: (resolve(source),), reads=reads)


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
        check_options(options, ("inputs",), "a TorchScript file", str(path))
        forms = tuple(parse_input(text) for text in options.inputs)
        return Opened(str(path), lambda: (script_spec(path, forms),), reads=(path,))
    check_program(path)
    check_options(options, (), "an ExportedProgram, which holds its inputs", str(path))

    def load() -> tuple[ExportSpec, ...]:
        from onnxq.export.program import program_spec

        return (program_spec(path),)

    return Opened(str(path), load, reads=(path,))
