"""Pre- and postprocessing as graphs, joined to a model: one file that takes images or texts."""

from onnxq.bundle.agreement import Agreement
from onnxq.bundle.bundling import BundleResult, bundle
from onnxq.bundle.checkpoint import says_outputs

__all__ = ["Agreement", "BundleResult", "bundle", "says_outputs"]
