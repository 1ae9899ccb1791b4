"""Which node runs on which execution provider, what is copied between devices, and why.

ONNX Runtime tells which node it gave to which provider. Why one was left to the CPU it only writes
to its log, so the model is opened in a process of its own whose log is read. A provider that
compiles (TensorRT) takes whole parts of the graph: each counts with all its nodes.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from onnxq.errors import ModelError
from onnxq.runtime import providers
from onnxq.runtime.session import RECORD_ASSIGNMENTS, SessionSettings, open_session
from onnxq.runtime.worker import ask, raise_error
from onnxq.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_LIMIT_SECONDS: Final = 1800.0
_SHAPES: Final = "shape arithmetic"
_NO_KERNEL: Final = re.compile(
    r"kernel not found in registries for Op type: (?P<op>\S+) node name: (?P<name>\S*)"
)
_FASTER: Final = re.compile(r"Force fallback to CPU execution for node: (?P<name>\S+)")
_TYPES: Final = re.compile(r"CUDA kernel not supported\. Fallback to CPU execution for Op type: "
                           r"(?P<op>\S+) node name: (?P<name>\S*)")  # fmt: skip
_COPIES: Final = re.compile(r"(?P<count>\d+) Memcpy nodes are added to the graph")


@dataclass(frozen=True, slots=True)
class PlacedNode:
    """A node and where it runs.

    Attributes:
        name: Its name in the optimized graph.
        op: Its operator.
        domain: The operator's domain, empty for ONNX's own.
        provider: Full name of the provider that runs it.
        reason: Why it is not the one that was asked for; empty if it is.
    """

    name: str
    op: str
    domain: str
    provider: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the nodes of a model run.

    Attributes:
        asked: Full name of the provider that was asked for.
        nodes: Every node that ONNX Runtime assigned, in its order.
        copies: Copies between devices that a run makes, the model's own inputs and outputs not
            counted.
    """

    asked: str
    nodes: tuple[PlacedNode, ...]
    copies: int

    @property
    def by_provider(self) -> Mapping[str, int]:
        """How many nodes each provider runs."""
        return MappingProxyType(dict(Counter(node.provider for node in self.nodes).most_common()))

    @property
    def fallen_back(self) -> tuple[PlacedNode, ...]:
        """The nodes that another provider runs than was asked for."""
        return tuple(node for node in self.nodes if node.provider != self.asked)

    @property
    def unmeant(self) -> tuple[PlacedNode, ...]:
        """Those of them that ONNX Runtime does not hold for faster there."""
        return tuple(node for node in self.fallen_back if _SHAPES not in node.reason)


def placement(model: Path, provider: str = "cpu") -> Placement:
    """Find out where the nodes of a model run.

    Args:
        model: The model's path.
        provider: The provider to ask for.

    Raises:
        ModelError: The model does not load there, or its process dies.
        ProviderError: The provider is not there.
    """
    asked = providers.require(provider)
    if asked == providers.CPU:
        settings = SessionSettings(threads=1, spinning=False, config=(RECORD_ASSIGNMENTS,))
        return _read(asked, open_session(model, settings).assignments(), "")
    spec = {"model": str(model.resolve()), "provider": provider}
    with Scratch() as folder:
        try:
            found = ask("onnxq.runtime.placement_worker", spec, folder, _LIMIT_SECONDS)
        except subprocess.TimeoutExpired as error:
            code, text = "runtime.placement", f"it does not load within {_LIMIT_SECONDS:g} seconds"
            remedy = "--engine-cache DIR lets TensorRT keep what it builds"
            raise ModelError(code, text, where=str(model), remedy=remedy) from error
    if found.answer is None:
        code, text = "runtime.placement", "the process that looked where its nodes run died"
        remedy = "it most likely ran out of memory; free some"
        raise ModelError(code, text, where=str(model), remedy=remedy)
    raise_error(found.answer, str(model))
    return _read(asked, found.answer["assignments"], found.log)


def _read(asked: str, assignments: Mapping[str, Sequence[Sequence[str]]], log: str) -> Placement:
    reasons = {m["name"]: f"{asked} has no kernel for this {m['op']}"
               for form in (_NO_KERNEL, _TYPES) for m in form.finditer(log)}  # fmt: skip
    for match in _FASTER.finditer(log):
        text = f"{_SHAPES}: ONNX Runtime holds the CPU for faster, copies counted in"
        reasons[match["name"]] = text
    nodes = tuple(
        PlacedNode(
            name, op, domain, provider, "" if provider == asked else _why(name, reasons, asked)
        )
        for provider, placed in assignments.items()
        for name, op, domain in placed
    )
    return Placement(asked, nodes, sum(int(m["count"]) for m in _COPIES.finditer(log)))


def _why(name: str, reasons: Mapping[str, str], asked: str) -> str:
    return reasons.get(name, f"{asked} did not take it; ONNX Runtime's log does not say why")
