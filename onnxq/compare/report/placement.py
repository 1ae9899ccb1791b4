"""Where each node of the executed graph ran, and in which kind of kernel."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from onnxq.errors import ModelError
from onnxq.runtime.kernels import NBITS_OPS, executed, is_integer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxq.compare.compare import ComparedRun
    from onnxq.runtime.kernels import ExecutedNode

Kind = Literal["integer", "few bits", "float", "conversion", "movement", "copy"]

KINDS: Final[Mapping[Kind, str]] = {
    "integer": "computes on 8-bit integers",
    "few bits": "weights of few bits, float activations",
    "float": "computes in float",
    "conversion": "QuantizeLinear, DequantizeLinear, Cast",
    "movement": "only moves or looks up elements",
    "copy": "copies between devices",
}
"""Every kind in the order in which it is shown, and what it means."""

_CONVERSIONS: Final = frozenset(
    {"Cast", "DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"}
)
_MOVEMENT: Final = frozenset(
    {
        "Concat",
        "ConstantOfShape",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Identity",
        "Pad",
        "ReorderInput",
        "ReorderOutput",
        "Reshape",
        "ScatterElements",
        "ScatterND",
        "Shape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
_COPIES: Final = frozenset({"MemcpyFromHost", "MemcpyToHost"})


@dataclass(frozen=True, slots=True)
class PlacedNode:
    """A node of the executed graph.

    Attributes:
        name: Its name.
        op: Its operator.
        provider: Where it ran, as the run's provider is called.
        kind: In which kind of kernel.
    """

    name: str
    op: str
    provider: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class RunPlacement:
    """The executed graph of one run.

    Attributes:
        executed: Its nodes, in order, as ONNX Runtime names them; empty where the provider
            compiles what it runs.
        nodes: The same with where they ran.
    """

    executed: tuple[ExecutedNode, ...]
    nodes: tuple[PlacedNode, ...]

    @property
    def counts(self) -> dict[Kind, int]:
        """Nodes by kind, in the order of :data:`KINDS`, kinds without a node left out."""
        found = Counter(node.kind for node in self.nodes)
        return {kind: found[kind] for kind in KINDS if found[kind]}


def place(run: ComparedRun) -> RunPlacement:
    """What ONNX Runtime executes of a run's model, in order."""
    try:
        nodes = executed(run.model, run.provider)
    except ModelError:
        # It ran: what fails is writing down kernels that a provider compiled.
        return RunPlacement((), ())
    placed = [PlacedNode(n.name, n.op, run.provider, kind_of(n.op)) for n in nodes]
    return RunPlacement(nodes, tuple(placed))


def kind_of(op: str) -> Kind:
    """The kind of kernel that an operator of an executed graph runs in."""
    if is_integer(op):
        return "integer"
    if op in NBITS_OPS:
        return "few bits"
    if op in _COPIES:
        return "copy"
    if op in _CONVERSIONS:
        return "conversion"
    return "movement" if op in _MOVEMENT else "float"
