"""The kernel probe: what this build of ONNX Runtime really runs in integers on this machine.

Each form of :mod:`onnxq.runtime.probe_forms` is loaded and its optimized graph read back. A form
counts as integer if no node of it still reads what a DequantizeLinear wrote: the operator took the
integers as they are. The results are kept on disk by runtime version, provider and instruction
sets; a damaged file is written anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import onnxruntime as ort
import platformdirs
from pydantic import TypeAdapter, ValidationError

from onnxq.errors import ModelError
from onnxq.runtime import providers
from onnxq.runtime.kernels import executed
from onnxq.runtime.machine import inspect_machine
from onnxq.runtime.probe_forms import forms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from onnxq.runtime.kernels import ExecutedNode
    from onnxq.runtime.probe_forms import Form

FORMAT_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What became of one form.

    Attributes:
        form: Its name.
        op: The operator under test.
        activation: The integers of its activations, ``uint8`` or ``int8``.
        integer: Whether the operator takes integers.
        executed_ops: The operators that are executed, in order.
        refused: Why the form does not load; empty if it does.
    """

    form: str
    op: str
    activation: str
    integer: bool
    executed_ops: tuple[str, ...]
    refused: str = ""


_RESULTS: Final = TypeAdapter(tuple[ProbeResult, ...])


def run_probe(
    provider: str = "cpu",
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[ProbeResult, ...]:
    """Probe a provider, or read what was found earlier.

    Args:
        provider: A name of an execution provider.
        cache: The folder of earlier results; the user's cache folder if ``None``.
        progress: Called after each form with how many are done and how many there are.

    Raises:
        ProviderError: The provider is not there.
    """
    full = providers.require(provider)
    path = (cache or platformdirs.user_cache_path("onnxq") / "probe") / f"{_key(full)}.json"
    found = _read(path)
    if found is None:
        found = probe(provider, progress)
        _write(path, found)
    return found


def probe(
    provider: str = "cpu", progress: Callable[[int, int], None] | None = None
) -> tuple[ProbeResult, ...]:
    """Probe a provider now.

    Raises:
        ProviderError: The provider is not there.
    """
    every = tuple(forms())
    found = []
    for done, form in enumerate(every, start=1):
        found.append(_probe_form(form, provider))
        if progress is not None:
            progress(done, len(every))
    return tuple(found)


def _probe_form(form: Form, provider: str) -> ProbeResult:
    model = form.build(form.activation).SerializeToString()
    try:
        nodes = executed(model, provider)
    except ModelError as error:
        return ProbeResult(form.name, form.op, form.activation, False, (), error.message)
    ops = tuple(node.op for node in nodes)
    return ProbeResult(form.name, form.op, form.activation, _takes_integers(nodes), ops)


def _takes_integers(nodes: Sequence[ExecutedNode]) -> bool:
    """Whether no node reads what a DequantizeLinear wrote, and some node takes integers."""
    floats = {name for node in nodes if node.op == "DequantizeLinear" for name in node.outputs}
    if any(name in floats for node in nodes for name in node.inputs):
        return False
    integers = {name for node in nodes if node.op == "QuantizeLinear" for name in node.outputs}
    takers = (node for node in nodes if node.op != "DequantizeLinear")
    return any(node.integer or integers & set(node.inputs) for node in takers)


def _key(provider: str) -> str:
    """A file name for what decides the results: runtime, provider, processor and forms."""
    machine = inspect_machine()
    names = [form.name for form in forms()]
    parts = [FORMAT_VERSION, machine.architecture, sorted(machine.isa), names]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    return f"{ort.__version__}-{provider}-{digest}"


def _read(path: Path) -> tuple[ProbeResult, ...] | None:
    try:
        found = _RESULTS.validate_json(path.read_bytes(), strict=False)
    except (OSError, ValidationError):
        return None
    return found or None


def _write(path: Path, results: Sequence[ProbeResult]) -> None:
    """Keep results for later; where that is not possible, the probe runs again next time."""
    text = json.dumps([asdict(result) for result in results], indent=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    except OSError:
        return
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).replace(path)
    except OSError:
        return
    finally:
        Path(temporary).unlink(missing_ok=True)
