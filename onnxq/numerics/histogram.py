"""A histogram whose bins are the leading bits of a float32: counting without knowing the range.

The bin of a value is its sign, its exponent and the first :data:`MANTISSA_BITS` bits of its
mantissa, that is, ``bits >> (23 - MANTISSA_BITS)``. So

* no range is needed before counting: one pass over the data is enough;
* every octave has the same relative resolution, ``2^-MANTISSA_BITS``: an outlier or a mask constant
  costs the other values nothing, where the equal bins of a linear histogram all widen with it;
* merging adds counts: it is exact, associative and commutative, so neither the order of the samples
  nor the number of workers changes one bit of the result.

All counters lie in one table of 2 MiB, of which the operating system backs with memory only the
pages of 4 KiB that are counted in, one for each sign and exponent that occurs: usually 20 to 60.

The idea is that of log-linear histograms (HdrHistogram; OpenTelemetry exponential histogram).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from onnxq.numerics.compiled import compiled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MANTISSA_BITS = 9
"""Bins per octave, as a power of two: 512, so that a bin is at most 1/512 of its values wide."""

_SHIFT = 23 - MANTISSA_BITS
_PAGE = 1 << MANTISSA_BITS
_STRETCH = 4096
_CELLS = _PAGE << 9  # a sign and eight bits of exponent

MASK_MAGNITUDE = 2.0**100
"""Values at least this large (about 1.3e30), Inf included, stand for infinity: mask constants.
They are counted apart and are no part of the distribution."""


@dataclass(frozen=True, slots=True)
class Bins:
    """The occupied bins of a histogram in ascending order.

    Attributes:
        low: Lower edges, float64, shape ``(B,)``.
        high: Upper edges, float64, shape ``(B,)``.
        count: How many values, float64, shape ``(B,)``.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    count: NDArray[np.float64]

    @property
    def centre(self) -> NDArray[np.float64]:
        """Middle of each bin, shape ``(B,)``."""
        return (self.low + self.high) / 2

    def spread_over(self, edges: NDArray[np.float64]) -> NDArray[np.float64]:
        """The counts in other bins, the values of each bin taken as evenly spread over it.

        Args:
            edges: Ascending, shape ``(n + 1,)``; they cover all values, so that the counts add up
                to the same total.

        Returns:
            Counts, shape ``(n,)``.
        """
        ends = np.stack([self.low, self.high], axis=1).reshape(-1)
        reached = np.cumsum(self.count)
        below = np.stack([reached - self.count, reached], axis=1).reshape(-1)
        so_far = np.interp(edges, ends, below)
        so_far[0], so_far[-1] = 0.0, reached[-1]
        return np.diff(so_far)


class Seen(NamedTuple):
    """What one array held.

    Attributes:
        low: Least ordinary value; +inf if there is none.
        high: Greatest ordinary value; -inf if there is none.
        masked: How many values were infinite or mask constants.
        nan: How many were NaN.
    """

    low: float
    high: float
    masked: int
    nan: int


