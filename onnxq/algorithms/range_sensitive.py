"""Operators that 16-bit floats do not suit, as data: each with the reason.

What an operator's types forbid is not here (``graph/half_slots.py``), nor what overflows on
calibration data; this is what no sample shows, because it depends on small differences, on values
near zero or on long sums. LayerNormalization, Softmax, Conv, MatMul and the like are not here
either: providers that compute in 16 bits accumulate them in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_GROWS = "its result is wrong by as many parts as its argument is by absolute error"
_SUM = "it adds up whole axes, where rounding of each sum accumulates"
_SQUARES = "squares need twice the range of what they are made of"
_NEAR_ZERO = "a small argument that rounds to zero makes its result infinite"
_STEP = "a step makes a whole unit of a rounding error"
_TIES = "values that round to the same have another order"
_ANGLE = "an angle of many turns has to be exact to a part of one"
_PLACES = "places in an image have to be exact to a part of a pixel"
_STEEP = "it is infinitely steep at the end of its range"
_SEEN = "what rounds to zero, or to the same, is another answer"

RANGE_SENSITIVE: Final[Mapping[str, str]] = {
    "Acos": _STEEP,
    "Acosh": _STEEP,
    "ArgMax": _TIES,
    "ArgMin": _TIES,
    "Asin": _STEEP,
    "Atanh": _STEEP,
    "BitCast": "it hands on the bits of its argument",
    "Ceil": _STEP,
    "Cos": _ANGLE,
    "Cosh": _GROWS,
    "CumProd": _SUM,
    "CumSum": _SUM,
    "Det": _SQUARES,
    "Dropout": "it draws random numbers",
    "DFT": _SUM,
    "Equal": _SEEN,
    "Exp": _GROWS,
    "Floor": _STEP,
    "Greater": _SEEN,
    "GreaterOrEqual": _SEEN,
    "GridSample": _PLACES,
    "InstanceNormalization": _SUM,
    "LRN": _SQUARES,
    "Less": _SEEN,
    "LessOrEqual": _SEEN,
    "LinearAttention": _SUM,
    "Log": _NEAR_ZERO,
    "LpNormalization": _SQUARES,
    "LpPool": _SQUARES,
    "MaxRoiPool": _PLACES,
    "MeanVarianceNormalization": _SQUARES,
    "Mod": _STEP,
    "NonZero": _SEEN,
    "Pow": _SQUARES,
    "Range": "counting by a rounded step misses the end",
    "Reciprocal": _NEAR_ZERO,
    "ReduceL1": _SUM,
    "ReduceL2": _SQUARES,
    "ReduceLogSum": _SUM,
    "ReduceLogSumExp": _GROWS,
    "ReduceMean": _SUM,
    "ReduceProd": _SUM,
    "ReduceSum": _SUM,
    "ReduceSumSquare": _SQUARES,
    "RoiAlign": _PLACES,
    "Round": _STEP,
    "STFT": _SUM,
    "Sign": _STEP,
    "Sin": _ANGLE,
    "Sinh": _GROWS,
    "Sqrt": _NEAR_ZERO,
    "Tan": _ANGLE,
    "TopK": _TIES,
    "Unique": _SEEN,
}
"""Operators of ONNX that stay float32, and why."""

EXACT_ARGUMENTS: Final = frozenset(
    {"Cast", "Ceil", "Cos", "Floor", "Mod", "Range", "Round", "Sin", "Tan"}
)
"""Of those that stay float32, the ones for which what computes their argument alone stays too."""

MOVING: Final = frozenset(
    {
        "Cast",
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Identity",
        "MaxPool",
        "ReduceMax",
        "ReduceMin",
        "Relu",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators that make no value greater than those they read."""
