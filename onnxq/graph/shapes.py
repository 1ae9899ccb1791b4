"""Types and shapes of intermediate values, inferred without touching the weights.

Large initializers are turned into plain inputs of a clone before the clone is serialized, so that a
model of any size costs kilobytes here. What cannot be inferred is said, not swallowed: calibration
then learns the missing shapes from a run. ONNX's functions run where they can do no harm
(:mod:`onnxq.graph.native`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxq.graph import native
from onnxq.graph.tensors import all_tensors, in_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

_SMALL = 1024
"""Initializers of at most this many bytes stay: they may hold shapes to compute with."""


def infer_shapes(model: ir.Model) -> tuple[str, ...]:
    """Fill in missing types and shapes of intermediate values, in place.

    Inputs and outputs of the model keep exactly what they declare.

    Returns:
        Notes about what failed; empty if inference went through.
    """
    note = ""
    try:
        inferred = through_proto(model, lambda proto: native.call("infer", proto))
    except native.NativeDiedError as error:
        return (f"shape inference was left out: {error}",)
    except Exception as error:  # onnx_ir raises several unrelated types
        note = f"shape inference is incomplete: {' '.join(str(error).split())[:200]}"
        try:
            inferred = through_proto(model, lambda proto: native.call("infer_leniently", proto))
        except Exception as second:
            return (f"shape inference failed: {' '.join(str(second).split())[:200]}",)
    _merge(model, inferred)
    return (note,) if note else ()


def through_proto(
    model: ir.Model, function: Callable[[onnx.ModelProto], onnx.ModelProto]
) -> ir.Model:
    """Apply a function of onnx to a copy of the model that has no large weights.

    Small tensors go along, out of their file too: they may hold shapes. What stays in a file, such
    as a large weight of a subgraph, is bound to the model's folder again, which no proto names.
    """
    copy = model.clone()
    inputs = set(copy.graph.inputs)
    for value in tuple(copy.graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or value.name is None:
            continue
        if tensor.nbytes <= _SMALL:
            value.const_value = in_memory(tensor)
            continue
        copy.graph.initializers.pop(value.name)
        value.const_value = None
        if value not in inputs:
            copy.graph.inputs.append(value)
    outside = {str(t.location): t for t in all_tensors(copy) if isinstance(t, ir.ExternalTensor)}
    result = ir.serde.deserialize_model(function(ir.serde.serialize_model(copy)))
    for tensor in all_tensors(result):
        if isinstance(tensor, ir.ExternalTensor):
            original = outside[str(tensor.location)]
            tensor.base_dir = original.base_dir
            tensor.meta.update(original.meta)
    return result


def _merge(model: ir.Model, inferred: ir.Model) -> None:
    fixed = {*model.graph.inputs, *model.graph.outputs}
    for graph, other in zip(model.graphs(), inferred.graphs(), strict=True):
        known = {v.name: v for node in other for v in node.outputs if v.name}
        for node in graph:
            for value in node.outputs:
                found = known.get(value.name or "")
                if found is None or value in fixed:
                    continue
                if found.type is not None:
                    value.type = found.type
                if found.shape is not None:
                    value.shape = found.shape.copy()


def leave_unnamed(before: ir.Model, after: ir.Model) -> None:
    """A length of an output that had no name keeps none: shape inference makes one up."""
    for old, new in zip(before.graph.outputs, after.graph.outputs, strict=True):
        if old.shape is None or new.shape is None or old.shape.rank() != new.shape.rank():
            continue
        dims = [
            mine if isinstance(mine, int) or isinstance(own, int) or own.value else own
            for own, mine in zip(old.shape, new.shape, strict=True)
        ]
        new.shape = ir.Shape(dims)
