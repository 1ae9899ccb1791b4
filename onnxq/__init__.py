"""Quantize ONNX models, prove that they are still right, and measure that they are faster.

The functions mirror the command line; each returns a frozen, typed result and refuses with one of
the errors below :class:`OnnxqError`. Importing this package loads nothing heavy: a name is fetched
from its module when it is first used.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

from onnxq._version import __version__

if TYPE_CHECKING:
    from onnxq.bundle import BundleResult, bundle
    from onnxq.compare.compare import ComparedRun, Comparison, compare
    from onnxq.compare.divergence import Agreement, Divergence, diverge
    from onnxq.compare.report import ReportLimits, write_report
    from onnxq.data.reading import Reading
    from onnxq.errors import (
        BoundMissedError,
        DataError,
        InputError,
        InternalError,
        ModelError,
        OnnxqError,
        PlanError,
        ProviderError,
        RecipeError,
        UsageError,
    )
    from onnxq.export import ExportOptions, ExportResult, ExportSpec, Tolerance, export
    from onnxq.lint.finding import Finding
    from onnxq.lint.run import LintResult, lint
    from onnxq.pipeline import (
        CalibrationRun,
        InspectedSite,
        Inspection,
        QuantizeResult,
        RunOptions,
        apply,
        calibrate,
        inspect,
        quantize,
    )
    from onnxq.plan import Plan
    from onnxq.recipe import Recipe, load_recipe
    from onnxq.runtime.custom_ops import custom_ops
    from onnxq.runtime.timing import TimingSettings
    from onnxq.stages.calibration_table import CalibrationTable, export_calibration_table
    from onnxq.verify.verification import Verification

__all__ = [
    "Agreement",
    "BoundMissedError",
    "BundleResult",
    "CalibrationRun",
    "CalibrationTable",
    "ComparedRun",
    "Comparison",
    "DataError",
    "Divergence",
    "ExportOptions",
    "ExportResult",
    "ExportSpec",
    "Finding",
    "InputError",
    "InspectedSite",
    "Inspection",
    "InternalError",
    "LintResult",
    "ModelError",
    "OnnxqError",
    "Plan",
    "PlanError",
    "ProviderError",
    "QuantizeResult",
    "Reading",
    "Recipe",
    "RecipeError",
    "ReportLimits",
    "RunOptions",
    "TimingSettings",
    "Tolerance",
    "UsageError",
    "Verification",
    "__version__",
    "apply",
    "bundle",
    "calibrate",
    "compare",
    "custom_ops",
    "diverge",
    "export",
    "export_calibration_table",
    "inspect",
    "lint",
    "load_recipe",
    "quantize",
    "write_report",
]

_HOMES = {
    "onnxq.bundle": ("BundleResult", "bundle"),
    "onnxq.compare.compare": ("ComparedRun", "Comparison", "compare"),
    "onnxq.compare.report": ("ReportLimits", "write_report"),
    "onnxq.compare.divergence": ("Agreement", "Divergence", "diverge"),
    "onnxq.data.reading": ("Reading",),
    "onnxq.errors": (
        "BoundMissedError",
        "DataError",
        "InputError",
        "InternalError",
        "ModelError",
        "OnnxqError",
        "PlanError",
        "ProviderError",
        "RecipeError",
        "UsageError",
    ),
    "onnxq.export": ("ExportOptions", "ExportResult", "ExportSpec", "Tolerance", "export"),
    "onnxq.lint.finding": ("Finding",),
    "onnxq.lint.run": ("LintResult", "lint"),
    "onnxq.pipeline": (
        "CalibrationRun",
        "InspectedSite",
        "Inspection",
        "QuantizeResult",
        "RunOptions",
        "apply",
        "calibrate",
        "inspect",
        "quantize",
    ),
    "onnxq.plan": ("Plan",),
    "onnxq.recipe": ("Recipe", "load_recipe"),
    "onnxq.runtime.custom_ops": ("custom_ops",),
    "onnxq.runtime.timing": ("TimingSettings",),
    "onnxq.stages.calibration_table": ("CalibrationTable", "export_calibration_table"),
    "onnxq.verify.verification": ("Verification",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Fetch a public name from its module."""
    if name not in _HOME:
        msg = f"module 'onnxq' has no attribute {name!r}"
        raise AttributeError(msg)
    found: object = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)


class _Package(ModuleType):
    """Keeps ``bundle``, ``compare``, ``export`` and ``lint`` functions, though rooms are called so.

    Importing a room sets it as an attribute here, which would hide the function of that name. The
    rooms are reached as ever by ``from onnxq.export import ...``.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, ModuleType) and name in _HOME:
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
