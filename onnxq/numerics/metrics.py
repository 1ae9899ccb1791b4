"""How close two models' outputs are: streaming meters, pooled over elements and samples.

Definitions::

    SQNR      = 10 log10(sum float^2 / sum (float - quantized)^2)       decibels, pooled
    cosine    = sum a b / sqrt(sum a^2 sum b^2)                         pooled
    agreement = share of rows whose argmax over the last axis is the same
    equality  = share of elements that are the same, for what is not float
    error     = sqrt(sum (a - b)^2 / sum a^2)                           of one pair of arrays

A meter holds a few sums in float64, never a sample, and two meters merge by addition. What is
measured of next tokens is in :mod:`onnxq.numerics.token_metrics`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_AT_ONCE: Final = 1 << 17
"""Elements in float64 at a time, 1 MiB: a window's logits would take hundreds."""


def sqnr_db(signal: float, noise: float) -> float:
    """Signal-to-quantization-noise ratio of two sums of squares, in decibels.

    Infinite where there is no noise, -infinite where there is noise and no signal or the noise is
    infinite, NaN where a sum is.
    """
    if math.isnan(signal) or math.isnan(noise):
        return math.nan
    if noise == 0:
        return math.inf
    if signal <= 0 or noise == math.inf:
        return -math.inf
    # A difference of logarithms: the quotient may underflow to zero.
    return 10 * (math.log10(signal) - math.log10(noise))


@dataclass(slots=True)
class ErrorMeter:
    """Sums from which SQNR, cosine and the greatest error follow.

    Attributes:
        signal: Sum of squares of the reference.
        noise: Sum of squares of the difference.
        other: Sum of squares of the result.
        product: Sum of products of reference and result.
        worst: Greatest absolute difference; NaN if one was.
        elements: How many elements were compared.
    """

    signal: float = 0.0
    noise: float = 0.0
    other: float = 0.0
    product: float = 0.0
    worst: float = 0.0
    elements: int = 0

    def add(self, reference: NDArray[np.floating], result: NDArray[np.floating]) -> None:
        """Compare two arrays of one shape; sums are taken in float64, part by part."""
        a, b = reference.reshape(-1), result.reshape(-1)
        for start in range(0, a.size, _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            self._add(np.asarray(a[part], np.float64), np.asarray(b[part], np.float64))

    def _add(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> None:
        difference = a - b
        self.signal += _dot(a, a)
        self.noise += _dot(difference, difference)
        self.other += _dot(b, b)
        self.product += _dot(a, b)
        self.elements += a.size
        self.worst = float(np.maximum(self.worst, np.abs(difference).max()))

    def merge(self, more: ErrorMeter) -> None:
        """Add the sums of ``more``."""
        self.signal += more.signal
        self.noise += more.noise
        self.other += more.other
        self.product += more.product
        self.worst = float(np.maximum(self.worst, more.worst))
        self.elements += more.elements

    @property
    def sqnr_db(self) -> float:
        """Signal-to-quantization-noise ratio in decibels."""
        return sqnr_db(self.signal, self.noise)

    @property
    def cosine(self) -> float:
        """Cosine of the angle between all references and all results; 1 if both are zero."""
        if self.signal == 0 and self.other == 0:
            return 1.0
        norm = math.sqrt(self.signal) * math.sqrt(self.other)
        return self.product / norm if norm != 0 else 0.0


def _dot(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Not by BLAS: at this size its threads wait for each other longer than they work."""
    return float(np.einsum("i,i->", a, b))


def relative_error(reference: NDArray[Any], result: NDArray[Any]) -> float:
    """How far two arrays are apart, from 0 for equal ones.

    Of floats sqrt(sum (a - b)^2 / sum a^2), over the elements where both are finite; of everything
    else the share of elements that differ. Infinite where shapes differ, where one is NaN or Inf
    and the other is not or is another, or where all of ``reference`` is zero and ``result`` is not.
    """
    if reference.shape != result.shape:
        return math.inf
    if reference.dtype.kind != "f" or result.dtype.kind != "f":
        same = np.count_nonzero(reference == result)
        return 1 - same / reference.size if reference.size else 0.0
    kept = np.isfinite(reference)
    if not kept.all():
        if not np.array_equal(reference[~kept], result[~kept], equal_nan=True):
            return math.inf
        reference, result = reference[kept], result[kept]
    meter = ErrorMeter()
    with np.errstate(invalid="ignore", over="ignore"):
        meter.add(reference, result)
    if not math.isfinite(meter.noise):
        return math.inf
    if meter.noise == 0:
        return 0.0
    return math.sqrt(meter.noise / meter.signal) if meter.signal else math.inf


@dataclass(slots=True)
class NotFinite:
    """Counts elements that are NaN or Inf in both of two arrays, which no error tells apart."""

    both: int = 0
    elements: int = 0

    def add(self, reference: NDArray[Any], result: NDArray[Any]) -> None:
        """Count one pair of arrays; of other shapes or types nothing is NaN or Inf in both."""
        self.elements += reference.size
        if reference.shape == result.shape and reference.dtype.kind == result.dtype.kind == "f":
            self.both += int(np.count_nonzero(~(np.isfinite(reference) | np.isfinite(result))))

    @property
    def all(self) -> bool:
        """Whether no element is left that an error could be of."""
        return self.both == self.elements


@dataclass(slots=True)
class AgreementMeter:
    """Counts rows whose argmax over the last axis is the same."""

    same: int = 0
    rows: int = 0

    def add(self, reference: NDArray[np.floating], result: NDArray[np.floating]) -> None:
        """Compare the argmax of each row."""
        equal = reference.argmax(axis=-1) == result.argmax(axis=-1)
        self.same += int(np.count_nonzero(equal))
        self.rows += int(equal.size)

    @property
    def agreement(self) -> float:
        """Share of rows with the same argmax; NaN without rows."""
        return self.same / self.rows if self.rows else math.nan


@dataclass(slots=True)
class EqualityMeter:
    """Counts elements that are the same."""

    same: int = 0
    elements: int = 0

    def add(self, reference: NDArray[Any], result: NDArray[Any]) -> None:
        """Compare two arrays of one shape: integers, booleans or strings."""
        self.same += int(np.count_nonzero(reference == result))
        self.elements += int(reference.size)

    @property
    def share(self) -> float:
        """Share of elements that are the same; NaN without elements."""
        return self.same / self.elements if self.elements else math.nan


@dataclass(slots=True)
class AccuracyMeter:
    """Counts rows whose argmax over the last axis is the label."""

    correct: int = 0
    rows: int = 0

    def add(self, scores: NDArray[np.floating], labels: NDArray[np.integer]) -> None:
        """Count hits.

        Args:
            scores: Shape ``(rows, classes)``.
            labels: Shape ``(rows,)``.
        """
        self.correct += int(np.count_nonzero(scores.argmax(axis=-1) == labels))
        self.rows += int(labels.size)

    @property
    def accuracy(self) -> float:
        """Share of rows that are right; NaN without rows."""
        return self.correct / self.rows if self.rows else math.nan
