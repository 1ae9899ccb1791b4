"""What onnxq does: each function runs in a process of its own."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from onnxq.pipeline import RunOptions
from onnxq.pipeline import calibrate as onnxq_calibrate
from onnxq.pipeline import quantize as onnxq_quantize
from onnxq.recipe import CalibrationSettings, Recipe, WeightSettings

if TYPE_CHECKING:
    from onnxq.recipe import CalibrationMethod, Scheme


def quantize(
    model: str,
    output: str,
    data: str | None,
    evaluation: str,
    method: CalibrationMethod = "auto",
    scheme: Scheme = "int8",
    block_size: Literal[16, 32, 64, 128, 256] | None = None,
    form: Literal["auto", "blocks", "folded", "dq"] = "auto",
) -> dict[str, Any]:
    """Quantize with onnxq: all of ``data`` calibrates, the result is checked on ``evaluation``.

    Without ``data`` the schemes that do without are left to themselves. The time is that of the
    whole call, the check included, but for timing the models.
    """
    begin = time.perf_counter()
    found = onnxq_quantize(
        model,
        data,
        output,
        recipe=Recipe(
            scheme=scheme,
            calibration=CalibrationSettings(method=method),
            weights=WeightSettings(form=form, block_size=block_size),
        ),
        options=RunOptions(eval_data=evaluation, timing=None),
    )
    seconds = time.perf_counter() - begin
    verified = found.verification
    return {
        "seconds": seconds,
        "calibration_seconds": found.calibration and found.calibration.seconds,
        "reused": found.calibration is not None and found.calibration.reused,
        "planned": verified and verified.kernels.planned,
        "integer": verified and verified.kernels.integer,
        "mac_share": verified and verified.kernels.mac_share,
        "warnings": found.warnings,
    }


def calibrate(model: str, data: str, method: CalibrationMethod) -> dict[str, Any]:
    """Calibrate with onnxq.

    ``seconds`` is the whole call, with reading and normalizing the model;
    ``collecting_seconds`` leaves these out.
    """
    recipe = Recipe(calibration=CalibrationSettings(method=method))
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        run = onnxq_calibrate(model, data, Path(folder) / "stats.safetensors", recipe=recipe)
        seconds = time.perf_counter() - begin
    return {
        "seconds": seconds,
        "collecting_seconds": run.seconds,
        "samples": run.samples,
        "reused": run.reused,
    }
