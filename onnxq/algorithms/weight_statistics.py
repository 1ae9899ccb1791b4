"""What a weight looks like to a quantizer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from onnxq.algorithms.weight_rounding import rounded_params
from onnxq.graph.tensors import chunks
from onnxq.numerics.affine import fake_quantize
from onnxq.numerics.metrics import ErrorMeter
from onnxq.numerics.schemes import WEIGHT_INT8, PerAxis

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class WeightStatistics:
    """Statistics of one weight.

    Attributes:
        shape: Its shape.
        peak: Greatest magnitude.
        deviation: Standard deviation around 0.
        channel_spread: Greatest over median of the channels' greatest magnitudes; large values are
            why one scale for the whole tensor is not enough.
        sqnr_db: Of the weight itself when it is rounded to int8 per channel.
    """

    shape: tuple[int, ...]
    peak: float
    deviation: float
    channel_spread: float
    sqnr_db: float


def describe_weight(weight: NDArray[np.generic], axis: int | None) -> WeightStatistics | None:
    """Statistics of a float weight; None of one that is empty or not finite.

    Args:
        weight: The weight.
        axis: Its output-channel axis; the first where it is unknown.
    """
    values = np.asarray(weight, np.float32, order="C")
    if values.size == 0 or values.ndim == 0 or not np.isfinite(values).all():
        return None
    axis = axis or 0
    others = tuple(i for i in range(values.ndim) if i != axis)
    peaks = np.maximum(values.max(axis=others), -values.min(axis=others))
    median = float(np.median(peaks))
    scheme = replace(WEIGHT_INT8, granularity=PerAxis(axis))
    rounded = fake_quantize(values, rounded_params(values, scheme))
    # Sums in float64, over stretches so that no copy of the whole weight is made for them.
    meter = ErrorMeter()
    for exact, found in zip(chunks(values), chunks(rounded), strict=True):
        meter.add(exact, found)
    return WeightStatistics(
        shape=tuple(values.shape),
        peak=float(peaks.max()),
        deviation=float(np.sqrt(meter.signal / values.size)),
        channel_spread=float(peaks.max()) / median if median > 0 else np.inf,
        sqnr_db=meter.sqnr_db,
    )
