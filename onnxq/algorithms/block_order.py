"""In which order groups of weights are quantized: all at once, or along the graph.

A chunk of groups is observed in one pass over the data. Where statistics shall come from a model
whose earlier weights are quantized already, groups of one depth make a chunk, for none of them
reads what another computes. Large models have hundreds of depths, and every chunk costs a pass over
the data through the model as far as the chunk, so that consecutive depths are put together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from onnxq.graph.edit import nodes_below

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from onnxq.algorithms.block_plan import BlockGroup

MOST_CHUNKS: Final = 16
"""Passes over the data of sequential refinement, if the memory budget does not ask for more. Each
runs the model as far as its last group: together they cost about half as many whole passes."""


def chunks(groups: Sequence[BlockGroup], budget: int) -> Iterator[list[BlockGroup]]:
    """Groups whose statistics fit into the budget, beside what solving takes; one at least.

    Args:
        groups: In the order in which they are wanted.
        budget: Bytes.
    """
    chunk: list[BlockGroup] = []
    for group in groups:
        if chunk and _needed([*chunk, group]) > budget:
            yield chunk
            chunk = []
        chunk.append(group)
    if chunk:
        yield chunk


def _needed(chunk: Sequence[BlockGroup]) -> int:
    held = sum(group.moment_bytes for group in chunk)
    return held + max(group.solving_bytes for group in chunk)


def chunks_in_sequence(
    model: ir.Model, groups: Sequence[BlockGroup], budget: int
) -> list[list[BlockGroup]]:
    """The same along the graph: no group reads what one of a later chunk computes.

    Args:
        model: The model of the groups.
        groups: Those with an activation.
        budget: Bytes.
    """
    depths = depths_of(model, groups)
    order = sorted(set(depths.values()))
    together = -(-len(order) // MOST_CHUNKS)
    place = {depth: number // together for number, depth in enumerate(order)}
    parts: dict[int, list[BlockGroup]] = {}
    for group in sorted(groups, key=depths.__getitem__):
        parts.setdefault(place[depths[group]], []).append(group)
    return [chunk for part in parts.values() for chunk in chunks(part, budget)]


def depths_of(model: ir.Model, groups: Sequence[BlockGroup]) -> dict[BlockGroup, int]:
    """How many products of groups lie in front of each, along the longest path.

    Args:
        model: The model of the groups; its nodes stand behind what they read.
        groups: Those with an activation.
    """
    products = {site.name for group in groups for site in group.sites}
    depths: dict[ir.Value, int] = {}
    for node in model.graph:
        depth = max((depths.get(value, 0) for value in _read(node)), default=0)
        depths |= dict.fromkeys(node.outputs, depth + (node.name in products))
    named = {value.name: depth for value, depth in depths.items()}
    return {group: named.get(group.tensor, 0) for group in groups}


def _read(node: ir.Node) -> Iterator[ir.Value]:
    """What a node reads, its subgraphs too."""
    for body in _bodies(node):
        yield from body.outputs
        for inner in nodes_below(body):
            yield from (value for value in inner.inputs if value is not None)
    yield from (value for value in node.inputs if value is not None)


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref():
            yield attribute.as_graph()
