"""Which way a checkpoint is exported, by its task and by what its model reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxq.errors import UsageError
from onnxq.export.checkpoint import Checkpoint, open_checkpoint
from onnxq.export.huggingface import load_model, require_transformers
from onnxq.export.opened import Opened
from onnxq.export.options import check_options
from onnxq.export.tasks import SPEECH, TEXT_GENERATION, TEXT_TO_TEXT, Task, task_of

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.export.options import ExportOptions
    from onnxq.export.spec import ExportSpec

FILES = ("encoder.onnx", "decoder.onnx")
"""Of an encoder with its decoder, in the folder that is written."""

_WRITTEN = frozenset({".onnx", ".data"})
"""Endings of what an earlier export may have left in a checkpoint's folder."""


def open_folder(folder: Path, options: ExportOptions) -> Opened:
    """Look at a checkpoint folder.

    Raises:
        UsageError: As :func:`open_checkpoint`, :func:`task_of`, :func:`check_options`.
    """
    checkpoint = open_checkpoint(folder, weights=options.weights, code=options.code)
    require_transformers()
    task = task_of(checkpoint, options.task)
    both = task.name in {SPEECH, TEXT_TO_TEXT}
    cache = {"cache"} if both or task.name == TEXT_GENERATION else set()
    taken = {"task", "weights", "code", *cache}
    check_options(options, taken, f"a checkpoint folder for {task.name}", str(folder))

    def load() -> tuple[ExportSpec, ...]:
        model = load_model(checkpoint, task, options)
        cached = options.cache != "without-past"
        if both:
            from onnxq.export.encoder_decoder import encoder_decoder_specs

            return encoder_decoder_specs(model, cached=cached, where=str(folder))
        return (_spec(model, task, checkpoint, cached=cached),)

    files = FILES if both else ()
    return Opened(
        str(folder),
        load,
        files=files,
        task=task.name,
        checkpoint=folder,
        reads=tuple(path for path in folder.rglob("*") if path.suffix not in _WRITTEN),
    )


def _spec(model: Any, task: Task, checkpoint: Checkpoint, *, cached: bool) -> ExportSpec:
    from onnxq.export.decoder import decoder_spec
    from onnxq.export.encoder import image_spec, text_spec

    where = str(checkpoint.folder)
    if task.name == TEXT_GENERATION:
        return decoder_spec(model, cached=cached, where=where)
    reads = model.main_input_name
    if reads == "input_ids" and not model.config.is_encoder_decoder:
        return text_spec(model, task.outputs)
    if reads == "pixel_values":
        return image_spec(model, task.outputs, checkpoint.folder)
    name = type(model).__name__
    text = f"{name} reads {reads}, which is not exported for {task.name}"
    if model.config.is_encoder_decoder:
        text = f"{name} is an encoder with a decoder, which does not fit {task.name}"
    remedy = f"--task {TEXT_TO_TEXT} or {SPEECH}, or export it by a factory"
    raise UsageError(code="export.unknown_family", message=text, where=where, remedy=remedy)
