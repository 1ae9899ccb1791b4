"""From a PyTorch model to a verified ONNX model. Importing this needs no PyTorch."""

from onnxq.export.bundled import Processing, export_with_processing
from onnxq.export.options import ExportOptions
from onnxq.export.spec import (
    Check,
    Compared,
    Difference,
    ExportedInput,
    ExportedModel,
    ExportResult,
    ExportSpec,
    Tolerance,
)
from onnxq.export.torch_exporter import export

__all__ = [
    "Check",
    "Compared",
    "Difference",
    "ExportOptions",
    "ExportResult",
    "ExportSpec",
    "ExportedInput",
    "ExportedModel",
    "Processing",
    "Tolerance",
    "export",
    "export_with_processing",
]
