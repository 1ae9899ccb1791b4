"""A histogram whose bins are the leading bits of a float32: counting without knowing the range.

The bin of a value is its sign, its exponent and the first :data:`MANTISSA_BITS` bits of its
mantissa, that is, ``bits >> (23 - MANTISSA_BITS)``. So

* no range is needed before counting: one pass over the data is enough;
* every octave has the same relative resolution, ``2^-MANTISSA_BITS``: an outlier or a mask constant
  costs the other values nothing, where the equal bins of a linear histogram all widen with it;
* merging adds counts: it is exact, associative and commutative, so neither the order of the samples
  nor the number of workers changes one bit of the result.

Counters are kept by page, one page (``2^MANTISSA_BITS`` counters) for each sign and exponent that
occurred: usually 20 to 60 pages of 4 KiB.

The idea is that of log-linear histograms (HdrHistogram; OpenTelemetry exponential histogram).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numba
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MANTISSA_BITS = 9
"""Bins per octave, as a power of two: 512, so that a bin is at most 1/512 of its values wide."""

_SHIFT = 23 - MANTISSA_BITS
_PAGE = 1 << MANTISSA_BITS
_MASK = _PAGE - 1
_MASK_EXPONENT = 127 + 100

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


@dataclass(slots=True)
class FloatHistogram:
    """Counts of every ordinary value, by sign, exponent and leading mantissa bits.

    Attributes:
        pages: Which signs and exponents (9 bits) have a page, in the order of first sight.
        counts: int64, shape ``(len(pages), 512)``.
        minimum: Least value counted, +inf if none.
        maximum: Greatest value counted, -inf if none.
    """

    pages: list[int] = field(default_factory=list)
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, _PAGE), np.int64))
    minimum: float = np.inf
    maximum: float = -np.inf
    _table: NDArray[np.int16] = field(
        default_factory=lambda: np.full(512, -1, np.int16), init=False, repr=False
    )

    def __post_init__(self) -> None:
        """Index the pages."""
        for slot, page in enumerate(self.pages):
            self._table[page] = slot

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    def add(self, values: NDArray[np.floating]) -> Seen:
        """Count every element of ``values``; releases the GIL.

        Args:
            values: Any shape; float32 is read in place, other types are converted.

        Returns:
            What the array held.
        """
        with np.errstate(over="ignore"):  # a double too large becomes Inf: a mask constant
            flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
        bits = flat.view(np.uint32)
        special = np.zeros(2, np.int64)
        start = 0
        while start < bits.size:
            start = _count(bits, start, self._table, self.counts, special)
            if start < bits.size:
                self._new_page(int(bits[start] >> 23))
        nan, masked = int(special[0]), int(special[1])
        ordinary = flat[np.abs(flat) < MASK_MAGNITUDE] if nan or masked else flat
        # Adding 0 turns -0.0 into 0.0, so that the order of the samples cannot show in the sign.
        low = float(ordinary.min(initial=np.inf)) + 0.0
        high = float(ordinary.max(initial=-np.inf)) + 0.0
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        return Seen(low, high, masked, nan)

    def merge(self, other: FloatHistogram) -> None:
        """Add the counts of ``other``."""
        for slot, page in enumerate(other.pages):
            if self._table[page] < 0:
                self._new_page(page)
            self.counts[self._table[page]] += other.counts[slot]
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)

    def bins(self) -> Bins:
        """The occupied bins, negative to positive; the outermost edges are the exact extrema."""
        if not self.pages:
            empty = np.zeros(0)
            return Bins(empty, empty, empty)
        slots, cells = np.nonzero(self.counts)
        count = self.counts[slots, cells].astype(np.float64)
        page = np.asarray(self.pages, np.uint32)[slots]
        start = (page << np.uint32(23)) | (cells.astype(np.uint32) << np.uint32(_SHIFT))
        inner = start.view(np.float32).astype(np.float64)
        outer = (start + np.uint32(1 << _SHIFT)).view(np.float32).astype(np.float64)
        low, high = np.minimum(inner, outer), np.maximum(inner, outer)
        order = np.lexsort((high, low))
        low, high, count = low[order], high[order], count[order]
        low = np.maximum(low, self.minimum)
        high = np.minimum(high, self.maximum)
        return Bins(low, high, count)

    def _new_page(self, page: int) -> None:
        self._table[page] = len(self.pages)
        self.pages.append(page)
        self.counts = np.concatenate([self.counts, np.zeros((1, _PAGE), np.int64)])


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _count(
    bits: NDArray[np.uint32],
    start: int,
    table: NDArray[np.int16],
    counts: NDArray[np.int64],
    special: NDArray[np.int64],
) -> int:
    """Count from ``start`` on; stop at a value that needs a page and return its index."""
    for i in range(start, bits.size):
        word = bits[i]
        slot = table[word >> np.uint32(23)]
        if slot < 0:
            magnitude = word & np.uint32(0x7FFFFFFF)
            if magnitude > np.uint32(0x7F800000):
                special[0] += 1
                continue
            if (magnitude >> np.uint32(23)) >= _MASK_EXPONENT:
                special[1] += 1
                continue
            return i
        counts[slot, (word >> np.uint32(_SHIFT)) & np.uint32(_MASK)] += 1
    return int(bits.size)
