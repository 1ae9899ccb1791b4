"""PyTorch to ONNX, verified against PyTorch.

``torch.onnx.export(dynamo=True)`` traces the module with its named dynamic axes; the result is run
beside the module on at least three sets of inputs with different shapes (one if no axis is
dynamic), and only a model that agrees is written.
"""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from onnxq.errors import OnnxqError, UsageError
from onnxq.export.inputs import input_sets, shapes_of
from onnxq.export.names import name_after_modules
from onnxq.export.source import Source, one_line, require_torch, resolve
from onnxq.export.spec import ExportedInput, ExportResult, ExportSpec, Tolerance
from onnxq.export.verify import verify
from onnxq.graph import io
from onnxq.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import onnx_ir as ir
    from torch import Tensor


def export(
    source: Source,
    output: str | Path,
    *,
    opset: int | None = None,
    tolerance: Tolerance | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ExportResult:
    """Export a PyTorch module to ONNX and verify the result.

    Args:
        source: ``"pkg.module:factory"`` (the current working directory is importable), a factory
            without arguments, or an `ExportSpec`. A factory returns an `ExportSpec`, or a tuple
            of the module and its example inputs.
        output: The ONNX file to write; nothing is left there if the export fails.
        opset: Operator set version; PyTorch's default if None.
        tolerance: How far outputs may be from PyTorch's; ``Tolerance()`` if None.
        progress: Called with the number of steps done (tracing, each comparison, writing) and of
            all steps.

    Raises:
        UsageError: If PyTorch is missing, the source cannot be resolved, the example inputs do not
            fit the module, the module cannot be traced, or an axis turns out not to be dynamic.
        BoundMissedError: If an output is further from PyTorch's than the tolerance allows.
    """
    io.check_output(output)
    require_torch()
    specification = resolve(source)
    tolerance = tolerance or Tolerance()
    where = source if isinstance(source, str) else type(specification.module).__name__
    sets = input_sets(specification, where)
    steps = len(sets) + 2
    report = progress or (lambda done, total: None)

    specification.module.eval()
    model = trace(specification, sets[0], where, opset)
    report(1, steps)
    with Scratch() as folder:
        candidate = folder / "model.onnx"
        io.save(model, candidate)
        worst = verify(
            specification.module,
            candidate,
            sets,
            tolerance=tolerance,
            progress=lambda done, _: report(1 + done, steps),
        )
    io.save(model, output)
    report(steps, steps)
    return ExportResult(
        path=Path(output),
        opset=model.opset_imports[""],
        inputs=tuple(_described(value) for value in model.graph.inputs),
        outputs=tuple(value.name or "" for value in model.graph.outputs),
        verified_shapes=tuple(shapes_of(inputs) for inputs in sets),
        worst=worst,
        tolerance=tolerance,
    )


def trace(
    specification: ExportSpec, inputs: Mapping[str, Tensor], where: str, opset: int | None
) -> ir.Model:
    """Run PyTorch's exporter and clean its result: nodes named after modules, no stack traces.

    Raises:
        UsageError: If the module cannot be traced or an axis is not dynamic.
    """
    import torch

    dynamic = {name: dict(specification.dynamic_axes.get(name, {})) for name in inputs}
    try:
        with _quiet():
            program = torch.onnx.export(
                specification.module,
                args=(),
                kwargs=dict(inputs),
                dynamo=True,
                dynamic_shapes=dynamic if any(dynamic.values()) else None,
                output_names=list(specification.output_names) or None,
                opset_version=opset,
                optimize=True,
                verbose=False,
            )
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        text = f"PyTorch cannot export {type(specification.module).__name__}: {one_line(cause)}"
        raise UsageError(code="export.cannot_export", message=text, where=where) from error
    if program is None:
        code, text = "export.cannot_export", "PyTorch's exporter returned nothing"
        raise UsageError(code, text, where=where)
    model: ir.Model = program.model
    name_after_modules(model)
    _check_dynamic(model, specification, where)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence PyTorch's remarks on its own inside; what fails still raises."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


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


def _described(value: ir.Value) -> ExportedInput:
    if value.shape is None or value.dtype is None:
        code, text = "export.untyped_input", f"input {value.name!r} has no type"
        raise OnnxqError(code, text)
    shape = tuple(axis if isinstance(axis, int) else str(axis.value) for axis in value.shape)
    return ExportedInput(value.name or "", str(value.dtype.numpy()), shape)
