"""PyTorch to ONNX, verified against PyTorch.

``torch.onnx.export(dynamo=True)`` traces the module with its named dynamic axes; the result is run
beside the module on at least three sets of inputs with different shapes (one if no axis is
dynamic), and only a model that agrees is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from onnxq.errors import OnnxqError
from onnxq.export.calls import shapes_of
from onnxq.export.inputs import input_sets
from onnxq.export.opened import open_source
from onnxq.export.options import ExportOptions, chosen_opset
from onnxq.export.source import Source, require_torch
from onnxq.export.spec import ExportedInput, ExportedModel, ExportResult, Tolerance
from onnxq.export.trace import trace
from onnxq.export.verify import verify
from onnxq.graph import io
from onnxq.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir


def export(
    source: Source | Path,
    output: str | Path,
    *,
    options: ExportOptions | None = None,
    tolerance: Tolerance | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ExportResult:
    """Export a PyTorch module to ONNX and verify the result.

    Args:
        source: ``"pkg.module:factory"`` (the current working directory is importable), a factory
            without arguments, or an `ExportSpec`. A factory returns an `ExportSpec`, or a tuple
            of the module and its example inputs. Or the folder of a Hugging Face checkpoint.
        output: The ONNX file to write; nothing is left there if the export fails.
        options: How to export it; ``ExportOptions()`` if None.
        tolerance: How far outputs may be from PyTorch's; ``Tolerance()`` if None.
        progress: Called with the number of steps done (tracing, each comparison, writing) and of
            all steps.

    Raises:
        UsageError: If PyTorch is missing, the source cannot be resolved, the example inputs do not
            fit the module, the module cannot be traced, or an axis turns out not to be dynamic.
        BoundMissedError: If an output is further from PyTorch's than the tolerance allows.
    """
    options = options or ExportOptions()
    io.check_output(output)
    opset = chosen_opset(options)
    require_torch()
    opened = open_source(source, options)
    (specification,) = opened.load()
    tolerance = tolerance or Tolerance()
    sets = input_sets(specification, opened.where)
    steps = len(sets) + len(specification.checks) + 2
    report = progress or (lambda done, total: None)

    specification.module.eval()
    model = trace(specification, sets[0], opened.where, opset)
    report(1, steps)
    with Scratch() as folder:
        candidate = folder / "model.onnx"
        io.save(model, candidate)
        worst = verify(
            specification,
            candidate,
            sets,
            tolerance=tolerance,
            progress=lambda done, _: report(1 + done, steps),
        )
    io.save(model, output)
    report(steps, steps)
    written = ExportedModel(
        path=Path(output),
        opset=model.opset_imports[""],
        inputs=tuple(_described(value) for value in model.graph.inputs),
        outputs=tuple(value.name or "" for value in model.graph.outputs),
        verified_shapes=tuple(shapes_of(inputs) for inputs in sets),
        worst=worst,
        tolerance=tolerance,
    )
    return ExportResult(Path(output), (written,), opened.task, opened.checkpoint)


def _described(value: ir.Value) -> ExportedInput:
    if value.shape is None or value.dtype is None:
        code, text = "export.untyped_input", f"input {value.name!r} has no type"
        raise OnnxqError(code, text)
    shape = tuple(axis if isinstance(axis, int) else str(axis.value) for axis in value.shape)
    return ExportedInput(value.name or "", str(value.dtype.numpy()), shape)
