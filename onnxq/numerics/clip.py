"""Clip search: for each block the range whose rounding costs least in the product.

Both ends of a block's range are shrunk by one factor c, from 1 down. Of each candidate the error
counts that the block alone makes, with the part of the Gram matrix that belongs to its channels::

    error(c) = d G_b d^T,    d = Q_c(w) - w,    c = 1, 0.975, ..., 0.525

where w is the weight as it is multiplied, with channel scales in it, and G the Gram matrix of the
activation as it then is. c = 1 is always a candidate. Without activations G_b is the identity.

Source: Lin et al., "AWQ: Activation-aware Weight Quantization", MLSys 2024, there on symmetric and
asymmetric ranges alike.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from onnxq.numerics.affine import qparams_from_range, weight_range
from onnxq.numerics.blockwise import block_size, covering
from onnxq.numerics.compiled import compiled
from onnxq.numerics.rows import over_rows
from onnxq.numerics.schemes import middle_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxq.numerics.blockwise import Matrix
    from onnxq.numerics.schemes import QParams, Scheme

SHRINKS: Final = np.linspace(1.0, 0.5, 20, endpoint=False, dtype=np.float32)
"""The factors c."""

_CHUNK = 1 << 23
"""Elements of all candidates that are held at a time."""


def clipped_params(weight: Matrix, gram: Matrix | None, scheme: Scheme) -> QParams:
    """Scales and zero points of the best ranges.

    Args:
        weight: ``[N, K]``.
        gram: ``X^T X``, ``[K, K]``; None to weigh all channels alike.
        scheme: The integers.

    Returns:
        Of shape ``[N, blocks]``.
    """
    low, high = weight_range(weight, scheme.granularity)
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    size = block_size(scheme)
    rows = max(1, _CHUNK // (len(SHRINKS) * size))
    shrink = np.empty_like(low)
    for block in range(low.shape[1]):
        here = slice(block * size, (block + 1) * size)
        part = None if gram is None else np.ascontiguousarray(gram[here, here])
        for start in range(0, len(weight), rows):
            some = slice(start, start + rows)
            values = np.ascontiguousarray(weight[some, here])
            ends = low[some, block], high[some, block]
            shrink[some, block] = SHRINKS[_cheapest(values, ends, part, scheme)]
    return qparams_from_range(low * shrink, high * shrink, scheme)


def _cheapest(
    values: Matrix, ends: tuple[Matrix, Matrix], part: Matrix | None, scheme: Scheme
) -> NDArray[np.int64]:
    """The number of the cheapest candidate for each row of one block."""
    count, width = values.shape
    change = np.empty((count, len(SHRINKS), width), np.float32)
    top = np.float32(scheme.qmax)
    middle = np.float32(middle_of(scheme.bits) if scheme.symmetric else 0)
    work = partial(_changes, values, *ends, SHRINKS, top, middle, change)
    over_rows(work, count, change.size)
    flat = change.reshape(-1, width)
    weighed = flat if part is None else flat @ part
    best = np.empty(count, np.int64)
    over_rows(partial(_pick, change, weighed.reshape(change.shape), best), count, change.size)
    return best


@compiled
def _changes(  # noqa: PLR0913 - compiled, with the rows that it is to work on
    values: Matrix,
    low: Matrix,
    high: Matrix,
    shrinks: Matrix,
    top: np.float32,
    middle: np.float32,
    change: Matrix,
    first: int,
    end: int,
) -> None:
    for n in range(first, end):
        for c in range(len(shrinks)):
            scale, zero = covering(low[n] * shrinks[c], high[n] * shrinks[c], top, middle)
            for k in range(values.shape[1]):
                value = values[n, k]
                q = min(max(np.rint(value / scale) + zero, np.float32(0)), top)
                change[n, c, k] = (q - zero) * scale - value


@partial(compiled, fastmath={"reassoc", "contract"})
def _pick(change: Matrix, weighed: Matrix, best: NDArray[np.int64], first: int, end: int) -> None:
    for n in range(first, end):
        least = np.float32(np.inf)
        for c in range(change.shape[1]):
            error = np.float32(0)
            for k in range(change.shape[2]):
                error += change[n, c, k] * weighed[n, c, k]
            if error < least:
                least = error
                best[n] = c
        if least == np.inf:
            best[n] = 0
