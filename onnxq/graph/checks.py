"""What must hold of a parsed model before it is built, because nothing behind this asks again.

onnx_ir lets the later of two values of one name win, ONNX's own functions recurse into functions
that call themselves, and numpy meets a tensor's wrong field only when the tensor is first read. So:

* the IR version and the opsets are among those that the installed onnx knows;
* a name is given once in a graph: by an input, an initializer or one node's output (an initializer
  may be the default of an input);
* tensors are what :mod:`onnxq.graph.stored_tensors` says;
* functions are what :mod:`onnxq.graph.functions` says.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import onnx

from onnxq.errors import ModelError
from onnxq.graph import limits
from onnxq.graph.functions import check_functions
from onnxq.graph.stored_tensors import check_tensor, check_type, shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_AGAIN = "copy or export the model again"
_UPGRADE = "upgrade onnx and onnxruntime, or export the model with an older opset"
_BODIES = frozenset({onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS})
_ONNX_NAMES = frozenset({"", "ai.onnx"})


def check_proto(proto: onnx.ModelProto, where: str) -> None:
    """Refuse a model that is broken in a way that building it would hide.

    Args:
        proto: The parsed file.
        where: The file, for messages.

    Raises:
        ModelError: With the first thing that is wrong.
    """
    _check_ir_version(proto.ir_version, where)
    for imports in (proto.opset_import, *(f.opset_import for f in proto.functions)):
        _check_opsets(imports, where)
    check_functions(proto, where)
    for function in proto.functions:
        inside = f"{where}, function {function.name!r}"
        _check_made_once([*function.input, *_outputs(function.node)], inside)
    # Walked once: a hostile file may hold hundreds of thousands.
    own = list(_attributes_of(proto.graph.node))
    attributes = [*own, *_function_attributes(proto)]
    graphs = [proto.graph, *(body for attribute in attributes for body in _bodies(attribute))]
    for graph in graphs:
        _check_graph(graph, where)
    for attribute in attributes:
        _check_attribute(attribute, where)
    for attribute in own:
        if attribute.ref_attr_name:
            code, name = "graph.attribute_reference", shortened(attribute.name)
            text = f"attribute {name!r} refers to one of a function, but lies in none"
            raise ModelError(code, text, where=where, remedy=_AGAIN)
    for tensor in _tensors(graphs, attributes):
        check_tensor(tensor, where)


def stored_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Initializers and tensor attributes, those of subgraphs and functions too."""
    attributes = [*_attributes_of(proto.graph.node), *_function_attributes(proto)]
    graphs = [proto.graph, *(body for attribute in attributes for body in _bodies(attribute))]
    yield from _tensors(graphs, attributes)


def _tensors(
    graphs: Iterable[onnx.GraphProto], attributes: Iterable[onnx.AttributeProto]
) -> Iterator[onnx.TensorProto]:
    for graph in graphs:
        yield from graph.initializer
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors


def _check_ir_version(version: int, where: str) -> None:
    newest = int(onnx.IR_VERSION)
    if not limits.OLDEST_IR <= version <= newest:
        text = f"IR version {version}, where {limits.OLDEST_IR} to {newest} are known"
        msg = "graph.ir_version"
        raise ModelError(msg, text, where=where, remedy=_UPGRADE)


def _check_opsets(imports: Iterable[onnx.OperatorSetIdProto], where: str) -> None:
    seen: dict[str, int] = {}
    for entry in imports:
        domain = "ai.onnx" if entry.domain in _ONNX_NAMES else entry.domain
        newest = limits.OTHER_OPSET
        if domain == "ai.onnx":
            newest = onnx.defs.onnx_opset_version()
        text = ""
        if not 1 <= entry.version <= newest:
            text = f"opset {entry.version} of domain {domain!r}, where 1 to {newest} are known"
        elif seen.setdefault(domain, entry.version) != entry.version:
            text = f"domain {domain!r} is imported in two versions"
        if text:
            msg = "graph.opset_version"
            raise ModelError(msg, text, where=where, remedy=_UPGRADE)


def _check_graph(graph: onnx.GraphProto, where: str) -> None:
    inputs = [value.name for value in graph.input]
    made = [*inputs, *_outputs(graph.node)]
    _check_made_once(made, where)
    stored = [tensor.name for tensor in graph.initializer]
    _check_made_once([*stored, *_outputs(graph.node)], where)
    if "" in stored:
        code, text = "graph.nameless", "an initializer without a name, which nothing can read"
        raise ModelError(code, text, where=where, remedy=_AGAIN)
    if graph.sparse_initializer:
        code, text = "graph.sparse", "it holds sparse initializers, which onnxq does not read"
        raise ModelError(code, text, where=where, remedy="export it with dense weights")
    for value in (*graph.input, *graph.output, *graph.value_info):
        check_type(value.type, f"{where}, value {value.name!r}")


def _check_made_once(names: Sequence[str], where: str) -> None:
    if len(set(names)) == len(names):
        return
    doubled = [name for name, count in Counter(names).items() if count > 1 and name]
    if doubled:
        code, text = "graph.doubled", f"two values are called {shortened(doubled[0])!r}"
        raise ModelError(code, text, where=where, remedy=_AGAIN)


def _outputs(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    for node in nodes:
        yield from node.output


def _check_attribute(attribute: onnx.AttributeProto, where: str) -> None:
    text = ""
    if attribute.type == onnx.AttributeProto.UNDEFINED:
        text = f"attribute {shortened(attribute.name)!r} has no type, or one that is not known"
    elif attribute.ref_attr_name and attribute.type in _BODIES:
        text = f"attribute {shortened(attribute.name)!r} is a body by reference"
    if text:
        msg = "graph.attribute_type"
        raise ModelError(msg, text, where=where, remedy=_AGAIN)


def _function_attributes(proto: onnx.ModelProto) -> Iterator[onnx.AttributeProto]:
    for function in proto.functions:
        yield from function.attribute_proto
        yield from _attributes_of(function.node)


def _attributes_of(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.AttributeProto]:
    """The attributes of nodes and of those in their bodies; no recursion."""
    todo = [nodes]
    while todo:
        for node in todo.pop():
            for attribute in node.attribute:
                yield attribute
                todo += [body.node for body in _bodies(attribute)]


def _bodies(attribute: onnx.AttributeProto) -> Iterator[onnx.GraphProto]:
    if attribute.HasField("g"):
        yield attribute.g
    yield from attribute.graphs
