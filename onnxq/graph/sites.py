"""What can be quantized, who shares it, and why not.

A site is a node that multiplies activations by a weight, or looks a weight up. :func:`find_sites`
lists all of them in the order of the graph, those inside subgraphs too, each with a decision; a
declined one says why in words that ``inspect`` shows. It expects a normalized model. A candidate's
weight is a finite constant of the main graph and its form is understood; whether a scheme quantizes
it, and whether it does so inside of a subgraph, is for the scheme to say.

A weight may be shared by sites that all are candidates and count output channels along the same
axis: they can share its integers. If anyone else reads it, all its sites are declined, because the
float weight would have to stay beside the integers.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq.graph.edit import consumers, is_overridable
from onnxq.graph.protected import protected_values
from onnxq.graph.quantized import find_already_quantized
from onnxq.graph.structure import macs
from onnxq.graph.tensors import chunks
from onnxq.graph.weighted import Form, form_of, weight_tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Site", "find_already_quantized", "find_sites", "protected_values"]


@dataclass(frozen=True, slots=True)
class Site:
    """A node with a weight, or one that multiplies two activations.

    Attributes:
        name: The node's name; unique in a normalized model.
        op: The operator, other domains as ``domain::op``.
        activation: Name of the value that carries activations; None for a lookup.
        weight: Name of the weight's initializer; None if there is none.
        weight_axis: The weight's axis that counts output channels (for Gather: rows); None if it
            has none of its own, as in LSTM, GRU and RNN.
        more_weights: Names of the other weights, such as the recurrence weights of an LSTM.
        bias: Name of the bias initializer, a vector; None if there is none.
        output: Name of the node's first output.
        macs: Multiply-accumulates for static shapes, else None; ``structure.macs`` takes observed
            shapes.
        readers: Names of all nodes that read its weight, itself among them; sites of one weight
            share this tuple.
        place: What the node is inside of, such as ``the body of If 'choice'``; empty in the main
            graph.
        candidate: Whether it can be quantized.
        reason: Why not, for people; empty for a candidate.
        sums: The axes of its weights that products are summed over, in the order of integer kernels
            (:class:`~onnxq.graph.weighted.Form`).
        finite: Whether its constants hold no NaN and no Inf, as far as they were looked at.
        weight_only: Why a candidate's weight alone can be quantized, and not its activations too;
            empty if both can.
    """

    name: str
    op: str
    activation: str | None
    weight: str | None
    weight_axis: int | None
    more_weights: tuple[str, ...]
    bias: str | None
    output: str
    macs: int | None
    readers: tuple[str, ...]
    place: str
    candidate: bool
    reason: str
    sums: tuple[int, ...] = ()
    finite: bool = True
    weight_only: str = ""


def find_sites(model: ir.Model) -> tuple[Site, ...]:
    """List the sites of a normalized model, in the order of its nodes.

    Reads every candidate's weight once, to see that it is finite.
    """
    constants = _Constants(model)
    sites = [
        _site(node, form, place, constants)
        for node, place in nodes_with_place(model)
        if (form := form_of(node)) is not None
    ]
    return tuple(_decline_half_shared(sites))


class _Constants:
    """What is known of constants so far: a weight that many nodes read is looked at once."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self._readers: dict[ir.Value, tuple[str, ...]] = {}
        self._faults: dict[ir.Value, str] = {}

    def readers(self, value: ir.Value) -> tuple[str, ...]:
        """The names of the nodes that read it."""
        if value not in self._readers:
            names = (other.name or other.op_type for other, _ in consumers(value))
            self._readers[value] = tuple(dict.fromkeys(names))
        return self._readers[value]

    def finite(self, node: ir.Node, form: Form) -> bool:
        """Whether those of its constants that were looked at are finite."""
        return not any(self._faults.get(value) for value in _constants_of(node, form))

    def fault(self, value: ir.Value) -> str:
        """Why its elements cannot be quantized; empty if they are finite."""
        if value not in self._faults:
            self._faults[value] = _why_not_finite(value)
        return self._faults[value]


def nodes_with_place(model: ir.Model) -> Iterator[tuple[ir.Node, str]]:
    """Every node, with what it is inside of; empty for the main graph."""
    yield from _walk(model.graph, "")
    for function in model.functions.values():
        yield from _walk(function, _function(function))


def _function(function: ir.Function) -> str:
    return f"the function {function.name!r}, which could not be inlined"


