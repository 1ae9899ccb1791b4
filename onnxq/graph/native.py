"""ONNX's own compiled functions, in a process where they can do no harm.

Shape inference, the checker and the version converter are C++ that trusts its input. Seen on onnx
1.23: shape inference ends the process on a LabelEncoder behind a value without a type, and takes
all memory for an input declared ``int64[2147483647]`` that a Slice reads. So they run in a helper
process with limits on memory and processor time; if it dies, a model is refused or a note is made,
and the next call starts another. The helper lives as long as this process: it starts in 0.3 s, and
a call then costs what the function takes.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import onnx

from onnxq import errors
from onnxq.graph import limits, native_worker

if TYPE_CHECKING:
    from collections.abc import Mapping

_WALL_FACTOR: Final = 20
"""Real time that a call may take for each second of processor time, on a busy machine too."""

_KEPT_ENVIRONMENT: Final = ("PATH", "HOME", "LANG", "SYSTEMROOT", "LD_LIBRARY_PATH")

Task = Literal["infer", "infer_leniently", "convert"]


class NativeError(Exception):
    """The function refused the model; the text is its reason, on one line."""


class NativeDiedError(NativeError):
    """The function crashed, or took more memory or time than it may."""


def call(task: Task, model: onnx.ModelProto, version: int = 0) -> onnx.ModelProto:
    """Run one of ONNX's functions on a model.

    Args:
        task: ``infer`` is shape inference, strict and with data propagation, ``infer_leniently``
            without either; ``convert`` changes the opset.
        model: The model; large weights have been left out of it.
        version: The opset to convert to.

    Raises:
        NativeError: The function refused the model, or died of it.
    """
    data = model.SerializeToString()
    return onnx.ModelProto.FromString(_HELPER.ask(task, data, len(data), str(version)))


def check_file(path: Path) -> None:
    """Run ONNX's full check on a model file, its data files beside it.

    Raises:
        NativeError: The file breaks the specification, or the check died of it.
    """
    _HELPER.ask("check", b"", path.stat().st_size, str(path))


class _Helper:
    """The helper process, and the conversation with it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._lock = threading.Lock()

    def ask(self, task: str, data: bytes, size: int, argument: str) -> bytes:
        """Send a request and wait for its answer.

        Args:
            task: What to do.
            data: The serialized model, if the task takes one.
            size: Bytes of the model, by which memory and time are measured.
            argument: What else the task takes.
        """
        seconds = limits.NATIVE_SECONDS + size / (1 << 20)
        request = {
            "task": task,
            "argument": argument,
            "seconds": seconds,
            "memory": limits.NATIVE_BYTES + limits.NATIVE_COPIES * size,
        }
        with self._lock:
            process = self._running()
            overdue = threading.Timer(_WALL_FACTOR * seconds, process.kill)
            overdue.daemon = True
            overdue.start()
            try:
                return self._converse(process, request, data)
            except BaseException as error:
                # A refusal leaves the conversation whole, anything else does not.
                if type(error) is not NativeError:
                    self.stop()
                raise
            finally:
                overdue.cancel()

    def stop(self) -> None:
        """End the process; the next request starts another."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _running(self) -> subprocess.Popen[bytes]:
        # A forked child must not talk into its parent's conversation.
        if self._process is None or self._owner != os.getpid():
            self._process, self._owner = _start(), os.getpid()
        return self._process

    def _converse(
        self, process: subprocess.Popen[bytes], request: dict[str, object], data: bytes
    ) -> bytes:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            native_worker.send(process.stdin, request, data)
            answer, content = native_worker.receive(process.stdout)
        except (EOFError, BrokenPipeError) as error:
            raise NativeDiedError(_cause_of_death(process.wait(), request)) from error
        if answer["kind"] == "memory":
            raise NativeDiedError(_out_of_memory(request))
        if answer["kind"] == "refused":
            raise NativeError(answer["reason"])
        return content


def _start() -> subprocess.Popen[bytes]:
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", native_worker.__name__],
        env={**kept, "PYTHONPATH": str(Path(errors.__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def _cause_of_death(status: int, request: Mapping[str, object]) -> str:
    if sys.platform != "win32" and status == -signal.SIGXCPU:
        return f"ONNX's own code takes more than {request['seconds']:.0f} s for this model"
    if sys.platform != "win32" and status == -signal.SIGABRT:
        return _out_of_memory(request)
    name = (signal.strsignal(-status) if status < 0 else None) or f"status {status}"
    return f"ONNX's own code crashes on this model ({name})"


def _out_of_memory(request: Mapping[str, object]) -> str:
    return f"ONNX's own code takes more than {request['memory']:,} bytes for this model"


_HELPER: Final = _Helper()
atexit.register(_HELPER.stop)
