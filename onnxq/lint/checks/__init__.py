"""One small function a rule; importing this package registers all of them."""

from __future__ import annotations

from onnxq.lint.checks import (  # noqa: F401 - importing registers
    anywhere,
    cpu_accuracy,
    cpu_fusion,
    cpu_loading,
    cpu_speed,
    cuda,
    float8,
    tensorrt,
)
from onnxq.lint.checks.registry import registered

__all__ = ["registered"]
