"""Recurrent sites: the two weights of an LSTM, quantized per gate and unit.

``W`` is ``[directions, 4 hidden, input]`` and ``R`` is ``[directions, 4 hidden, hidden]``; every
row of both gets a scale of its own. The kernel quantizes input and state at run time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from onnxq.algorithms.weight_rounding import rounded_params
from onnxq.graph.edit import constant_array, is_overridable
from onnxq.numerics.schemes import PerAxis
from onnxq.plan import DynamicRecurrentEntry

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from onnxq.numerics.schemes import Scheme

_W, _R = 1, 2


def why_recurrent_stays(model: ir.Model, node: ir.Node) -> str:
    """Why an LSTM stays as it is; empty if both weights can be integers."""
    if node.attributes.get_int("layout", 0):
        return "it has the batch first (layout = 1), which the integer kernel does not know"
    for index in (_W, _R):
        value = node.inputs[index] if index < len(node.inputs) else None
        array = constant_array(value)
        if value is None or array is None or array.dtype != np.float32:
            return f"its input {index} is no float32 constant"
        if not value.is_initializer() or is_overridable(value, model):
            return f"{value.name!r} is also an input of the model, so a caller may replace it"
        if value.is_graph_output():
            return f"its weight {value.name!r} is also an output of the model"
        if not np.isfinite(array).all():
            return f"its constant {value.name!r} holds values that are NaN or infinite"
    return ""


def recurrent_scales(
    node: ir.Node, scheme: Scheme
) -> tuple[DynamicRecurrentEntry, dict[str, NDArray[np.float32]]]:
    """The entry of a plan and the scales, ``[directions, 4 hidden]``, of both weights.

    Args:
        node: An LSTM that :func:`why_recurrent_stays` has nothing against.
        scheme: The integers of weights.
    """
    names, arrays = [], {}
    for index in (_W, _R):
        value = node.inputs[index]
        name = (value.name or "") if value is not None else ""
        weight = np.asarray(constant_array(value), np.float32)
        rows = weight.reshape(-1, weight.shape[-1])
        scale = rounded_params(rows, replace(scheme, granularity=PerAxis(0))).scale
        arrays[f"weight/{name}/scale"] = scale.reshape(weight.shape[:2])
        names.append(name)
    entry = DynamicRecurrentEntry(
        node=node.name or "", weights=(names[0], names[1]), bits=scheme.bits
    )
    return entry, arrays
