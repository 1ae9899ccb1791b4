"""The kernel probe: what this build of ONNX Runtime really runs in integers on this machine.

Each form of :mod:`onnxq.runtime.probe_forms` is loaded and its optimized graph read back. A form
counts as integer if no node of it still reads what a DequantizeLinear wrote: the operator took the
integers as they are. The results are kept on disk by runtime version, provider and instruction
sets; a damaged file is written anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydantic import TypeAdapter

from onnxq.errors import ModelError
from onnxq.runtime import kept, providers
from onnxq.runtime.kernels import executed
from onnxq.runtime.probe_forms import forms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

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
    providers.require(provider)
    path = (cache or kept.folder("probe")) / _key(provider)
    found = kept.read(path, _RESULTS)
    if not found:
        found = probe(provider, progress)
        kept.write(path, found, _RESULTS)
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
    """A file name for what decides the results."""
    return kept.key(provider, FORMAT_VERSION, [form.name for form in forms()])
