"""The version of the ONNX operators a model uses, raised only where a scheme needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx_ir.passes import common
from onnxscript import version_converter

from onnxq.errors import ModelError
from onnxq.graph import native
from onnxq.graph.edit import OVERRIDABLE_SINCE_IR, all_nodes, clone
from onnxq.graph.names import UniqueNamesPass
from onnxq.graph.shapes import leave_unnamed, through_proto

if TYPE_CHECKING:
    import onnx_ir as ir

MICROSOFT = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""

_CONVERTER_FROM = 18
_WIDE_SINCE = 21


def opset_version(model: ir.Model) -> int:
    """The version of the ONNX domain; 0 if the model imports none."""
    return model.opset_imports.get("", 0)


def conversion_domain(model: ir.Model, bits: int) -> str:
    """The domain of QuantizeLinear and DequantizeLinear for integers of a width, imported.

    ONNX's own take 16 bits from opset 21 on. Below, ONNX Runtime's do, so that no operator of the
    model has to be converted.
    """
    if bits <= 8 or opset_version(model) >= _WIDE_SINCE:
        return ""
    model.opset_imports.setdefault(MICROSOFT, 1)
    return MICROSOFT


def raise_opset(model: ir.Model, minimum: int) -> ir.Model:
    """A model of at least opset ``minimum``; the same object if it is that already.

    Weights are shared, not copied. The IR version is raised with it where the opset needs that.

    Raises:
        ModelError: If an operator cannot be converted.
    """
    if opset_version(model) >= minimum:
        return model
    result = clone(model)
    try:
        if result.functions:
            result = _inlined(result)
        if opset_version(model) < _CONVERTER_FROM:
            result = _convert_with_onnx(result, min(minimum, _CONVERTER_FROM))
        if opset_version(result) < minimum:
            version_converter.ConvertVersionPass(minimum)(result)
    except Exception as error:  # onnx and onnxscript raise several unrelated types
        raise _failed(model, minimum, " ".join(str(error).split())[:200]) from error
    if opset_version(result) < minimum:
        raise _failed(model, minimum, "the converter left it unchanged")
    leave_unnamed(model, result)
    # Raised to a newer IR version, initializers among the inputs would become mere defaults.
    if (model.ir_version or 0) < OVERRIDABLE_SINCE_IR:
        common.RemoveInitializersFromInputsPass()(result)
    imports = [onnx.helper.make_opsetid(d, v) for d, v in result.opset_imports.items()]
    known = [entry for entry in imports if entry.domain in {"", "ai.onnx.ml"}]
    needed = onnx.helper.find_min_ir_version_for(known)
    result.ir_version = max(result.ir_version or 0, needed)
    return result


def _inlined(model: ir.Model) -> ir.Model:
    """Without functions: converters leave them at their own opset, where they fit no more."""
    domains = {domain for domain, _, _ in model.functions}
    UniqueNamesPass()(model)
    unused = common.RemoveUnusedFunctionsPass()  # type: ignore[no-untyped-call]
    result = common.InlinePass()(unused(model).model).model
    for domain in domains - {node.domain for node in all_nodes(result)}:
        result.opset_imports.pop(domain, None)
    return result


def _convert_with_onnx(model: ir.Model, version: int) -> ir.Model:
    """Convert by onnx's own converter, which knows the older opsets, without the weights."""
    inputs = [value.name for value in model.graph.inputs]
    tensors = {v.name: v.const_value for v in model.graph.initializers.values()}
    others = {d: v for d, v in model.opset_imports.items() if d}

    def convert(proto: onnx.ModelProto) -> onnx.ModelProto:
        # Before, the converter takes no weight that is not an input too, which exporters forget.
        proto.ir_version = max(proto.ir_version, OVERRIDABLE_SINCE_IR)
        return native.call("convert", proto, version)

    converted = through_proto(model, convert)
    for value in list(converted.graph.inputs):
        tensor = tensors.get(value.name)
        if tensor is not None and not value.is_initializer():
            value.const_value = tensor
            converted.graph.register_initializer(value)
    kept = [value for value in converted.graph.inputs if value.name in inputs]
    converted.graph.inputs.clear()
    converted.graph.inputs.extend(kept)
    model.graph = converted.graph
    for domain, number in others.items():
        model.opset_imports.setdefault(domain, number)
    return model


def _failed(model: ir.Model, minimum: int, why: str) -> ModelError:
    code = "graph.opset"
    text = f"opset {opset_version(model)} cannot be raised to {minimum}: {why}"
    remedy = f"export the model again with opset {minimum} or newer"
    return ModelError(code, text, where=model.graph.name or "model", remedy=remedy)
