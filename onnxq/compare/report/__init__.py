"""The report of a comparison: one file that opens in a browser and loads nothing."""

from onnxq.compare.report.limits import Limits


__all__ = ["Limits"]
