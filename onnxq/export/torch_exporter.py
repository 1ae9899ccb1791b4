"""PyTorch to ONNX, verified against PyTorch.

``torch.onnx.export(dynamo=True)`` traces each module with its named dynamic axes; the result is run
beside the module on at least three sets of inputs with different shapes (one if no axis is
dynamic), and only what agrees is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from onnxq.errors import OnnxqError
from onnxq.export.calls import shapes_of
from onnxq.export.inputs import input_sets
from onnxq.export.opened import open_source
from onnxq.export.options import ExportOptions, chosen_opset
from onnxq.export.precision import TOLERANCES, VERIFIED_IN_FLOAT32, dtype_of, in_float32, in_type
from onnxq.export.source import Source, require_torch
from onnxq.export.spec import (
    Difference,
    ExportedInput,
    ExportedModel,
    ExportResult,
    ExportSpec,
    Tolerance,
)
from onnxq.export.trace import trace
from onnxq.export.verify import verify
from onnxq.graph import io
from onnxq.graph.new_folder import new_folder
from onnxq.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

    from onnxq.export.options import Dtype


def export(
    source: Source | Path,
    output: str | Path,
    *,
    options: ExportOptions | None = None,
    tolerance: Tolerance | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ExportResult:
    """Export a PyTorch model to ONNX and verify the result.

    Args:
        source: The folder of a Hugging Face checkpoint; an ExportedProgram or a TorchScript file;
            ``"pkg.module:factory"`` (the current
            working directory is importable), a factory without arguments, or an `ExportSpec`. A
            factory returns an `ExportSpec`, or a tuple of the module and its example inputs.
        output: The ONNX file to write; of an encoder with its decoder a folder, which does not
            exist yet or is empty. Nothing is left there if the export fails.
        options: How to export it; ``ExportOptions()`` if None.
        tolerance: How far outputs may be from PyTorch's; by the type that is computed in if None.
        progress: Called with the number of steps done (tracing, each comparison, writing) and of
            all steps.

    Raises:
        UsageError: If PyTorch is missing, the source cannot be resolved, an option does not apply
            to it, the example inputs do not fit the module, the module cannot be traced, or an axis
            turns out not to be dynamic; or the output is one of the source's own files.
        BoundMissedError: If an output is further from PyTorch's than the tolerance allows.
    """
    options = options or ExportOptions()
    target = Path(output)
    opset = chosen_opset(options)
    require_torch()
    opened = open_source(source, options)
    opened.check_output(target)
    specifications = opened.load()
    places = [target / name for name in opened.files] or [target]
    jobs = [
        _Job(_typed(specification, options.dtype), opened.where, place, tolerance)
        for specification, place in zip(specifications, places, strict=True)
    ]
    steps = _Steps(sum(job.steps for job in jobs) + 1, progress)
    with new_folder(target) if opened.files else io.staging(target) as staged:
        models = tuple(
            job.run(opset, staged / job.place.name if opened.files else staged, steps)
            for job in jobs
        )
        if not opened.files:
            io.publish(staged, target)
    steps()
    return ExportResult(target, models, opened.task, opened.checkpoint)


class _Steps:
    """Counts what is done."""

    def __init__(self, count: int, report: Callable[[int, int], None] | None) -> None:
        self.count = count
        self.done = 0
        self.report = report

    def __call__(self) -> None:
        self.done += 1
        if self.report:
            self.report(self.done, self.count)


def _typed(specification: ExportSpec, dtype: Dtype) -> ExportSpec:
    if dtype == "keep" or dtype == dtype_of(specification):
        return specification
    return in_type(specification, dtype)


class _Job:
    """One ONNX file: what it is exported from, and where it will lie."""

    def __init__(
        self, specification: ExportSpec, where: str, place: Path, tolerance: Tolerance | None
    ) -> None:
        self.specification = specification
        self.where = where
        self.place = place
        self.sets = input_sets(specification, where)
        self.dtype = dtype_of(specification)
        self.tolerance = tolerance or TOLERANCES[self.dtype]
        self.steps = 1 + len(self.sets) + len(specification.checks)

    def run(self, opset: int, path: Path, step: Callable[[], None]) -> ExportedModel:
        """Write the file to ``path`` and verify it."""
        model = trace(self.specification, self.sets[0], self.where, opset)
        step()
        io.save(model, path)
        narrow = self.dtype == "bfloat16"
        worst = self._verified_in_float32(model, step) if narrow else self._verified(path, step)
        return ExportedModel(
            path=self.place,
            opset=model.opset_imports[""],
            inputs=tuple(_described(value) for value in model.graph.inputs),
            outputs=tuple(value.name or "" for value in model.graph.outputs),
            verified_shapes=tuple(shapes_of(inputs) for inputs in self.sets),
            worst=worst,
            tolerance=self.tolerance,
            notes=(VERIFIED_IN_FLOAT32,) if narrow else (),
        )

    def _verified(self, path: Path, step: Callable[[], None]) -> Difference:
        return verify(self.specification, path, self.sets, tolerance=self.tolerance, progress=step)

    def _verified_in_float32(self, model: ir.Model, step: Callable[[], None]) -> Difference:
        wide = in_type(self.specification, "float32")
        with Scratch() as folder:
            path = folder / self.place.name
            io.save(in_float32(model, self.where), path)
            sets = input_sets(wide, self.where)
            return verify(wide, path, sets, tolerance=self.tolerance, progress=step)


def _described(value: ir.Value) -> ExportedInput:
    if value.shape is None or value.dtype is None:
        code, text = "export.untyped_input", f"input {value.name!r} has no type"
        raise OnnxqError(code, text)
    shape = tuple(axis if isinstance(axis, int) else str(axis.value) for axis in value.shape)
    return ExportedInput(value.name or "", str(value.dtype.numpy()), shape)