class FloatHistogram:
    """Counts of every ordinary value, by sign, exponent and leading mantissa bits.

    Attributes:
        minimum: Least value counted, +inf if none.
        maximum: Greatest value counted, -inf if none.
    """

    __slots__ = ("_dense", "maximum", "minimum")

    def __init__(
        self,
        pages: Sequence[int] = (),
        counts: NDArray[np.int64] | None = None,
        minimum: float = np.inf,
        maximum: float = -np.inf,
    ) -> None:
        """Start empty, or with the :attr:`pages` and :attr:`counts` of another histogram."""
        # 2 MiB of addresses, of which the system backs only what is counted in.
        self._dense = np.zeros(_CELLS, np.int64)
        self.minimum = minimum
        self.maximum = maximum
        if counts is not None:
            self._paged()[list(pages)] = counts

    @property
    def pages(self) -> list[int]:
        """The signs and exponents (9 bits) that occurred, ascending."""
        return [int(page) for page in np.flatnonzero(self._paged().any(axis=1))]

    @property
    def counts(self) -> NDArray[np.int64]:
        """The counters of :attr:`pages`, shape ``(len(pages), 512)``."""
        return self._paged()[self.pages]

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self._dense.sum())

    def add(self, values: NDArray[np.floating]) -> Seen:
        """Count every element of ``values``; releases the GIL.

        Args:
            values: Any shape; float32 is read in place, other types are converted.

        Returns:
            What the array held.
        """
        with np.errstate(over="ignore"):  # a double too large becomes Inf: a mask constant
            flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
        low, high = _count(flat.view(np.int32), flat.view(np.uint32), self._dense)
        seen = _seen(low, high, flat.size)
        if not (seen.low > -MASK_MAGNITUDE and seen.high < MASK_MAGNITUDE):
            seen = self._take_out(flat)
        self.minimum, self.maximum = min(self.minimum, seen.low), max(self.maximum, seen.high)
        return seen

    def merge(self, other: FloatHistogram) -> None:
        """Add the counts of ``other``."""
        self._paged()[other.pages] += other.counts
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)

    def bins(self) -> Bins:
        """The occupied bins, negative to positive; the outermost edges are the exact extrema."""
        cells = np.flatnonzero(self._dense)
        count = self._dense[cells].astype(np.float64)
        start = cells.astype(np.uint32) << np.uint32(_SHIFT)
        inner = start.view(np.float32).astype(np.float64)
        outer = (start + np.uint32(1 << _SHIFT)).view(np.float32).astype(np.float64)
        low, high = np.minimum(inner, outer), np.maximum(inner, outer)
        order = np.lexsort((high, low))
        low, high, count = low[order], high[order], count[order]
        low = np.maximum(low, self.minimum)
        high = np.minimum(high, self.maximum)
        return Bins(low, high, count)

    def _take_out(self, flat: NDArray[np.float32]) -> Seen:
        """Undo the counts of the values of ``flat`` that are no ordinary ones."""
        ordinary = np.abs(flat) < MASK_MAGNITUDE
        special = np.ascontiguousarray(flat[~ordinary])
        np.subtract.at(self._dense, special.view(np.uint32) >> np.uint32(_SHIFT), 1)
        nan = int(np.count_nonzero(np.isnan(special)))
        kept = flat[ordinary]
        low, high = float(kept.min(initial=np.inf)), float(kept.max(initial=-np.inf))
        return Seen(low + 0.0, high + 0.0, special.size - nan, nan)

    def _paged(self) -> NDArray[np.int64]:
        return self._dense.reshape(-1, _PAGE)


def _seen(low: np.int32, high: np.int32, size: int) -> Seen:
    """Least and greatest value from their keys; Inf and NaN lie beyond every ordinary value."""
    if size == 0:
        return Seen(np.inf, -np.inf, 0, 0)
    keys = np.asarray([low, high], np.int32)
    values = (keys ^ ((keys >> 31) & 0x7FFFFFFF)).view(np.float32)
    # Adding 0 turns -0.0 into 0.0, so that the order of the samples cannot show in the sign.
    return Seen(float(values[0]) + 0.0, float(values[1]) + 0.0, 0, 0)


@compiled
def _count(
    words: NDArray[np.int32], bits: NDArray[np.uint32], counts: NDArray[np.int64]
) -> tuple[np.int32, np.int32]:
    """Count ``bits`` (which ``words`` are too), and give the least and greatest key.

    Stretch by stretch, so that the counting finds in the cache what the extrema have read.
    """
    low, high = np.int32(2147483647), np.int32(-2147483648)
    for start in range(0, bits.size, _STRETCH):
        end = min(start + _STRETCH, bits.size)
        least, greatest = _key_range(words[start:end])
        low = least if least < low else low
        high = greatest if greatest > high else high
        _count_stretch(bits[start:end], counts)
    return low, high


@compiled
def _key_range(words: NDArray[np.int32]) -> tuple[np.int32, np.int32]:
    """Least and greatest of integer keys that are ordered as the floats are; vectorized."""
    low, high = np.int32(2147483647), np.int32(-2147483648)
    for i in range(words.size):
        word = words[i]
        key = np.int32(word ^ ((word >> np.int32(31)) & np.int32(0x7FFFFFFF)))
        low = key if key < low else low
        high = key if key > high else high
    return low, high


@compiled
def _count_stretch(bits: NDArray[np.uint32], counts: NDArray[np.int64]) -> None:
    for i in range(bits.size):
        counts[bits[i] >> np.uint32(_SHIFT)] += 1