def _walk(nodes: ir.Graph | ir.Function, place: str) -> Iterator[tuple[ir.Node, str]]:
    for node in nodes:
        yield node, place
        for attribute in node.attributes.values():
            if attribute.is_ref():
                continue
            inner = f"the body of {node.op_type} {node.name!r}"
            if attribute.type == ir.AttributeType.GRAPH:
                yield from _walk(attribute.as_graph(), inner)
            elif attribute.type == ir.AttributeType.GRAPHS:
                for graph in attribute.as_graphs():
                    yield from _walk(graph, inner)


def _site(node: ir.Node, form: Form, place: str, constants: _Constants) -> Site:
    weight = _input(node, form.weight)
    reason = form.reason or _why_not(node, form, constants)
    return Site(
        name=node.name or "",
        op=f"{node.domain}::{node.op_type}" if node.domain else node.op_type,
        activation=_name(_input(node, form.activation)),
        weight=_name(weight),
        weight_axis=form.axis,
        more_weights=tuple(_name(_input(node, index)) or "" for index in form.more),
        bias=_name(_input(node, form.bias)),
        output=node.outputs[0].name or "",
        macs=macs(node),
        readers=() if weight is None else constants.readers(weight),
        place=place,
        candidate=not reason,
        reason=reason,
        sums=form.sums,
        finite=constants.finite(node, form),
        weight_only=form.weight_only,
    )


def _why_not(node: ir.Node, form: Form, known: _Constants) -> str:
    activation = _input(node, form.activation)
    for index in (form.weight, *form.more):
        tensor = None if index is None else weight_tensor(node, index)
        if tensor is None:
            return "it has no constant weight"
        if tensor.dtype != ir.DataType.FLOAT:
            return f"its weight is {tensor.dtype.name}; onnxq quantizes FLOAT: export it in float32"
    if activation is not None and activation.dtype not in {None, ir.DataType.FLOAT}:
        return f"its input is {activation.dtype.name if activation.dtype else 'unknown'}, not FLOAT"
    present = _constants_of(node, form)
    reasons = [_why_not_constant(known.model, value) for value in present]
    reasons += [known.fault(value) for value in present] if not any(reasons) else []
    return next(filter(None, reasons), "")


def _why_not_constant(model: ir.Model, value: ir.Value) -> str:
    if is_overridable(value, model):
        return f"{value.name!r} is also an input of the model, so a caller may replace it"
    if value.const_value is None or value.graph is not model.graph:
        return f"{value.name!r} is no initializer of the main graph"
    if value.is_graph_output():
        return f"its weight {value.name!r} is also an output of the model"
    return f"its weight {value.name!r} is empty" if value.const_value.size == 0 else ""


def _why_not_finite(weight: ir.Value) -> str:
    bad = 0
    for chunk in () if weight.const_value is None else chunks(weight.const_value.numpy()):
        finite = np.isfinite(chunk)
        if not finite.all():
            bad += int(chunk.size - np.count_nonzero(finite))
    if not bad:
        return ""
    return f"its constant {weight.name!r} holds {bad} values that are NaN or infinite"


def _decline_half_shared(sites: list[Site]) -> list[Site]:
    """Decline sites whose weight someone reads who could not read its integers."""
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for index, site in enumerate(sites):
        if site.weight is not None:
            groups[site.weight].append(index)
    result = list(sites)
    for members in groups.values():
        group = {sites[index].name: sites[index] for index in members}
        fault = _fault(group)
        axes = {site.weight_axis: name for name, site in group.items()}
        for index in members:
            site = sites[index]
            others = [name for axis, name in axes.items() if axis != site.weight_axis]
            why = fault
            if not why and others:
                why = f"{others[0]!r}, with its channels along another axis"
            if site.candidate and why:
                reason = f"its weight {site.weight!r} is also read by {why}"
                result[index] = replace(site, candidate=False, reason=reason)
    return result


def _fault(group: dict[str, Site]) -> str:
    """The reader because of which a weight has to stay in float, and why; empty if none is."""
    first = next(iter(group.values()))
    readers, weight_only = first.readers, bool(first.weight_only)
    for name in readers:
        if name not in group:
            return f"{name!r}, which does not multiply by it"
        if not group[name].candidate:
            return f"{name!r}, which cannot be quantized"
        if bool(group[name].weight_only) != weight_only:
            return f"{name!r}, and one of them cannot be quantized with its activations"
    return ""


def _constants_of(node: ir.Node, form: Form) -> list[ir.Value]:
    values = (_input(node, index) for index in (form.weight, *form.more, form.bias))
    return [value for value in values if value is not None]


def _input(node: ir.Node, index: int | None) -> ir.Value | None:
    return node.inputs[index] if index is not None and index < len(node.inputs) else None


def _name(value: ir.Value | None) -> str | None:
    return None if value is None else value.name
