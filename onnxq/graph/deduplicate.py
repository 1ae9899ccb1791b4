"""Equal initializers become one.

Cases: initializers of the main graph with the same type, shape and bytes; readers of the later ones
read the first. Inputs and outputs of the model keep their own initializer. Tied weights that an
exporter wrote twice meet here again. Must run before Q/DQ insertion, never after: equal scales of
different tensors are equal by chance.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict

import onnx_ir as ir

from onnxq.graph.derived import origin_of
from onnxq.graph.tensors import chunks, update_hash

_PROBE = 1024
_Key = tuple[ir.DataType, tuple[int, ...]]


class DeduplicatePass(ir.passes.InPlacePass):
    """Let readers of equal initializers read one of them."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Deduplicate in place; hashes only tensors whose type, shape and first bytes agree."""
        alike: defaultdict[tuple[_Key, bytes], list[ir.Value]] = defaultdict(list)
        for group in _same_shape(model.graph):
            for value in group:
                alike[_key(value), _first_bytes(value)].append(value)
        removed = sum(_merge(model.graph, group) for group in alike.values() if len(group) > 1)
        return ir.passes.PassResult(model, bool(removed))

    def __repr__(self) -> str:
        """The pass's name."""
        return "DeduplicatePass()"


def _same_shape(graph: ir.Graph) -> list[list[ir.Value]]:
    groups: defaultdict[_Key, list[ir.Value]] = defaultdict(list)
    for value in graph.initializers.values():
        if value.is_graph_input() or value.is_graph_output() or value.const_value is None:
            continue
        groups[_key(value)].append(value)
    return [group for group in groups.values() if len(group) > 1]


def _key(value: ir.Value) -> _Key:
    tensor = value.const_value
    if tensor is None:
        return ir.DataType.UNDEFINED, ()
    return tensor.dtype, tuple(tensor.shape.numpy())


def _first_bytes(value: ir.Value) -> bytes:
    tensor = value.const_value
    if tensor is None or tensor.size == 0:
        return b""
    if isinstance(tensor, ir.StringTensor):
        return tensor.string_data()[0]
    # Lazy tensors are computed as a whole, so look at what they are computed from.
    origin = origin_of(value)
    if origin is not None and origin.tensor.size:
        return repr(origin.steps).encode() + next(chunks(origin.tensor.numpy()))[:_PROBE].tobytes()
    if isinstance(tensor, ir.LazyTensor):
        return b""
    return next(chunks(tensor.numpy()))[:_PROBE].tobytes()


def _merge(graph: ir.Graph, group: list[ir.Value]) -> int:
    kept: dict[bytes, ir.Value] = {}
    removed = 0
    for value in group:
        state = hashlib.sha256()
        if value.const_value is not None:
            update_hash(state, value.const_value)
        first = kept.setdefault(state.digest(), value)
        if first is not value and value.name is not None:
            value.replace_all_uses_with(first)
            graph.initializers.pop(value.name)
            removed += 1
    return removed
