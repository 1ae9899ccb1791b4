"""The Gram matrix ``X^T X`` of activations that stream by, and their mean magnitudes.

All that weights need to know of the activations that they are multiplied by: it takes ``K^2``
numbers, however many tokens there are. While there are fewer tokens than channels, the tokens
themselves take less and are kept instead. Both are exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import blas

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxq.numerics.blockwise import Matrix


_TILE = 512
_LARGEST = 1e12
"""Greater magnitudes are masks or faults; sums of their squares would leave float32."""


class SecondMoment:
    """Of one activation with ``channels`` channels.

    Attributes:
        channels: K.
        tokens: How many were seen.
    """

    def __init__(self, channels: int) -> None:
        """Nothing is seen yet."""
        self.channels = channels
        self.tokens = 0
        self._magnitude = np.zeros(channels, np.float64)
        self._rows: list[Matrix] = []
        # In Fortran's order and only its upper triangle, as BLAS updates it in place.
        self._upper: Matrix | None = None

    def add(self, rows: Matrix) -> None:
        """Count more tokens, ``[tokens, K]``, finite."""
        if not len(rows):
            return
        self.tokens += len(rows)
        self._magnitude += np.abs(rows).sum(axis=0, dtype=np.float64)
        if self._upper is None and self.tokens <= self.channels:
            self._rows.append(rows.copy())
            return
        for earlier in self._rows:
            self._update(earlier)
        self._rows.clear()
        self._update(rows)

    @property
    def magnitude(self) -> NDArray[np.float64]:
        """Mean absolute value of each channel, ``[K]``."""
        return self._magnitude / max(self.tokens, 1)

    @property
    def nbytes(self) -> int:
        """What is held."""
        held = 0 if self._upper is None else self._upper.nbytes
        return held + sum(rows.nbytes for rows in self._rows)

    def take(self) -> Matrix:
        """``X^T X``, ``[K, K]``, handed over: no copy is made, and the moment is used up."""
        upper, self._upper = self._upper, None
        if upper is not None:
            return _mirrored(upper.T)
        rows = np.concatenate([*self._rows, np.empty((0, self.channels), np.float32)])
        self._rows.clear()
        return np.ascontiguousarray(rows.T @ rows)

    def _update(self, rows: Matrix) -> None:
        if self._upper is None:
            self._upper = np.zeros((self.channels, self.channels), np.float32, order="F")
        self._upper = blas.ssyrk(1.0, rows.T, beta=1.0, c=self._upper, overwrite_c=1)


def _mirrored(lower: Matrix) -> Matrix:
    """The symmetric matrix of which the lower triangle is given and the rest is 0, in place."""
    for start in range(0, len(lower), _TILE):
        stop = start + _TILE
        tile = lower[start:stop, start:stop]
        tile += np.tril(tile, -1).T
        lower[start:stop, stop:] = lower[stop:, start:stop].T
    return lower


class SplitMoments:
    """Moments of the tokens that are fitted to, and of those that decide what fits too closely.

    Attributes:
        fitted: Four fifths of the tokens.
        held_out: The rest.
        left_out: Tokens with NaN, Inf or huge values, which are in neither.
    """

    def __init__(self, channels: int) -> None:
        """Nothing is seen yet."""
        self.fitted = SecondMoment(channels)
        self.held_out = SecondMoment(channels)
        self.left_out = 0

    def add(self, rows: Matrix, *, held_out: bool) -> None:
        """Count more tokens, ``[tokens, K]``, in one of the two parts."""
        # A NaN is in no range.
        usable = (rows.max(axis=1) <= _LARGEST) & (rows.min(axis=1) >= -_LARGEST)
        if not usable.all():
            self.left_out += int(np.count_nonzero(~usable))
            rows = rows[usable]
        (self.held_out if held_out else self.fitted).add(rows)

    @property
    def tokens(self) -> int:
        """How many are in one of the two."""
        return self.fitted.tokens + self.held_out.tokens

    @property
    def magnitude(self) -> NDArray[np.float64]:
        """Mean absolute value of each channel over all tokens, ``[K]``."""
        parts = (self.fitted, self.held_out)
        sums = [part.magnitude * part.tokens for part in parts]
        return np.asarray(sum(sums) / max(self.tokens, 1))

    @property
    def nbytes(self) -> int:
        """What is held."""
        return self.fitted.nbytes + self.held_out.nbytes
