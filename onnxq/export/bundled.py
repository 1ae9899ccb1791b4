"""Export and bundle in one step: from a PyTorch model to a file that takes images or texts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from onnxq.bundle import BundleResult, bundle, says_outputs
from onnxq.errors import UsageError
from onnxq.export.opened import open_source
from onnxq.export.options import ExportOptions
from onnxq.export.torch_exporter import export
from onnxq.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxq.export.source import Source
    from onnxq.export.spec import ExportResult

_CLASSIFIES: Final = ("image-classification", "text-classification")


@dataclass(frozen=True, slots=True)
class Processing:
    """What is put before and behind a model; of a checkpoint, by default, what its folder says.

    Attributes:
        pre: What makes the inputs.
        post: What becomes of the outputs.
    """

    pre: Path | None = None
    post: Path | None = None


def export_with_processing(
    source: Source | Path,
    output: str | Path,
    processing: Processing,
    *,
    options: ExportOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[ExportResult, BundleResult]:
    """Export a PyTorch model with its pre- and postprocessing inside.

    Args:
        source: As for :func:`onnxq.export.export`.
        output: The ONNX file to write.
        processing: What to put in; where it names nothing, what a checkpoint's folder says.
        options: How to export it.
        progress: As for :func:`onnxq.export.export`.

    Raises:
        UsageError: Nothing is named and the source is no checkpoint; or it is several models.
        OnnxqError: As the export, or as :func:`onnxq.bundle.bundle`.
    """
    output = Path(output)
    opened = open_source(source, options or ExportOptions())
    if opened.files:
        code, text = "export.several", "it becomes several models, which no preprocessing fits"
        raise UsageError(code, text, where=opened.where, remedy="Export it without.")
    opened.check_output(output)
    processing = _completed(processing, opened.checkpoint, opened.task, opened.where)
    with Scratch() as folder:
        plain = folder / output.name
        exported = export(source, plain, options=options, progress=progress)
        bundled = bundle(plain, output, pre=processing.pre, post=processing.post)
    models = tuple(replace(model, path=output) for model in exported.models)
    return replace(exported, path=output, models=models), bundled


def _completed(
    processing: Processing, checkpoint: Path | None, task: str, where: str
) -> Processing:
    if processing.pre is not None or processing.post is not None:
        return processing
    if checkpoint is None:
        code, text = "export.no_preprocessing", "it does not say what its preprocessing is"
        raise UsageError(code, text, where=where, remedy="Give --pre and --post.")
    knows = says_outputs(checkpoint) and (
        task in _CLASSIFIES or (checkpoint / "modules.json").is_file()
    )
    return Processing(checkpoint, checkpoint if knows else None)
