"""Constants that mask: so low that a Softmax makes zero of what they are added to.

Exporters write the least number of float32 (-3.4e38) or -1e9 where attention shall not look.
Rounded to float16 these are infinite, and a Softmax over a row that is masked throughout is NaN
then. The number itself does not matter: ``exp(-8192)`` is 0 in every type. So such a constant is
bounded to 8192, beside which the scores of attention are small, and of which three add up within
half the range of float16.

A constant is one of these only if every way from it leads to a Softmax or LogSoftmax, through
nothing but Add, Mul, Where and operators that hand on values. What is infinite stays so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from onnxq.algorithms.range_sensitive import MOVING
from onnxq.graph.edit import constant_array, consumers, is_overridable
from onnxq.graph.tensors import chunks
from onnxq.plan import MaskEntry

if TYPE_CHECKING:
    from onnxq.numerics.half import HalfType

MASK: Final = 8192.0
"""What a mask is bounded to; a number that float16 and bfloat16 have."""

_SAFE: Final = 0.5
"""A mask above this share of the range is bounded: scores are still added to it."""

_MASKED: Final = frozenset({"Softmax", "LogSoftmax"})
_ADDING: Final = frozenset({"Add", "Mul", "Where"}) | (MOVING - {"Relu"})


def find_masks(model: ir.Model, half: HalfType) -> tuple[MaskEntry, ...]:
    """The constants that only mask, and are too large for 16 bits.

    Args:
        model: A normalized model.
        half: The type that it is converted to.
    """
    return tuple(
        MaskEntry(initializer=name, magnitude=MASK)
        for name, value in model.graph.initializers.items()
        if value.dtype == ir.DataType.FLOAT
        and not is_overridable(value, model)
        and not value.is_graph_output()
        and _only_masks(value, model.graph)
        and _peak(value) > _SAFE * half.greatest
    )


def _peak(value: ir.Value) -> float:
    """The greatest finite magnitude."""
    array = constant_array(value)
    peak = 0.0
    for part in () if array is None else chunks(array):
        magnitude = np.abs(part[np.isfinite(part)])
        peak = max(peak, float(magnitude.max(initial=0.0)))
    return peak


def _only_masks(value: ir.Value, graph: ir.Graph) -> bool:
    todo, seen = [value], set[ir.Value]()
    while todo:
        here = todo.pop()
        if here in seen:
            continue
        seen.add(here)
        if here.is_graph_output():
            return False
        for node, _ in consumers(here):
            if node.domain or node.graph is not graph:
                return False
            if node.op_type in _MASKED:
                continue
            if node.op_type not in _ADDING or any(v.dtype != value.dtype for v in node.outputs):
                return False
            todo.extend(node.outputs)
    return bool(seen - {value})
