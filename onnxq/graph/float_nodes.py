"""Every node that computes with float32, as a site: for schemes that convert more than weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxq.graph.edit import is_overridable
from onnxq.graph.sites import Site, find_sites, nodes_with_place

if TYPE_CHECKING:
    from collections.abc import Callable

STORED_ELEMENTS = 64
"""A constant of fewer elements is not worth a Cast: that and its names take about 100 bytes."""

_FLOAT = ir.DataType.FLOAT


def find_float_nodes(model: ir.Model) -> tuple[Site, ...]:
    """The nodes of a normalized model that read or write float32, in the order of the graph.

    Weights and multiply-accumulates are known of those that :func:`find_sites` lists.
    """
    return _sites(model, _has_float)


def find_readers_of_weights(model: ir.Model) -> tuple[Site, ...]:
    """The sites, and other nodes that read float32 constants which are worth storing in 16 bits."""
    return _sites(
        model, lambda node: any(is_stored(value, model) for value in node.inputs if value)
    )


def is_stored(value: ir.Value, model: ir.Model) -> bool:
    """Whether a value is a float32 constant of the main graph that a Cast may stand behind."""
    tensor = value.const_value
    return (
        value.is_initializer()
        and tensor is not None
        and tensor.dtype == _FLOAT
        and tensor.size >= STORED_ELEMENTS
        and value.graph is model.graph
        and not value.is_graph_output()
        and not is_overridable(value, model)
    )


def _has_float(node: ir.Node) -> bool:
    """Whether float32 may be among what it reads and writes; a Constant only holds it."""
    if node.op_type == "Constant" and not node.domain:
        return False
    values = [value for value in (*node.inputs, *node.outputs) if value is not None and value.name]
    return any(value.type is None or _is_float(value.type) for value in values)


def _is_float(kind: ir.TypeProtocol) -> bool:
    return kind.dtype == _FLOAT


def _sites(model: ir.Model, wanted: Callable[[ir.Node], bool]) -> tuple[Site, ...]:
    known = {site.name: site for site in find_sites(model)}
    found = []
    for node, place in nodes_with_place(model):
        if node.name in known:
            if _has_float(node):
                found.append(known[node.name])
        elif wanted(node):
            found.append(_plain(node, place))
    return tuple(found)


def _plain(node: ir.Node, place: str) -> Site:
    return Site(
        name=node.name or "",
        op=f"{node.domain}::{node.op_type}" if node.domain else node.op_type,
        activation=None,
        weight=None,
        weight_axis=None,
        more_weights=(),
        bias=None,
        output=node.outputs[0].name or "" if node.outputs else "",
        macs=None,
        readers=(),
        place=place,
        candidate=True,
        reason="",
    )
