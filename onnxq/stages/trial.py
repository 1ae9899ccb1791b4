"""Try a plan: the error of the whole quantized model's output against the float model's."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

from onnxq.calibration.session import open_model
from onnxq.passes.execute import execute
from onnxq.verify.fidelity import compare_outputs

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxq.data import DataSource
    from onnxq.plan import Plan


def whole_model_error(model: ir.Model, plan: Plan, data: DataSource) -> float:
    """Noise over signal of the first float output, pooled over ``data``.

    Without a float output it is the share of elements of the first output that differ. Infinite if
    the result is not finite or nothing could be compared.

    Args:
        model: The normalized float model.
        plan: What is tried.
        data: Calibration samples.
    """
    with open_model(model) as reference, open_model(execute(plan, model)) as result:
        found = compare_outputs(reference, result, data, independent=False)
    if found.not_finite:
        return math.inf
    if found.sqnr_db is None:
        return math.inf if found.equal_share is None else 1 - found.equal_share
    exponent = -found.sqnr_db / 10
    # Past the greatest float a power raises; NaN is as bad.
    return float(10**exponent) if exponent < sys.float_info.max_10_exp else math.inf
