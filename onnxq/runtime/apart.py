"""Loads a model in a process of its own, because some models end the process that loads them.

Seen on ONNX Runtime 1.32: a float16 Transpose in front of a MatMul with a weight ends it by a
signal. ``python -m onnxq.runtime.apart MODEL PROVIDER [LIBRARY...]`` prints one line of JSON: the
nodes that ONNX Runtime executes, or why it does not load the model.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from onnxq.errors import ModelError, ProviderError
from onnxq.runtime import custom_ops
from onnxq.runtime.kernels import ExecutedNode, executed
from onnxq.runtime.timing import worker_environment

_LIMIT_SECONDS: Final = 600


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of loading a model.

    Attributes:
        nodes: What ONNX Runtime executes, as :func:`onnxq.runtime.kernels.executed` gives it.
        refusal: Why it does not load; empty if it does.
        died: Whether the process ended instead of refusing.
    """

    nodes: tuple[ExecutedNode, ...] = ()
    refusal: str = ""
    died: bool = False


def load_apart(model: Path, provider: str = "cpu") -> Loaded:
    """Load a model on a provider in a process of its own.

    Args:
        model: Its path.
        provider: The execution provider; custom operators of the present context are known there.

    Raises:
        ProviderError: The provider is not there or does not start; nothing is known of the model.
    """
    libraries = [str(library) for library in custom_ops.in_use()]
    command = [sys.executable, "-P", "-m", __name__, str(model.absolute()), provider, *libraries]
    try:
        done = subprocess.run(
            command,
            env=worker_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Loaded(refusal=f"it does not load within {_LIMIT_SECONDS} seconds", died=True)
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        return Loaded(refusal=_cause_of_death(done.returncode, done.stderr), died=True)
    return _read(json.loads(lines[-1]))


def _read(answer: dict[str, Any]) -> Loaded:
    if "code" in answer:
        code, text = answer["code"], answer["message"]
        raise ProviderError(code, text, where=answer["where"], remedy=answer["remedy"])
    nodes = tuple(
        ExecutedNode(**{**node, "inputs": tuple(node["inputs"]), "outputs": tuple(node["outputs"])})
        for node in answer["nodes"]
    )
    return Loaded(nodes=nodes, refusal=answer["refusal"])


def _cause_of_death(status: int, stderr: str) -> str:
    last = (stderr.strip().splitlines() or [""])[-1]
    name = (signal.strsignal(-status) if status < 0 else None) or f"status {status}"
    return f"ONNX Runtime ends the process that loads it ({name})" + (f": {last}" if last else "")


def main(model: Path, provider: str, libraries: list[str]) -> int:
    """Load the model and print the answer; a model that is refused is an answer too."""
    answer: dict[str, object]
    try:
        with custom_ops.custom_ops(libraries):
            nodes = executed(model, provider)
        answer = {"nodes": [asdict(node) for node in nodes], "refusal": ""}
    except ModelError as error:
        answer = {"nodes": [], "refusal": error.message}
    except ProviderError as error:
        answer = {key: getattr(error, key) for key in ("code", "message", "where", "remedy")}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
