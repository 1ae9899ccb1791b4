"""Tells a tensor that is stored at other scales from one that is wrong.

Channel scaling (SmoothQuant, AWQ) multiplies a tensor by a factor for each channel and divides what
reads it: nothing is lost, and yet the tensor is far from the reference's. For channels ``c`` the
best factors are ``f_c = sum(a b) / sum(b^2)``, and what they leave is

    noise = sum over c of (sum(a^2) - sum(a b)^2 / sum(b^2))

(least squares, a the reference). A factor for each channel cannot undo rounding, so a tensor that
they bring close was scaled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from onnxq.numerics.metrics import sqnr_db

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Sums = NDArray[np.float64]

_LEAST_ROWS: Final = 16
"""Values of a channel; fewer are fitted by chance."""
_AXES: Final = ((-1,), (1,), (1, -1), (2, -1))
"""Axes that may count channels: the last, that of a convolution, heads and their channels."""


@dataclass(slots=True)
class FactorMeter:
    """Sums from which the SQNR under the best factor for each channel follows."""

    _sums: dict[tuple[int, ...], tuple[Sums, Sums, Sums]] = field(default_factory=dict)
    _rows: dict[tuple[int, ...], int] = field(default_factory=dict)
    _dropped: set[tuple[int, ...]] = field(default_factory=set)

    def add(self, reference: NDArray[Any], result: NDArray[Any]) -> None:
        """Compare two arrays of one shape."""
        a, b = np.asarray(reference, np.float64), np.asarray(result, np.float64)
        for axes in _AXES:
            if max(axes) < a.ndim and a.ndim > len(axes) and axes not in self._dropped:
                self._add(axes, a, b)

    @property
    def sqnr_db(self) -> float:
        """SQNR under the best factors, by the axes that fit best; -inf of too few rows."""
        found = [
            sqnr_db(float(aa.sum()), max(float(np.sum(aa - _explained(ab, bb))), 0.0))
            for axes, (aa, ab, bb) in self._sums.items()
            if axes not in self._dropped and self._rows[axes] >= _LEAST_ROWS
        ]
        return max(found, default=-np.inf)

    @property
    def relative_error(self) -> float:
        """What the best factors leave, as ``sqrt(noise / signal)``; Inf of too few rows."""
        return float(10 ** (-self.sqnr_db / 20))

    def _add(self, axes: tuple[int, ...], a: Sums, b: Sums) -> None:
        kept = {axis % a.ndim for axis in axes}
        others = tuple(axis for axis in range(a.ndim) if axis not in kept)
        new = ((a * a).sum(others), (a * b).sum(others), (b * b).sum(others))
        known = self._sums.get(axes)
        if known is None:
            self._sums[axes] = new
        elif known[0].shape != new[0].shape:
            # An axis that varies from sample to sample counts tokens, not channels.
            self._dropped.add(axes)
            return
        else:
            for total, part in zip(known, new, strict=True):
                total += part
        self._rows[axes] = self._rows.get(axes, 0) + a.size // max(new[0].size, 1)


def _explained(ab: Sums, bb: Sums) -> Sums:
    return np.divide(ab * ab, bb, out=np.zeros_like(ab), where=bb > 0)
