"""Where each node of the executed graph ran, and in which kind of kernel."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from onnxq.errors import ModelError
from onnxq.runtime.kernels import NBITS_OPS, executed, is_integer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
class MappedNode:
    """A node of the executed graph.

    Attributes:
        name: Its name.
        op: Its operator.
        provider: Full name of the provider that runs it.
        kind: In which kind of kernel.
        reason: Why it is not the provider that was asked for; empty if it is.
    """

    name: str
    op: str
    provider: str
    kind: Kind
    reason: str


@dataclass(frozen=True, slots=True)
class MapCell:
    """One cell of a map.

    Attributes:
        first: The place of its first node, counted from 1.
        kind: The commonest kind of its nodes.
        away: Whether one of them runs on another provider than was asked for.
    """

    first: int
    kind: Kind
    away: bool


@dataclass(frozen=True, slots=True)
class GraphMap:
    """The executed graph of one run.

    Attributes:
        executed: Its nodes, in order, as ONNX Runtime names them; empty where the provider
            compiles what it runs.
        nodes: The same with where they run; where the provider compiles, the nodes that it was
            given.
    """

    executed: tuple[ExecutedNode, ...]
    nodes: tuple[MappedNode, ...]

    @property
    def counts(self) -> dict[Kind, int]:
        """Nodes by kind, in the order of :data:`KINDS`, kinds without a node left out."""
        found = Counter(node.kind for node in self.nodes)
        return {kind: found[kind] for kind in KINDS if found[kind]}


def cells(nodes: Sequence[MappedNode], most: int) -> tuple[tuple[MapCell, ...], int]:
    """The nodes in at most so many cells, and how many nodes one cell stands for."""
    each = max(1, -(-len(nodes) // most))
    found = []
    for start in range(0, len(nodes), each):
        part = nodes[start : start + each]
        kind = Counter(node.kind for node in part).most_common(1)[0][0]
        found.append(MapCell(start + 1, kind, any(node.reason for node in part)))
    return tuple(found), each


def map_graph(run: ComparedRun) -> GraphMap:
    """What ONNX Runtime executes of a run's model, in order, and where.

    Nodes are given to providers before ONNX Runtime fuses the last of them, so a node made later is
    where the provider that was asked for is.
    """
    placed = run.placement
    try:
        nodes = executed(run.model, run.provider)
    except ModelError:
        # It ran: what fails is writing down kernels that a provider compiled.
        mapped = (
            MappedNode(n.name, n.op, n.provider, kind_of(n.op), n.reason) for n in placed.nodes
        )
        return GraphMap((), tuple(mapped))
    known = {node.name: node for node in placed.nodes if node.name}
    found = []
    for node in nodes:
        at = known.get(node.name)
        provider, reason = (placed.asked, "") if at is None else (at.provider, at.reason)
        found.append(MappedNode(node.name, node.op, provider, kind_of(node.op), reason))
    return GraphMap(nodes, tuple(found))


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
