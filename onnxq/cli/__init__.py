"""The command line. Importing it loads neither ONNX Runtime nor PyTorch."""

from onnxq.cli.app import main

__all__ = ["main"]
