"""What a weight looks like to a quantizer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from onnxq.algorithms.weight_rounding import rounded_params
from onnxq.numerics.affine import fake_quantize
from onnxq.numerics.metrics import sqnr_db
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
    values = np.asarray(weight, np.float32)
    if values.size == 0 or values.ndim == 0 or not np.isfinite(values).all():
        return None
    channels = np.abs(np.moveaxis(values, axis or 0, 0).reshape(values.shape[axis or 0], -1))
    peaks = channels.max(axis=1)
    median = float(np.median(peaks))
    params = rounded_params(values, replace(WEIGHT_INT8, granularity=PerAxis(axis or 0)))
    error = (fake_quantize(values, params) - values).ravel()
    flat = values.ravel()
    signal = float(np.dot(flat, flat))
    return WeightStatistics(
        shape=tuple(values.shape),
        peak=float(peaks.max()),
        deviation=float(np.sqrt(signal / values.size)),
        channel_spread=float(peaks.max()) / median if median > 0 else np.inf,
        sqnr_db=sqnr_db(signal, float(np.dot(error, error))),
    )
