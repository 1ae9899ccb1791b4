"""One small function a rule that can be repaired safely; importing this registers all of them."""

from __future__ import annotations

from onnxq.lint.fixes import biases, forms, integers, order, pairs, tables  # noqa: F401 - importing registers
from onnxq.lint.fixes.registry import registered

__all__ = ["registered"]
