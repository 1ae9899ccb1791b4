"""Recurrent sites: the two weights of an LSTM, quantized per gate and unit.

``W`` is ``[directions, 4 hidden, input]`` and ``R`` is ``[directions, 4 hidden, hidden]``; every
row of both gets a scale of its own. The kernel quantizes input and state at run time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxq.algorithms.weight_rounding import rounded_params
from onnxq.graph.edit import constant_array
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
    inputs = (node.inputs[_W], node.inputs[_R])
    first, second = ("" if value is None else value.name or "" for value in inputs)
    entry = DynamicRecurrentEntry(
        node=node.name or "",
        weights=(first, second),
        bits=scheme.bits,
        pairwise=bool(scheme.pairs),
    )
    arrays = {}
    for name, value in zip(entry.weights, inputs, strict=True):
        weight = np.asarray(constant_array(value), np.float32)
        scale = rounded_params(weight.reshape(-1, weight.shape[-1]), entry.scheme).scale
        arrays[f"weight/{name}/scale"] = scale.reshape(weight.shape[:2])
    return entry, arrays
