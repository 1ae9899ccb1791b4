"""Loads a checked checkpoint folder with transformers: offline, and no code but what is installed.

Attention is computed as plain matrix products ("eager"), which every quantizer and runtime knows.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from onnxq.errors import OnnxqError, UsageError, listed
from onnxq.export.isolated import isolated
from onnxq.export.quiet import quiet
from onnxq.export.source import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from onnxq.export.checkpoint import Checkpoint
    from onnxq.export.options import ExportOptions
    from onnxq.export.tasks import Task

_OFFLINE: Final = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")
# Weights that AutoModel adds and whose output is not exported.
_UNUSED: Final = ("pooler.",)


def require_transformers() -> None:
    """Refuse if transformers is not installed.

    Raises:
        UsageError: With the command that installs it.
    """
    try:
        with _offline():
            import transformers  # noqa: F401
    except ImportError as error:
        code, text = "export.no_transformers", "a checkpoint folder needs transformers"
        raise UsageError(code, text, remedy='pip install "onnxq[export]"') from error


def load_model(checkpoint: Checkpoint, task: Task, options: ExportOptions) -> Any:
    """Return the model in evaluation mode.

    Raises:
        UsageError: If transformers cannot load it, or weights are missing or have another shape.
    """
    import transformers

    where = str(checkpoint.folder)
    kind = checkpoint.dtype if options.dtype == "keep" else options.dtype
    try:
        with _offline(), quiet(), _silent(), _seen(checkpoint, options) as folder:
            model, report = getattr(transformers, task.loader).from_pretrained(
                str(folder),
                attn_implementation="eager",
                dtype=kind or "auto",
                local_files_only=True,
                output_loading_info=True,
                trust_remote_code=options.code == "checkpoint",
                use_safetensors=None if options.weights == "pickle" else True,
                weights_only=True,
            )
    except OnnxqError:
        raise
    except Exception as error:
        text = f"transformers cannot load it for {task.name}: {one_line(error)}"
        remedy = "check config.json, and --task if it was given"
        code = "export.cannot_load"
        raise UsageError(code, text, where=where, remedy=remedy) from error
    _check_weights(report, where)
    return model.eval().requires_grad_(False)


def _check_weights(report: dict[str, Any], where: str) -> None:
    """Transformers fills what is missing with random numbers."""
    missing = sorted(name for name in report["missing_keys"] if not _is_unused(name))
    if missing:
        text = f"{len(missing)} weights are missing: {listed(missing, 3)}"
        remedy = "the files belong to another architecture or task; --task names one"
        raise UsageError(code="export.missing_weights", message=text, where=where, remedy=remedy)
    wrong = sorted(str(item[0]) for item in report["mismatched_keys"])
    if wrong:
        text = f"{len(wrong)} weights have other shapes than config.json says: {listed(wrong, 3)}"
        raise UsageError(code="export.mismatched_weights", message=text, where=where)


def _is_unused(name: str) -> bool:
    return any(name.startswith(part) or f".{part}" in name for part in _UNUSED)


def _seen(checkpoint: Checkpoint, options: ExportOptions) -> AbstractContextManager[Path]:
    """The folder that is loaded; code that is trusted may read what lies beside it."""
    if options.code == "checkpoint":
        return nullcontext(checkpoint.folder.resolve())
    return isolated(checkpoint)


@contextmanager
def _offline() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _OFFLINE}
    os.environ.update(dict.fromkeys(_OFFLINE, "1"))
    # What was imported earlier has read the environment already.
    hub: Any = sys.modules.get("huggingface_hub.constants")
    online = hub is not None and not hub.HF_HUB_OFFLINE
    if online:
        hub.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        if online:
            hub.HF_HUB_OFFLINE = False
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _silent() -> Iterator[None]:
    """No bars and no remarks; what is wrong with the weights is in the report."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
