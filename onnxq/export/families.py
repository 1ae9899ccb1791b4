"""Which way a checkpoint is exported, by its task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.export.checkpoint import open_checkpoint
from onnxq.export.huggingface import load_model, require_transformers
from onnxq.export.opened import Opened
from onnxq.export.tasks import task_of

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.export.options import ExportOptions
    from onnxq.export.spec import ExportSpec


def open_folder(folder: Path, options: ExportOptions) -> Opened:
    """Look at a checkpoint folder.

    Raises:
        UsageError: As :func:`open_checkpoint`, :func:`task_of`.
    """
    checkpoint = open_checkpoint(folder, weights=options.weights, code=options.code)
    require_transformers()
    task = task_of(checkpoint, options.task)

    def load() -> tuple[ExportSpec, ...]:
        from onnxq.export.decoder import decoder_spec

        model = load_model(checkpoint, task, options)
        return (decoder_spec(model, cached=options.cache == "with-past", where=str(folder)),)

    return Opened(str(folder), load, task=task.name, checkpoint=folder)
