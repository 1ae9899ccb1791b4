"""The version of onnxq."""

__version__ = "0.1.0"
