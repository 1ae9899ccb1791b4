"""The report of a comparison: one file that opens in a browser and loads nothing."""

from onnxq.compare.report.limits import ReportLimits
from onnxq.compare.report.write import check_report, write_report

__all__ = ["ReportLimits", "check_report", "write_report"]
