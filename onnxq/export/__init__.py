"""From a PyTorch module to a verified ONNX model. Importing this needs no PyTorch."""

from onnxq.export.spec import Difference, ExportedInput, ExportResult, ExportSpec, Tolerance
from onnxq.export.torch_exporter import export

__all__ = ["Difference", "ExportResult", "ExportSpec", "ExportedInput", "Tolerance", "export"]
