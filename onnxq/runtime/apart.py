"""Loads a model in a process of its own, because some models end the process that loads them.

Seen on ONNX Runtime 1.32: a float16 Transpose in front of a MatMul with a weight ends it by a
signal. ``python -m onnxq.runtime.apart SPEC.json`` answers with the nodes that ONNX Runtime
executes, or with the reason why it does not load the model.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from onnxq.errors import ModelError
from onnxq.runtime import providers
from onnxq.runtime.kernels import ExecutedNode, executed
from onnxq.runtime.session import SessionSettings, open_session
from onnxq.runtime.worker import ask, raise_error, serve
from onnxq.scratch import Scratch

_LIMIT_SECONDS: Final = 600


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of loading a model.

    Attributes:
        nodes: What ONNX Runtime executes, as :func:`onnxq.runtime.kernels.executed` gives it, on
            the CPU; of other providers it is not asked.
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
        provider: The execution provider; custom operators and options of the present context are
            in use there.

    Raises:
        ProviderError: The provider is not there or does not start; nothing is known of the model.
    """
    spec = {"model": str(model.resolve()), "provider": provider}
    with Scratch() as folder:
        try:
            found = ask(__name__, spec, folder, _LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            return Loaded(refusal=f"it does not load within {_LIMIT_SECONDS} seconds", died=True)
    answer = found.answer
    if answer is None:
        return Loaded(refusal=_cause_of_death(found.status, found.log), died=True)
    try:
        raise_error(answer, str(model))
    except ModelError as error:
        return Loaded(refusal=error.message)
    return Loaded(tuple(_node(entry) for entry in answer["nodes"]))


def load(spec: dict[str, Any]) -> dict[str, Any]:
    """The worker's work.

    Args:
        spec: ``model`` (path) and ``provider``.

    Raises:
        OnnxqError: The model does not load, or the provider is not there.
    """
    model, provider = Path(spec["model"]), spec["provider"]
    if providers.require(provider) == providers.CPU:
        return {"nodes": [asdict(node) for node in executed(model, provider)]}
    # What other providers compile cannot be written, so what is executed cannot be read.
    open_session(model, SessionSettings(provider=provider, spinning=False))
    return {"nodes": []}


def _node(entry: dict[str, Any]) -> ExecutedNode:
    return ExecutedNode(
        **{**entry, "inputs": tuple(entry["inputs"]), "outputs": tuple(entry["outputs"])}
    )


def _cause_of_death(status: int, stderr: str) -> str:
    last = (stderr.strip().splitlines() or [""])[-1]
    name = (signal.strsignal(-status) if status < 0 else None) or f"status {status}"
    return f"ONNX Runtime ends the process that loads it ({name})" + (f": {last}" if last else "")


if __name__ == "__main__":
    sys.exit(serve(load, Path(sys.argv[1])))
