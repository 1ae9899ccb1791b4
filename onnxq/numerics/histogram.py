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

import numba
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MANTISSA_BITS = 9
"""Bins per octave, as a power of two: 512, so that a bin is at most 1/512 of its values wide."""

_SHIFT = 23 - MANTISSA_BITS
_PAGE = 1 << MANTISSA_BITS
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
        occupied = np.flatnonzero(self._dense) >> MANTISSA_BITS
        return [int(page) for page in np.unique(occupied)]

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
        nan = masked = 0
        low, high = _extrema(flat)
        if flat.size and not (low > -MASK_MAGNITUDE and high < MASK_MAGNITUDE):
            nan = int(np.count_nonzero(np.isnan(flat)))
            ordinary = flat[np.abs(flat) < MASK_MAGNITUDE]
            masked = flat.size - ordinary.size - nan
            flat = ordinary
            low, high = _extrema(flat)
        _count(flat.view(np.uint32), self._dense)
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        return Seen(low, high, masked, nan)

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

    def _paged(self) -> NDArray[np.int64]:
        return self._dense.reshape(-1, _PAGE)


def _extrema(flat: NDArray[np.float32]) -> tuple[float, float]:
    # Adding 0 turns -0.0 into 0.0, so that the order of the samples cannot show in the sign.
    return float(flat.min(initial=np.inf)) + 0.0, float(flat.max(initial=-np.inf)) + 0.0


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _count(bits: NDArray[np.uint32], counts: NDArray[np.int64]) -> None:
    for i in range(bits.size):
        counts[bits[i] >> np.uint32(_SHIFT)] += 1
