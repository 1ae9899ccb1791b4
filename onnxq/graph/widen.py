"""A model in half precision computes in float32 inside, where its target does so anyway.

Cases, for each type that is widened:
    - an input of the model, also one with a default: keeps its type, and a Cast follows;
    - an output of the model: keeps its type behind a Cast;
    - initializers: cast, lazily, with their origin (``derived.py``), so that they can be stored
      narrow again;
    - attributes that name the type (``to``, ``dtype``, ...) or hold tensors of it;
    - values of subgraphs, and sequences of such tensors;
    - Casts that then cast float32 to float32: gone.
Declined, with the reason: functions that could not be inlined, inputs or outputs that are sequences
or optionals of the type, types as attributes, BitCast, and models that shape inference refuses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxq.graph.derived import Converted, Deriver
from onnxq.graph.edit import nodes_below, remove_if_unread
from onnxq.graph.shapes import infer_shapes
from onnxq.graph.tensors import all_tensors

if TYPE_CHECKING:
    from collections.abc import Iterable

_TYPE_ATTRIBUTES = ("to", "dtype", "output_datatype", "softmax_precision", "stash_type")
_WIDE = ir.DataType.FLOAT
_CODES = frozenset(kind.value for kind in ir.DataType)


def widened(model: ir.Model, names: Iterable[str]) -> tuple[ir.Model, str]:
    """A model that computes in float32, and what was done in a sentence.

    Args:
        model: Without functions; its constants are initializers of the main graph.
        names: The types to widen, such as ``FLOAT16``.

    Returns:
        A clone and a note; the model itself and an empty note if it holds none of these types; the
        model itself and the reason if it cannot be widened.
    """
    narrow = frozenset(ir.DataType[name] for name in names)
    found = _types_inside(model) & narrow
    if not found:
        return model, ""
    said = " and ".join(sorted(kind.name for kind in found))
    why = _why_not(model, narrow)
    if not why:
        result = model.clone()
        _Widening(result, narrow).run()
        why = next((f"then {note}" for note in infer_shapes(result)), "")
    if why:
        return model, f"{said} inside the model stays: {why}"
    _drop_idle_casts(result)
    return result, f"{said} inside the model is computed in float32; inputs and outputs keep it"


def _types_inside(model: ir.Model) -> set[ir.DataType]:
    kinds = {tensor.dtype for tensor in all_tensors(model)}
    kinds.update(value.dtype for value in model.graph.inputs if value.dtype is not None)
    for node in nodes_below(model.graph):
        kinds.update(ir.DataType(code) for _, code in _type_codes(node))
    return kinds


def _type_codes(node: ir.Node) -> list[tuple[str, int]]:
    """Attributes that name an element type."""
    present = [name for name in _TYPE_ATTRIBUTES if name in node.attributes]
    return [
        (name, node.attributes[name].as_int())
        for name in present
        if node.attributes[name].type == ir.AttributeType.INT
        and not node.attributes[name].is_ref()
        and node.attributes[name].as_int() in _CODES
    ]


def _why_not(model: ir.Model, narrow: frozenset[ir.DataType]) -> str:
    if model.functions:
        return "a function of the model could not be inlined"
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.dtype in narrow and not isinstance(value.type, ir.TensorType):
            return f"{value.name!r} is a sequence or an optional"
    for node in nodes_below(model.graph):
        kinds = {attribute.type for attribute in node.attributes.values()}
        typed = {ir.AttributeType.TYPE_PROTO, ir.AttributeType.TYPE_PROTOS} & kinds
        if typed or node.op_type == "BitCast":
            return f"{node.op_type} {node.name!r} depends on the type"
    return ""


class _Widening:
    def __init__(self, model: ir.Model, narrow: frozenset[ir.DataType]) -> None:
        self.model = model
        self.narrow = narrow
        self.derive = Deriver(model)

    def run(self) -> None:
        outputs = [v for v in self.model.graph.outputs if v.dtype in self.narrow]
        kinds = {value: value.dtype for value in outputs}
        for graph in list(self.model.graphs()):
            for value in list(graph.initializers.values()):
                self._initializer(value)
            if graph is not self.model.graph:
                for value in graph.inputs:
                    self._value(value)
            for node in graph:
                self._node(node)
        for value in self.model.graph.inputs:
            self._input(value)
        for value in dict.fromkeys(outputs):
            dtype = kinds[value]
            if value.producer() is not None and dtype is not None:
                self._output(value, dtype)

    def _value(self, value: ir.Value) -> None:
        # The type itself is shared with the model that this one was cloned from.
        if value.dtype in self.narrow:
            value.type = _wide(value.type)

    def _node(self, node: ir.Node) -> None:
        for name, code in _type_codes(node):
            if code in self.narrow:
                node.attributes[name] = ir.AttrInt64(name, int(_WIDE))
        for name, attribute in list(node.attributes.items()):
            if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                tensor = attribute.as_tensor()
                if tensor.dtype in self.narrow:
                    array = Converted(_WIDE).of(tensor.numpy())
                    node.attributes[name] = ir.AttrTensor(name, ir.tensor(array))
        for output in node.outputs:
            self._value(output)

    def _initializer(self, value: ir.Value) -> None:
        if value.is_graph_input() or value.const_value is None or value.dtype not in self.narrow:
            return
        if value.graph is self.model.graph:
            self._read_instead(value, self.derive(value, (Converted(_WIDE),), "float"))
            remove_if_unread(value)
        else:
            value.const_value = ir.tensor(Converted(_WIDE).of(value.const_value.numpy()))
            value.type = ir.TensorType(_WIDE)

    def _input(self, value: ir.Value) -> None:
        if value.dtype not in self.narrow or not value.uses():
            return
        cast = self._cast(value, _WIDE)
        self._read_instead(value, cast.outputs[0], cast)
        self.model.graph.insert_before(self.model.graph[0], cast)

    def _output(self, value: ir.Value, dtype: ir.DataType) -> None:
        cast = self._cast(value, dtype)
        result, outputs = cast.outputs[0], self.model.graph.outputs
        result.shape = value.shape
        for index, output in enumerate(list(outputs)):
            if output is value:
                outputs[index] = result
        value.name, result.name = result.name, value.name
        self.model.graph.append(cast)

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Node:
        name = self.derive.fresh(f"{value.name}.{dtype.name.lower()}")
        output = ir.Value(name=name, type=ir.TensorType(dtype), shape=value.shape)
        node_name = self.derive.fresh(f"{name}/Cast")
        return ir.node("Cast", [value], {"to": int(dtype)}, outputs=[output], name=node_name)

    @staticmethod
    def _read_instead(value: ir.Value, other: ir.Value, but: ir.Node | None = None) -> None:
        """Let every node that reads ``value`` read ``other``; outputs of graphs stay."""
        for use in list(value.uses()):
            if use.node is not but:
                use.node.replace_input_with(use.idx, other)


def _wide(kind: ir.TypeProtocol | None) -> ir.TypeProtocol:
    if isinstance(kind, ir.SequenceType):
        return ir.SequenceType(_wide(kind.elem_type))
    if isinstance(kind, ir.OptionalType):
        return ir.OptionalType(_wide(kind.elem_type))
    return ir.TensorType(_WIDE)


def _drop_idle_casts(model: ir.Model) -> None:
    for node in list(nodes_below(model.graph)):
        value = node.inputs[0] if node.op_type == "Cast" and not node.domain else None
        if value is None or node.graph is None or node.outputs[0].is_graph_output():
            continue
        if value.dtype == _WIDE and node.attributes.get_int("to", 0) == _WIDE:
            node.outputs[0].replace_all_uses_with(value)
            node.graph.remove(node, safe=True)
