"""Recurrent sites: the two weights of an LSTM, quantized per gate and unit.

``W`` is ``[directions, 4 hidden, input]`` and ``R`` is ``[directions, 4 hidden, hidden]``; every
row of both gets a scale of its own. The kernel quantizes input and state at run time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from onnxq.algorithms.weight_rounding import rounded_params
from onnxq.graph.edit import constant_array
from onnxq.numerics.schemes import PerAxis
from onnxq.plan import DynamicRecurrentEntry

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from onnxq.numerics.schemes import Scheme

_W, _R = 1, 2


def why_recurrent_stays(node: ir.Node) -> str:
    """Why an LSTM with constant, finite weights stays as it is; empty if it can be quantized."""
    if node.attributes.get_int("layout", 0):
        return "it has the batch first (layout = 1), which the integer kernel does not know"
    return ""


def recurrent_scales(
    node: ir.Node, scheme: Scheme
) -> tuple[DynamicRecurrentEntry, dict[str, NDArray[np.float32]]]:
    """The entry of a plan and the scales, ``[directions, 4 hidden]``, of both weights.

    Args:
        node: An LSTM that :func:`why_recurrent_stays` has nothing against.
        scheme: The integers of its weights; the granularity is that of the kernel in any case.
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
