"""Small results that are kept in the user's cache folder, as JSON.

A file that is damaged counts as absent; a folder that cannot be written to is no failure.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import platformdirs
from pydantic import ValidationError

from onnxq.runtime.machine import inspect_machine
from onnxq.runtime.providers import resolve, runtime_version
from onnxq.runtime.sensors import device_name

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_Kept = TypeVar("_Kept")


def folder(name: str) -> Path:
    """Where results of one kind are kept."""
    return platformdirs.user_cache_path("onnxq") / name


def key(provider: str, *parts: object) -> str:
    """A file name for what decides a result: runtime, provider, processor, GPU, and ``parts``.

    Args:
        provider: The name of an execution provider, which may end in the index of a device.
        parts: What else has a say, in JSON's types.
    """
    machine = inspect_machine()
    gpu = device_name(provider)
    device = [gpu] if gpu else []
    text = json.dumps([machine.cpu, machine.architecture, sorted(machine.isa), *device, *parts])
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"{runtime_version()}-{resolve(provider)}-{digest}.json"


def read(path: Path, form: TypeAdapter[_Kept]) -> _Kept | None:
    """What a file holds; None if it is not there or damaged."""
    try:
        return form.validate_json(path.read_bytes(), strict=False)
    except (OSError, ValidationError):
        return None


def write(path: Path, value: _Kept, form: TypeAdapter[_Kept]) -> None:
    """Keep a value, whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    except OSError:
        return
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(form.dump_json(value, indent=1))
        Path(temporary).replace(path)
    except OSError:
        return
    finally:
        Path(temporary).unlink(missing_ok=True)
