"""Whether constants and an activation stay in the range of their number type when they are scaled.

A channel's greatest magnitude must not become infinite (in float16 beyond 65504), nor so small that
it loses bits (below 2^-14 there). What is smaller than it in its channel may: it then keeps the
precision that the greatest has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq.graph.edit import constant_tensor, node_by_name, value_by_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxq.algorithms.scaling_groups import ScalingGroup

_LIMITS = {
    kind: (float(np.finfo(kind.numpy()).tiny), float(np.finfo(kind.numpy()).max))
    for kind in (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)
}
# As many bits of exponent as float32, eight of mantissa.
_LIMITS[ir.DataType.BFLOAT16] = (2.0**-126, (2 - 2.0**-7) * 2.0**127)


def why_out_of_range(
    group: ScalingGroup,
    factor: NDArray[np.floating],
    model: ir.Model,
    peaks: NDArray[np.floating] | None = None,
) -> str:
    """Why scaling by these factors would leave the range of a number type; empty if it does not.

    Args:
        group: The group.
        factor: ``[K]``.
        model: The model of the group.
        peaks: ``[K]``, the greatest magnitude of each channel of the activation, if it is known.
    """
    if not (np.isfinite(factor).all() and (factor > 0).all()):
        return f"the factors of {group.tensor!r} are not all positive numbers"
    factor = np.asarray(factor, np.float64)
    nodes = node_by_name(model.graph)
    multiplied = [
        (nodes[reader.node].inputs[reader.input], axis, factor)
        for reader, axis in zip(group.weights, group.axes, strict=True)
    ]
    divided = [
        (nodes[p.node].inputs[p.input], p.axis, np.where(p.channels < 0, 1, 1 / factor[p.channels]))
        for p in group.fold.parameters
    ]
    reasons = [_why_constant(*constant) for constant in (*multiplied, *divided)]
    if peaks is not None:
        dtype = value_by_name(model.graph)[group.tensor].dtype
        reasons.append(_why(group.tensor, dtype, peaks, peaks / factor))
    return next(filter(None, reasons), "")


def _why_constant(value: ir.Value | None, axis: int, factor: NDArray[np.float64]) -> str:
    tensor = None if value is None else constant_tensor(value)
    if value is None or tensor is None:
        return ""
    array = tensor.numpy()
    array = array.reshape((1,) * (-axis - array.ndim) + array.shape)
    others = tuple(i for i in range(array.ndim) if i != axis % array.ndim)
    peaks = np.maximum(array.max(axis=others), -array.min(axis=others)).astype(np.float64)
    return _why(value.name or "", tensor.dtype, peaks, peaks * factor)


def _why(
    name: str,
    dtype: ir.DataType | None,
    before: NDArray[np.floating],
    after: NDArray[np.floating],
) -> str:
    kind = dtype or ir.DataType.FLOAT
    least, greatest = _LIMITS.get(kind, (0.0, np.inf))
    # What is infinite or tiny already does not count.
    if ((after > greatest) & (before <= greatest)).any():
        return f"{name!r} would overflow {kind.name}"
    if ((after < least) & (before >= least)).any():
        return f"{name!r} would underflow {kind.name}"
    return ""
