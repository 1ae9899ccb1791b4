"""Try a plan: the error of the whole quantized model's first output against the float model's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from onnxq.calibration.session import open_model
from onnxq.passes.execute import execute
from onnxq.verify.fidelity import compare_outputs

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxq.data import DataSource
    from onnxq.plan import Plan


def whole_model_error(model: ir.Model, plan: Plan, data: DataSource) -> float:
    """Noise over signal of the first output, pooled over ``data``; infinite if it is not finite.

    Args:
        model: The normalized float model.
        plan: What is tried.
        data: Calibration samples.
    """
    with open_model(model) as reference, open_model(execute(plan, model)) as result:
        found = compare_outputs(reference, result, data, independent=False)
    if found.not_finite or math.isnan(found.sqnr_db):
        return math.inf
    return float(10 ** (-found.sqnr_db / 10))
