"""What a model takes, gives, holds and computes."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxq.graph.edit import all_nodes, constant_tensor, static_shape
from onnxq.graph.tensors import weight_bytes
from onnxq.graph.vocabulary import looked_up_rows, scored_input

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

Dims = tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What the model wants for one input.

    Attributes:
        name: The input's name.
        dtype: The element type; None if the input is no tensor (a sequence, map or optional).
        shape: A number where the length is fixed, a name where it is symbolic, None where it is
            unknown. If not even the rank is known, it is empty and ``rank_known`` is False.
        required: False where an initializer gives the default.
        rank_known: Whether ``shape`` says how many dimensions there are.
        rows: Of the smallest table that its numbers index; None if it indexes none.
        scored: Whether the model gives logits over those rows: it is a language model's tokens.
    """

    name: str
    dtype: np.dtype | None
    shape: Dims
    required: bool
    rank_known: bool = True
    rows: int | None = None
    scored: bool = False


@dataclass(frozen=True, slots=True)
class ValueSummary:
    """An input or output as ``inspect`` shows it.

    Attributes:
        name: Its name.
        type_text: Its type in words, e.g. ``FLOAT`` or ``Sequence(Tensor(INT64))``.
        shape: As in :class:`InputSpec`; None if the rank is unknown.
    """

    name: str
    type_text: str
    shape: Dims | None


@dataclass(frozen=True, slots=True)
class Summary:
    """A model in numbers.

    Attributes:
        ops: How often each operator occurs, the commonest first; other domains as ``domain::op``.
        nodes: Number of nodes, those of subgraphs and functions included.
        functions: Number of model-local functions.
        parameters: Number of elements in all initializers.
        weight_bytes: Their size in bytes.
        opsets: Version by domain; the ONNX domain is ``""``.
        ir_version: The file format's version.
        producer: Who wrote the model, with version; may be empty.
        inputs: The inputs that have no default.
        outputs: The outputs.
    """

    ops: Mapping[str, int]
    nodes: int
    functions: int
    parameters: int
    weight_bytes: int
    opsets: Mapping[str, int]
    ir_version: int
    producer: str
    inputs: tuple[ValueSummary, ...]
    outputs: tuple[ValueSummary, ...]


def signature(model: ir.Model) -> tuple[InputSpec, ...]:
    """The inputs of a model, in their order."""
    rows = {
        value.name or "": found
        for value in model.graph.inputs
        if _is_integer(value) and (found := looked_up_rows(value)) is not None
    }
    flat = {value.name for value in model.graph.inputs if value.shape and len(value.shape) == 2}
    scored = scored_input(model, {name: rows[name] for name in rows if name in flat})
    return tuple(
        InputSpec(
            name=value.name or "",
            dtype=numpy_dtype(value),
            shape=_dims(value) or (),
            required=not value.is_initializer(),
            rank_known=value.shape is not None,
            rows=rows.get(value.name or ""),
            scored=scored is not None and value.name == scored,
        )
        for value in model.graph.inputs
    )


def _is_integer(value: ir.Value) -> bool:
    dtype = numpy_dtype(value)
    return dtype is not None and dtype.kind in "iu"


def domains(model: ir.Model) -> frozenset[str]:
    """The domains of all its operators."""
    return frozenset(node.domain for node in all_nodes(model))


def numpy_dtype(value: ir.Value) -> np.dtype | None:
    """The element type of a tensor as numpy has it; None for other types and unknown ones."""
    if not isinstance(value.type, ir.TensorType):
        return None
    try:
        return value.type.dtype.numpy()
    except TypeError:
        return None


def summary(model: ir.Model) -> Summary:
    """Count what a model holds; reads no weights."""
    nodes = list(all_nodes(model))
    ops = Counter(f"{n.domain}::{n.op_type}" if n.domain else n.op_type for n in nodes)
    tensors = [
        value.const_value
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    ]
    producer = f"{model.producer_name or ''} {model.producer_version or ''}".strip()
    return Summary(
        ops=dict(sorted(ops.items(), key=lambda item: (-item[1], item[0]))),
        nodes=len(nodes),
        functions=len(model.functions),
        parameters=sum(tensor.size for tensor in tensors),
        weight_bytes=weight_bytes(model),
        opsets=dict(model.opset_imports),
        ir_version=model.ir_version or 0,
        producer=producer,
        inputs=tuple(_summarize(v) for v in model.graph.inputs if not v.is_initializer()),
        outputs=tuple(_summarize(v) for v in model.graph.outputs),
    )


