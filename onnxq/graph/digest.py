"""The identity of a model: what it computes, not how its file is laid out.

Two files have the same digest if graph, subgraphs, functions, opsets, inputs, outputs and weights
are the same. Where the weights lie (inline, external, typed fields or raw bytes), metadata, doc
strings, the producer, and shapes noted for intermediate values play no part.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxq.graph.tensors import update_hash

if TYPE_CHECKING:
    from collections.abc import Iterable


def digest(model: ir.Model) -> str:
    """``"sha256:"`` and 64 hexadecimal digits; weights are streamed."""
    hasher = _Hasher()
    hasher.texts(f"{domain}={version}" for domain, version in sorted(model.opset_imports.items()))
    hasher.graph(model.graph)
    for key in sorted(model.functions):
        function = model.functions[key]
        hasher.texts([*key, *(f"{d}={v}" for d, v in sorted(function.opset_imports.items()))])
        hasher.attributes(function.attributes.values())
        hasher.values(function.inputs)
        hasher.values(function.outputs)
        hasher.nodes(function)
    return f"sha256:{hasher.hexdigest()}"


class _Hasher:
    """Feeds a graph to SHA-256; every list is preceded by its length, so that none runs on."""

    def __init__(self) -> None:
        self._state = hashlib.sha256()

    def hexdigest(self) -> str:
        return self._state.hexdigest()

    def texts(self, texts: Iterable[str]) -> None:
        items = [text.encode("utf-8", "surrogateescape") for text in texts]
        self._state.update(f"[{len(items)}]".encode())
        for item in items:
            self._state.update(f"{len(item)}:".encode())
            self._state.update(item)

    def values(self, values: Iterable[ir.Value | None]) -> None:
        self.texts((v.name or "") if v is not None else "" for v in values)

    def graph(self, graph: ir.Graph) -> None:
        for values in (graph.inputs, graph.outputs):
            self.values(values)
            self.texts(f"{value.type}{_shape_text(value)}" for value in values)
        self.texts(sorted(graph.initializers))
        for name in sorted(graph.initializers):
            tensor = graph.initializers[name].const_value
            if tensor is not None:
                update_hash(self._state, tensor)
        self.nodes(graph)

    def nodes(self, nodes: Iterable[ir.Node]) -> None:
        for node in nodes:
            self.texts([node.domain, node.op_type, node.overload, node.name or ""])
            self.values(node.inputs)
            self.values(node.outputs)
            self.attributes(node.attributes.values())
        self.texts(["end"])

    def attributes(self, attributes: Iterable[ir.Attr]) -> None:
        items = sorted(attributes, key=lambda attribute: attribute.name)
        self.texts(f"{item.name}:{item.type.name}:{item.ref_attr_name or ''}" for item in items)
        for item in items:
            if not item.is_ref():
                self._attribute(item)

    def _attribute(self, item: ir.Attr) -> None:
        kind = item.type
        if item.value is None:
            self.texts(["none"])
        elif kind == ir.AttributeType.GRAPH:
            self.graph(item.as_graph())
        elif kind == ir.AttributeType.GRAPHS:
            for graph in item.as_graphs():
                self.graph(graph)
        elif kind == ir.AttributeType.TENSOR:
            update_hash(self._state, item.as_tensor())
        elif kind == ir.AttributeType.TENSORS:
            for tensor in item.as_tensors():
                update_hash(self._state, tensor)
        else:
            value = item.value
            self.texts([repr(list(value)) if isinstance(value, tuple | list) else repr(value)])


def _shape_text(value: ir.Value) -> str:
    return "?" if value.shape is None else str([str(dim) for dim in value.shape])
