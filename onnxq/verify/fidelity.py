"""How close the quantized model's outputs are to the float model's, on given samples.

The first output is measured (DESIGN: SQNR pooled over all elements and samples); positions that an
attention mask marks as padding are left out. Every output is checked for NaN and Inf.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.numerics.metrics import AccuracyMeter, AgreementMeter, ErrorMeter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from onnxq.data import DataSource, Labels
    from onnxq.runtime.session import Session

_MASK = "attention_mask"


@dataclass(frozen=True, slots=True)
class Fidelity:
    """What the comparison found.

    Attributes:
        sqnr_db: Of the first output, pooled, decibels.
        cosine: Of the first output, pooled.
        max_error: Greatest absolute difference in the first output.
        top1_agreement: Share of rows with the same argmax; None where the output holds no scores.
        float_accuracy: Share of rows the float model gets right; None without labels.
        quantized_accuracy: The same of the quantized model.
        not_finite: Outputs that are NaN or Inf where the float model's are finite.
        samples: How many samples were compared.
        independent: Whether calibration saw none of them.
    """

    sqnr_db: float
    cosine: float
    max_error: float
    top1_agreement: float | None
    float_accuracy: float | None
    quantized_accuracy: float | None
    not_finite: tuple[str, ...]
    samples: int
    independent: bool


def compare_outputs(
    reference: Session,
    result: Session,
    data: DataSource,
    *,
    independent: bool,
    labels: Labels | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Fidelity:
    """Run both models on each sample and measure the difference; one sample is held at a time.

    Args:
        reference: The float model.
        result: The quantized model, with the same inputs and outputs.
        data: The samples to compare on.
        independent: Whether calibration saw none of them.
        labels: The right classes, for the accuracy of both.
        progress: Called with the samples done and all samples.
    """
    meters = _Meters(labels)
    for done, sample in enumerate(data, start=1):
        expected = reference.run(sample.feeds)
        found = result.run(sample.feeds)
        position = data.positions[done - 1]
        meters.add(expected[0], found[0], sample.feeds, position)
        for spec, good, value in zip(reference.outputs, expected, found, strict=True):
            meters.check_finite(spec.name, good, value)
        if progress is not None:
            progress(done, len(data))
    return meters.fidelity(len(data), independent)


class _Meters:
    def __init__(self, labels: Labels | None) -> None:
        self.error = ErrorMeter()
        self.agreement = AgreementMeter()
        self.accuracy = (AccuracyMeter(), AccuracyMeter())
        self.labels = labels
        self.bad: dict[str, None] = {}

    def add(
        self,
        expected: NDArray[Any],
        found: NDArray[Any],
        feeds: Mapping[str, NDArray[Any]],
        position: int,
    ) -> None:
        if expected.dtype.kind not in "f":
            return
        kept = _kept(expected, feeds)
        # An infinite output is found by check_finite; it is no reason for numpy to warn.
        with np.errstate(invalid="ignore", over="ignore"):
            self.error.add(expected[kept], found[kept])
        if expected.ndim == 2 and expected.shape[-1] > 1:
            self.agreement.add(expected, found)
            if self.labels is not None:
                right = self.labels.of(position)
                for meter, scores in zip(self.accuracy, (expected, found), strict=True):
                    meter.add(scores, right)

    def check_finite(self, name: str, expected: NDArray[Any], found: NDArray[Any]) -> None:
        if expected.dtype.kind == "f" and np.any(np.isfinite(expected) & ~np.isfinite(found)):
            self.bad[name] = None

    def fidelity(self, samples: int, independent: bool) -> Fidelity:
        floating, quantized = self.accuracy
        return Fidelity(
            sqnr_db=-math.inf if self.error.noise == math.inf else self.error.sqnr_db,
            cosine=self.error.cosine,
            max_error=self.error.worst,
            top1_agreement=self.agreement.agreement if self.agreement.rows else None,
            float_accuracy=floating.accuracy if floating.rows else None,
            quantized_accuracy=quantized.accuracy if quantized.rows else None,
            not_finite=tuple(self.bad),
            samples=samples,
            independent=independent,
        )


def _kept(output: NDArray[Any], feeds: Mapping[str, NDArray[Any]]) -> Any:
    """An index that leaves padded positions out; everything where there is no mask."""
    mask = feeds.get(_MASK)
    if mask is None or output.ndim < 2 or output.shape[:2] != mask.shape or mask.all():
        return ...
    return mask.astype(bool)
