"""Which tensors of two models are the same one: outputs of layers that bear one name in both.

A quantized model reads many a tensor through a pair of QuantizeLinear and DequantizeLinear. What
its readers read is then compared, so that rounding and clipping count to the layer that they belong
to; and where the pair stands for a Relu or Clip that was taken out, only behind it the tensors are
alike.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from onnxq.graph.edit import consumers, value_by_name
from onnxq.graph.sites import find_sites

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_MOST_SOURCES: Final = 16
_CONVERSIONS: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})
_FLOATS: Final = frozenset(
    {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.UNDEFINED, None}
)
"""Types of tensors that may have an error; ONNX Runtime tells where the model does not."""


@dataclass(frozen=True, slots=True)
class Match:
    """One tensor in two models.

    Attributes:
        place: Which node of the reference gives it, counted from 1; 0 for an input of the model.
        node: That node's name; empty for an input.
        op: Its operator; ``input`` for an input.
        tensor: The tensor's name in the reference.
        read: What stands for it in the other model, as readers read it.
        sources: The nearest matched tensors that it is computed from.
    """

    place: int
    node: str
    op: str
    tensor: str
    read: str
    sources: tuple[str, ...]


def nearest(
    references: Sequence[ir.Model], other: ir.Model, most: int
) -> tuple[ir.Model, tuple[Match, ...]]:
    """The reference whose names another model has most of, the first of them, and the tensors.

    A model keeps the names of what it was made from. Of another form of the same model it has
    fewer, and some of them stand for something else there: a Conv that a normalization was folded
    into gives other values under its name.

    Args:
        references: Forms of one model.
        other: The model compared with it.
        most: As for :func:`match`.
    """
    found = max(references, key=lambda model: len(match(model, other, sys.maxsize)))
    return found, match(found, other, most)


def match(reference: ir.Model, other: ir.Model, most: int) -> tuple[Match, ...]:
    """The float tensors of the main graph that both models have, in the reference's order.

    Args:
        reference: Its nodes are sorted.
        other: The model compared with it.
        most: At most so many: outputs of layers with weights and of the model first, then others at
            even distances. Inputs of the model that the other quantizes come on top.
    """
    values = value_by_name(other.graph)
    varying = _sources(reference, ()).keys()
    alike = [
        (place, node, output)
        for place, node in enumerate(reference.graph, start=1)
        for output in node.outputs
        if node.op_type not in _CONVERSIONS
        and _is_float(output)
        and output.name in values
        # What has no sources is a constant.
        and output.name in varying
    ]
    chosen = _choose(reference, [output.name or "" for _, _, output in alike], most)
    quantized = {
        value.name: read
        for value in reference.graph.inputs
        if value.name in values and (read := as_read(values[value.name])) != value.name
    }
    wanted = {*chosen, *quantized}
    sources = _sources(reference, wanted)
    inputs = (
        Match(0, "", "input", name or "", read, ()) for name, read in quantized.items() if name
    )
    layers = (
        Match(
            place,
            node.name or "",
            node.op_type,
            output.name,
            as_read(values[output.name]),
            sources[output.name],
        )
        for place, node, output in alike
        if output.name in chosen
    )
    return (*inputs, *layers)


def as_read(value: ir.Value) -> str:
    """The name of what readers of a value read: the value, or what dequantizes its integers."""
    name = value.name or ""
    if value.is_graph_output():
        return name
    readers = [node for node, _ in consumers(value)]
    quantizers = [node for node in readers if node.op_type == "QuantizeLinear"]
    if not readers or len(quantizers) < len(readers):
        return name
    behind = [node for node, _ in consumers(quantizers[0].outputs[0])]
    dequantizer = next((node for node in behind if node.op_type == "DequantizeLinear"), None)
    return name if dequantizer is None else dequantizer.outputs[0].name or name


def _is_float(value: ir.Value) -> bool:
    return bool(value.name) and value.dtype in _FLOATS


def _choose(model: ir.Model, names: list[str], most: int) -> frozenset[str]:
    if len(names) <= most:
        return frozenset(names)
    first = {site.output for site in find_sites(model)}
    first |= {value.name or "" for value in model.graph.outputs}
    chosen = _evenly([name for name in names if name in first], most)
    rest = [name for name in names if name not in first]
    return frozenset([*chosen, *_evenly(rest, most - len(chosen))])


def _evenly(names: list[str], most: int) -> list[str]:
    if len(names) <= most:
        return names
    return [names[index * len(names) // most] for index in range(most)]


def _sources(model: ir.Model, wanted: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """For each wanted tensor that depends on an input the nearest wanted ones that it reads."""
    # What a value stands for: itself if it is wanted, else what it is computed from.
    stands: dict[str, tuple[str, ...]] = {}
    known = frozenset(wanted)
    for value in model.graph.inputs:
        if value.name and not value.is_initializer():
            stands[value.name] = (value.name,) if value.name in known else ()
    found: dict[str, tuple[str, ...]] = {}
    for node in model.graph:
        read = [stands[v.name] for v in node.inputs if v is not None and v.name in stands]
        if not read:
            continue
        near = tuple(dict.fromkeys(name for names in read for name in names))[:_MOST_SOURCES]
        for output in node.outputs:
            if output.name:
                stands[output.name] = (output.name,) if output.name in known else near
                found[output.name] = near
    return found
