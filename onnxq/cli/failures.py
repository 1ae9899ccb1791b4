"""What went wrong, as the exit status, the one or two lines and the JSON object tell it."""

from __future__ import annotations

import errno
from dataclasses import dataclass

import click

from onnxq.cli import json_output
from onnxq.errors import InternalError, OnnxqError, UsageError
from onnxq.wording import printable

INTERRUPTED = 130

_OF_THE_SYSTEM = {
    errno.EACCES: "check the permissions",
    errno.EDQUOT: "free some space, or name a folder on another disk",
    errno.ENOSPC: "free some space, or set TMPDIR to a folder on another disk",
    errno.EPERM: "check the permissions",
    errno.EROFS: "name a folder that can be written to",
}
"""Refusals of the operating system that the user can do something about."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a command did not run to its end.

    Attributes:
        error: The four texts.
        exit_status: The exit status.
    """

    error: OnnxqError
    exit_status: int

    def lines(self) -> tuple[str, ...]:
        """One line, or two where there is a remedy."""
        error = self.error
        head = f"{error.where}: {error.message}" if error.where else error.message
        texts = [f"error: {head}", *([error.remedy] if error.remedy else [])]
        return tuple(printable(text) for text in texts)

    def document(self, command: str) -> dict[str, object]:
        """What ``--json`` prints."""
        status = {1: "missed", INTERRUPTED: "interrupted"}.get(self.exit_status, "error")
        return json_output.failure(command, status, self.error)


def failure_of(error: BaseException) -> Failure:
    """Translate any exception; one that nobody meant to raise is a fault of onnxq."""
    if isinstance(error, OnnxqError):
        return Failure(error, error.exit_status)
    if isinstance(error, click.ClickException):
        translated: OnnxqError = _usage(error)
        return Failure(translated, 2)
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return Failure(OnnxqError("cli.interrupted", "interrupted"), INTERRUPTED)
    translated = _of_the_system(error) or _fault(error)
    return Failure(translated, translated.exit_status)


def _usage(error: click.ClickException) -> UsageError:
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context else "onnxq"
    text = error.format_message().strip().removesuffix(".")
    return UsageError("usage.arguments", text, where=path, remedy=f"see `{path} --help`")


def _of_the_system(error: BaseException) -> OnnxqError | None:
    if isinstance(error, OSError) and error.errno in _OF_THE_SYSTEM:
        code, text = "system.refused", error.strerror or str(error)
        where = str(error.filename or "")
        return UsageError(code, text, where=where, remedy=_OF_THE_SYSTEM[error.errno])
    if isinstance(error, ImportError) and (error.name or "").startswith("onnxruntime"):
        code, text = "system.no_runtime", f"ONNX Runtime cannot be imported: {error}"
        return UsageError(
            code, text, remedy="pip install onnxruntime, or onnxruntime-gpu, not both"
        )
    if isinstance(error, MemoryError):
        code, text = "system.memory", "out of memory"
        remedy = "give smaller samples, calibrate with less --memory-budget, or end other programs"
        return UsageError(code, text, remedy=remedy)
    return None


def _fault(error: BaseException) -> InternalError:
    code = "internal.unexpected"
    text = f"fault of onnxq: {type(error).__name__}: {error}"
    return InternalError(code, text, remedy="run again with --debug, and report what it prints")
