"""Runs PyTorch's exporter and cleans its result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnxq.errors import OnnxqError, UsageError
from onnxq.export.calls import arguments
from onnxq.export.names import name_after_modules
from onnxq.export.qat import drop_idle_clips, with_fixed_fake_quantizers
from onnxq.export.quiet import quiet
from onnxq.export.script import trace_script
from onnxq.export.source import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from onnxq.export.spec import ExportSpec


def trace(
    specification: ExportSpec, inputs: Mapping[str, Tensor], where: str, opset: int
) -> ir.Model:
    """Export a module: nodes named after modules, axes as the specification names them.

    Raises:
        UsageError: If the module cannot be traced or an axis is not dynamic.
    """
    import torch

    script = isinstance(specification.module, torch.jit.ScriptModule)
    try:
        with quiet():
            if script:
                model = trace_script(specification, inputs, where, opset)
            else:
                model = _trace_module(specification, inputs, opset)
    except OnnxqError:
        raise
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        text = f"PyTorch cannot export {type(specification.module).__name__}: {one_line(cause)}"
        raise UsageError(code="export.cannot_export", message=text, where=where) from error
    drop_idle_clips(model)
    if not script:
        name_after_modules(model)
    _name_axes(model, specification.axis_names)
    _check_dynamic(model, specification, where)
    return model


def _trace_module(specification: ExportSpec, inputs: Mapping[str, Tensor], opset: int) -> ir.Model:
    import torch

    axes = {name: dict(specification.dynamic_axes.get(name, {})) for name in inputs}
    module = with_fixed_fake_quantizers(specification.module)
    positional, named = arguments(module, inputs)
    # What *tensors takes is one argument to PyTorch, a tuple.
    dynamic: Any = axes
    if positional:
        dynamic = (tuple(axes.values()),)
    program = torch.onnx.export(
        module,
        args=positional,
        kwargs=named,
        dynamo=True,
        dynamic_shapes=dynamic if any(axes.values()) else None,
        input_names=list(inputs),
        output_names=list(specification.output_names) or None,
        opset_version=opset,
        optimize=True,
        verbose=False,
    )
    if program is None:
        msg = "the exporter returned nothing"
        raise RuntimeError(msg)
    model: ir.Model = program.model
    return model


def _name_axes(model: ir.Model, names: Mapping[str, str]) -> None:
    if not names:
        return
    values = [*model.graph.inputs, *(out for node in model.graph for out in node.outputs)]
    for value in values:
        if value.shape is not None:
            value.shape = ir.Shape(
                [
                    names.get(str(axis.value), axis) if isinstance(axis, ir.SymbolicDim) else axis
                    for axis in value.shape
                ]
            )


def _check_dynamic(model: ir.Model, specification: ExportSpec, where: str) -> None:
    inputs = {value.name: value for value in model.graph.inputs}
    for name, axes in specification.dynamic_axes.items():
        value = inputs.get(name)
        if value is None or value.shape is None:
            text = f"input {name!r} does not reach the exported model"
            remedy = "drop it from the example inputs"
            raise UsageError(code="export.input_lost", message=text, where=where, remedy=remedy)
        for axis, wanted in axes.items():
            if isinstance(value.shape[axis], int):
                text = f"axis {axis} ({wanted!r}) of input {name!r} is fixed by the module"
                remedy = f"leave it out of dynamic_axes; its length is {value.shape[axis]}"
                raise UsageError(code="export.fixed_axis", message=text, where=where, remedy=remedy)