def macs(node: ir.Node, shapes: Mapping[str, tuple[int, ...]] | None = None) -> int | None:
    """Multiply-accumulates of one run of a node.

    MatMul and Gemm: elements of the output times the inner length. Conv: elements of the output
    times input channels of a group times kernel volume. ConvTranspose: elements of the *input*
    times output channels of a group times kernel volume. LSTM, GRU, RNN: elements of W and R times
    steps and batch. Gather multiplies nothing.

    Args:
        node: The node.
        shapes: Observed shapes by value name; they win over those that the graph declares.

    Returns:
        The count, or None if a shape is missing or the operator is none of these.
    """
    if node.domain:
        return None
    if node.op_type == "Gather":
        return 0
    counter = {
        "MatMul": _matmul_macs,
        "Gemm": _gemm_macs,
        "Conv": _conv_macs,
        "ConvTranspose": _conv_transpose_macs,
        "GRU": _recurrent_macs,
        "LSTM": _recurrent_macs,
        "RNN": _recurrent_macs,
    }.get(node.op_type)
    if counter is None or len(node.inputs) < 2:
        return None
    known = shapes or {}
    first, second = (_shape(value, known) for value in node.inputs[:2])
    output = _shape(node.outputs[0], known)
    if first is None or second is None or (output is None and node.op_type not in _BY_INPUT):
        return None
    return counter(node, first, second, output or ())


_Shape = tuple[int, ...]
_BY_INPUT = frozenset({"ConvTranspose", "GRU", "LSTM", "RNN"})
"""Counted by the elements of their input; a recurrent node often leaves its first output out."""


def _matmul_macs(_: ir.Node, left: _Shape, __: _Shape, output: _Shape) -> int | None:
    return math.prod(output) * left[-1] if left else None


def _gemm_macs(node: ir.Node, left: _Shape, _: _Shape, output: _Shape) -> int | None:
    if len(left) != 2:
        return None
    transposed = node.attributes.get_int("transA", 0)
    return math.prod(output) * left[0 if transposed else 1]


def _conv_macs(_: ir.Node, __: _Shape, kernel: _Shape, output: _Shape) -> int | None:
    return math.prod(output) * math.prod(kernel[1:])


def _conv_transpose_macs(_: ir.Node, data: _Shape, kernel: _Shape, __: _Shape) -> int | None:
    return math.prod(data) * math.prod(kernel[1:])


def _recurrent_macs(node: ir.Node, data: _Shape, kernel: _Shape, _: _Shape) -> int | None:
    recurrence = _shape(node.inputs[2], {}) if len(node.inputs) > 2 else None
    if recurrence is None or len(data) != 3:
        return None
    return data[0] * data[1] * (math.prod(kernel) + math.prod(recurrence))


def _shape(value: ir.Value | None, known: Mapping[str, _Shape]) -> _Shape | None:
    if value is None:
        return None
    if value.name and value.name in known:
        return known[value.name]
    tensor = constant_tensor(value)
    return static_shape(value) if tensor is None else tuple(tensor.shape.numpy())


def _summarize(value: ir.Value) -> ValueSummary:
    text = "unknown" if value.type is None else _type_text(value.type)
    return ValueSummary(value.name or "", text, _dims(value))


def _type_text(kind: ir.TypeProtocol) -> str:
    if isinstance(kind, ir.TensorType):
        return kind.dtype.name
    return str(kind)


def _dims(value: ir.Value) -> Dims | None:
    if value.shape is None:
        return None
    return tuple(_dim(dim) for dim in value.shape)


def _dim(dim: int | ir.SymbolicDim) -> int | str | None:
    """Some exporters write -1 or "?" for a length that is not known."""
    if isinstance(dim, int):
        return dim if dim >= 0 else None
    return None if dim.value == "?" else dim.value
