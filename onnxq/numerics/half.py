"""What a conversion to float16 or bfloat16 does to an array.

Both take 16 bits. float16 keeps 11 bits of precision between 6.1e-5 and 65504, fewer below, and
nothing below 3e-8; bfloat16 keeps 8 bits over the range of float32. Rounding is to the nearest, to
the even one of two. Of an array ``x`` and its rounded form ``x'``::

    SQNR    = 10 log10(sum x^2 / sum (x - x')^2)          about 73 dB for float16, 55 for bfloat16
    flushed = share of the nonzero elements that become 0

NaN and Inf are the same in all these types; they count as exact and are left out of the sums.
Source: IEEE 754-2019, binary16; bfloat16 is float32 without its lower 16 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import ml_dtypes
import numpy as np

from onnxq.numerics.metrics import sqnr_db

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

HalfName = Literal["float16", "bfloat16"]
"""The floating types of 16 bits."""

_PIECE: Final = 1 << 20
"""So many elements are held in float64 at once."""


@dataclass(frozen=True, slots=True)
class HalfType:
    """A floating type of 16 bits.

    Attributes:
        name: Its name.
        dtype: As numpy knows it.
        greatest: The greatest finite number.
        normal: The least number with full precision.
    """

    name: HalfName
    dtype: np.dtype[np.generic]
    greatest: float
    normal: float


def _described(name: HalfName, kind: type[np.generic]) -> HalfType:
    info = ml_dtypes.finfo(kind)  # type: ignore[no-untyped-call]
    return HalfType(name, np.dtype(kind), float(info.max), float(info.smallest_normal))


HALF_TYPES: Final[dict[str, HalfType]] = {
    "float16": _described("float16", np.float16),
    "bfloat16": _described("bfloat16", ml_dtypes.bfloat16),
}
"""Both types by name."""


@dataclass(frozen=True, slots=True)
class HalfFit:
    """How well an array fits into a type of 16 bits.

    Attributes:
        overflowing: Finite elements that would become infinite.
        flushed: Share of the nonzero elements that would become 0.
        sqnr_db: SQNR of the elements that do not overflow, in decibels.
    """

    overflowing: int
    flushed: float
    sqnr_db: float


def half_fit(parts: Iterable[NDArray[np.generic]], half: HalfType) -> HalfFit:
    """Measure what rounding to ``half`` would do.

    Args:
        parts: An array of float32 or float64, whole or in pieces.
        half: The type.
    """
    overflowing = nonzero = flushed = 0
    signal = noise = 0.0
    for part in _pieces(parts):
        exact = part.astype(np.float64)
        exact = exact[np.isfinite(exact)]
        with np.errstate(over="ignore", under="ignore"):
            rounded = exact.astype(half.dtype).astype(np.float64)
        fits = np.isfinite(rounded)
        overflowing += int(fits.size - np.count_nonzero(fits))
        exact, rounded = exact[fits], rounded[fits]
        nonzero += int(np.count_nonzero(exact))
        flushed += int(np.count_nonzero((rounded == 0) & (exact != 0)))
        signal += float(np.dot(exact, exact))
        noise += float(np.dot(exact - rounded, exact - rounded))
    return HalfFit(overflowing, flushed / max(nonzero, 1), sqnr_db(signal, noise))


def _pieces(parts: Iterable[NDArray[np.generic]]) -> Iterator[NDArray[np.generic]]:
    for part in parts:
        flat = part.ravel()
        yield from (flat[start : start + _PIECE] for start in range(0, flat.size, _PIECE))
