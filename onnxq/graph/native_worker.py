"""The helper process of :mod:`onnxq.graph.native`: ``python -m onnxq.graph.native_worker``.

Reads requests from standard input until it ends and writes an answer to each: the lengths of a JSON
object and of a serialized model, then both.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import sys
from pathlib import Path
from typing import IO, Any, Final

if sys.platform != "win32":
    import resource

_LENGTHS: Final = struct.Struct("<QQ")


def send(stream: IO[bytes], head: dict[str, Any], content: bytes = b"") -> None:
    """Write a request or an answer."""
    text = json.dumps(head).encode()
    stream.write(_LENGTHS.pack(len(text), len(content)) + text)
    stream.write(content)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """Read a request or an answer.

    Raises:
        EOFError: The other side is gone.
    """
    lengths = _exactly(stream, _LENGTHS.size)
    text, content = _LENGTHS.unpack(lengths)
    head: dict[str, Any] = json.loads(_exactly(stream, text))
    return head, _exactly(stream, content)


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until there are no more."""
    while True:
        try:
            request, model = receive(requests)
        except EOFError:
            return
        _limit(request["seconds"], request["memory"])
        try:
            content = _perform(request["task"], request["argument"], model)
        except MemoryError:
            send(answers, {"kind": "memory"})
            return
        except Exception as error:  # onnx raises several unrelated types
            reason = " ".join(str(error).split()) or type(error).__name__
            send(answers, {"kind": "refused", "reason": reason})
            continue
        send(answers, {"kind": "done"}, content)


def _perform(task: str, argument: str, model: bytes) -> bytes:
    import onnx

    if task == "check":
        onnx.checker.check_model(argument, full_check=True)
        return b""
    if task == "convert":
        proto = onnx.ModelProto.FromString(model)
        return onnx.version_converter.convert_version(proto, int(argument)).SerializeToString()
    strict = task == "infer"
    found = onnx.shape_inference.infer_shapes(model, strict_mode=strict, data_prop=strict)
    return found.SerializeToString()


def _limit(seconds: float, memory: int) -> None:
    """Set what this process may still take, from now on."""
    if sys.platform == "win32":
        return
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    _set(resource.RLIMIT_CPU, round(used + seconds) + 1)
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _set(resource.RLIMIT_AS, pages * os.sysconf("SC_PAGE_SIZE") + memory)


def _set(kind: int, value: int) -> None:
    """Move the soft limit, as far as the hard one lets it."""
    if sys.platform != "win32":
        hard = resource.getrlimit(kind)[1]
        soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (soft, hard))


def _exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data


if __name__ == "__main__":
    import onnx  # noqa: F401  # before the limits, so that they count the model alone

    # The process that asks decides when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        _set(resource.RLIMIT_CORE, 0)
    serve(sys.stdin.buffer, sys.stdout.buffer)
