"""Lints without a process for each model, for tests of many models in processes that may die."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import patch

from onnxq.errors import ModelError
from onnxq.lint import lint
from onnxq.runtime.apart import Loaded
from onnxq.runtime.kernels import executed

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.lint import Finding


def failing(model: Path, target: str) -> tuple[Finding, ...]:
    """What ``onnxq lint`` would fail for: errors and warnings.

    Args:
        model: A model file.
        target: What it is to run on.
    """
    with patch("onnxq.lint.examine.load_apart", _load_here):
        return lint(model, target).counting


def _load_here(model: Path, provider: str) -> Loaded:
    try:
        return Loaded(tuple(executed(model, provider)))
    except ModelError as error:
        return Loaded(refusal=error.message)
