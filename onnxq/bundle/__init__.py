"""Pre- and postprocessing as graphs, joined to a model: one file that takes images or texts."""

from onnxq.bundle.agreement import Agreement
from onnxq.bundle.bundling import BundleResult, bundle

__all__ = ["Agreement", "BundleResult", "bundle"]
