"""The public list: what is in it, and that importing it is light."""

from __future__ import annotations

import importlib
import subprocess
import sys
import types

import pytest

import onnxq

PUBLIC = [
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


def test_public_list() -> None:
    assert sorted(onnxq.__all__) == sorted(PUBLIC)
    assert dir(onnxq) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    found = getattr(onnxq, name)
    assert isinstance(found, str) or found.__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="unbundle"):
        getattr(onnxq, "unbundle")  # noqa: B009 - a type checker knows that it is not there


@pytest.mark.parametrize("name", ["bundle", "compare", "export", "lint"])
def test_functions_are_not_hidden_by_the_rooms_of_their_name(name: str) -> None:
    room = importlib.import_module(f"onnxq.{name}")
    assert isinstance(room, types.ModuleType)
    assert isinstance(getattr(onnxq, name), types.FunctionType)


def test_importing_is_light() -> None:
    heavy = ("torch", "onnxruntime", "onnx", "onnx_ir", "numpy", "pydantic", "click")
    code = f"import sys, onnxq; sys.exit([m for m in {heavy!r} if m in sys.modules] or 0)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
