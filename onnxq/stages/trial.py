"""Try plans: the error of the whole quantized model's output against the float model's."""

from __future__ import annotations

import math
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from onnxq.calibration.session import open_model
from onnxq.passes.execute import execute
from onnxq.verify.fidelity import compare_outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import onnx_ir as ir

    from onnxq.data import DataSource
    from onnxq.plan import Plan
    from onnxq.runtime.session import Optimization
    from onnxq.verify.fidelity import Fidelity


@contextmanager
def trials(
    model: ir.Model, data: DataSource, optimization: Optimization = "all"
) -> Iterator[Callable[[Plan], float]]:
    """Open the float model once, and try plans against it.

    What is given tells a plan's error: noise over signal of the first float output, pooled over
    ``data``. Without a float output it is the share of elements of the first output that differ.
    Infinite if the result is not finite or nothing could be compared.

    Args:
        model: The normalized float model.
        data: Calibration samples.
        optimization: How far results are optimized.
    """
    with open_model(model) as reference:

        def error(plan: Plan) -> float:
            with open_model(execute(plan, model), optimization) as result:
                return _error(compare_outputs(reference, result, data, independent=False))

        yield error


def _error(found: Fidelity) -> float:
    if found.not_finite:
        return math.inf
    if found.sqnr_db is None:
        return math.inf if found.equal_share is None else 1 - found.equal_share
    exponent = -found.sqnr_db / 10
    # Past the greatest float a power raises; NaN is as bad.
    return float(10**exponent) if exponent < sys.float_info.max_10_exp else math.inf
