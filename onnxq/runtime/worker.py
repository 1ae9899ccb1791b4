"""Processes that look at one model alone: what they inherit, and how they answer.

A worker is given a JSON object in a file and answers with one JSON line on standard output, with
the key ``error`` if the model does not load or run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from onnxq import errors
from onnxq.errors import OnnxqError
from onnxq.runtime import custom_ops, engine_cache, provider_options
from onnxq.runtime.providers import hush

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_KEPT_ENVIRONMENT: Final = (
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "TEMP",
    "TMP",
    "SYSTEMROOT",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "CUDA_HOME",
    "CUDA_PATH",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
)
"""Variables a worker inherits; those that set thread counts or affinities are not among them."""


def environment() -> dict[str, str]:
    """What a worker inherits, and where it finds this package and ONNX Runtime."""
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    own = str(Path(errors.__file__).parents[1])
    # Packages may have been put in front of the installed ones for this process.
    given = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    return {**kept, "PYTHONPATH": os.pathsep.join([own, *given])}


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of a worker.

    Attributes:
        answer: What it answered, an error perhaps; None if it ended without a word.
        status: Its exit status; negative if a signal ended it.
        log: What it wrote to standard error.
    """

    answer: dict[str, Any] | None
    status: int
    log: str


def ask(module: str, spec: Mapping[str, Any], folder: Path, limit_seconds: float) -> Asked:
    """Let a worker do its work, in the present context.

    Args:
        module: The worker's module, which calls :func:`serve`.
        spec: What it is asked, in JSON's own types.
        folder: A private folder, for the specification and to run in.
        limit_seconds: The longest that it may take.

    Raises:
        subprocess.TimeoutExpired: It took longer.
    """
    path = folder / "spec.json"
    path.write_text(json.dumps({**spec, **worker_context()}), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-P", "-m", module, str(path)],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=limit_seconds,
        check=False,
    )
    lines = done.stdout.splitlines()
    ended = not lines or done.returncode not in (0, 1)
    return Asked(None if ended else json.loads(lines[-1]), done.returncode, done.stderr)


def worker_context() -> dict[str, Any]:
    """What the present context says of sessions, for a worker's specification."""
    options = {name: dict(values) for name, values in provider_options.in_use().items()}
    libraries = [str(library) for library in custom_ops.in_use()]
    kept = engine_cache.in_use()
    engines = {} if kept is None else {"folder": str(kept.folder), "models": dict(kept.models)}
    return {"custom_ops": libraries, "provider_options": options, "engine_cache": engines}


def serve(work: Callable[[dict[str, Any]], dict[str, Any]], spec_path: Path) -> int:
    """Do a worker's work in the context of its specification and print the answer.

    Returns:
        The exit status: 0, or 1 if the answer is an error.
    """
    spec = json.loads(spec_path.read_text(encoding="utf-8"))
    hush()
    try:
        with (
            custom_ops.custom_ops(spec["custom_ops"]),
            provider_options.provider_options(spec["provider_options"]),
            engine_cache.restored(spec["engine_cache"]),
        ):
            answer = work(spec)
    except OnnxqError as error:
        texts = ("code", "message", "where", "remedy")
        answer = {"error": {text: getattr(error, text) for text in texts}}
        answer["error"]["kind"] = type(error).__name__
    sys.stdout.write(json.dumps(answer) + "\n")
    return int("error" in answer)


def raise_error(answer: Mapping[str, Any], where: str) -> None:
    """Raise what a worker answered, if that is an error.

    Raises:
        OnnxqError: Of the worker's own class.
    """
    if "error" not in answer:
        return
    texts = answer["error"]
    kind: type[OnnxqError] = getattr(errors, texts["kind"])
    raise kind(
        texts["code"], texts["message"], where=texts["where"] or where, remedy=texts["remedy"]
    )
