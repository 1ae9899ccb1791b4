"""GPTQ: round a weight column by column, and let later columns make up for the error so far.

With the Hessian H and the upper triangular ``U`` of ``H^-1 = U^T U``, for each column k in order of
falling ``H_kk``::

    e   = (w_k - Q(w_k)) / U_kk
    w_j = w_j - e U_kj          for every later column j

Scales and zero points are given and stay; they may come from a clip search. Columns are taken in
groups: inside of one, compiled code goes along each row; what the group changes in the columns
behind it is one matrix product.

What tokens of one text have in common is not what those of another have: a Hessian of a few
thousand tokens is fitted too closely. So its off-diagonal part is shrunk, and a share d of the mean
of its diagonal is added to the diagonal; how much is for the caller to choose::

    H = (1 - r) X^T X + r diag(X^T X) + d mean(diag(X^T X)) I

Source: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", ICLR 2023, with activation order as in its implementation; the shrinkage is that of
Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004,
toward the diagonal.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import LinAlgError, cholesky, lapack

from onnxq.errors import InternalError
from onnxq.numerics.blockwise import block_size
from onnxq.numerics.compiled import compiled
from onnxq.numerics.rows import over_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxq.numerics.blockwise import Matrix
    from onnxq.numerics.schemes import QParams

_COLUMNS = 128
"""Columns that are taken together; their part of U fits into the nearest cache."""

_MORE_DAMPING = 10.0
_TRIES = 6


@dataclass(frozen=True, eq=False, slots=True)
class Compensation:
    """How an error in one column is made up for by later ones.

    Attributes:
        order: The columns in the order in which they are rounded, ``[K]``.
        upper: U in that order, ``[K, K]``, float32.
    """

    order: NDArray[np.intp]
    upper: Matrix


def compensation(gram: Matrix, damping: float, shrinkage: float = 0.0) -> Compensation:
    """Factor the Hessian; weights that read one activation share the result.

    Args:
        gram: ``X^T X``, ``[K, K]``.
        damping: ``d``, positive; ten times as much where that leaves it singular, up to six times.
        shrinkage: ``r``, from 0 to 1.

    Raises:
        InternalError: ``gram`` is not finite.
    """
    if not np.isfinite(gram).all():
        code, text = "numerics.gram", "a Gram matrix is not finite"
        raise InternalError(code, text)
    diagonal = np.diagonal(gram).astype(np.float64)
    order = np.argsort(-diagonal, kind="stable")
    mean = float(diagonal.mean()) or 1.0
    for attempt in range(_TRIES):
        # In reverse order the lower factor of H, reversed again, is the upper R of H = R R^T.
        hessian = np.empty(gram.shape, np.float64, order="F")
        np.multiply(gram[np.ix_(order[::-1], order[::-1])].T, 1 - shrinkage, out=hessian)
        added = damping * _MORE_DAMPING**attempt * mean
        np.fill_diagonal(hessian, diagonal[order[::-1]] + added)
        try:
            lower = cholesky(hessian, lower=True, overwrite_a=True, check_finite=False)
        except LinAlgError:
            continue
        inverse, _ = lapack.dtrtri(lower, lower=1, overwrite_c=True)
        return Compensation(order, np.ascontiguousarray(inverse[::-1, ::-1], np.float32))
    code, text = "numerics.gram", "a Gram matrix has no Cholesky factor"
    raise InternalError(code, text)


def gptq_steps(weight: Matrix, params: QParams, how: Compensation) -> Matrix:
    """``q - z`` of every element, ``[N, K]`` as float32, rounded one column after the other.

    Args:
        weight: ``[N, K]``.
        params: Scales and zero points of its blocks, ``[N, blocks]``.
        how: Of the activations that it is multiplied by.
    """
    order, blocks = how.order, how.order // block_size(params.scheme)
    left = weight[:, order]
    scale, zero = params.scale[:, blocks], params.zero_point[:, blocks].astype(np.float32)
    top = np.float32(params.scheme.qmax)
    found = np.empty_like(left)
    for start in range(0, left.shape[1], _COLUMNS):
        here = slice(start, start + _COLUMNS)
        behind = slice(start + _COLUMNS, None)
        error = np.ascontiguousarray(left[:, here])
        upper = np.ascontiguousarray(how.upper[here, here])
        work = partial(_round, error, scale[:, here], zero[:, here], top, upper, found[:, here])
        over_rows(work, len(error), error.size)
        left[:, behind] -= error @ how.upper[here, behind]
    result = np.empty_like(found)
    result[:, order] = found
    return result


@partial(compiled, fastmath={"contract"})
def _round(  # noqa: PLR0913 - compiled, with the rows that it is to work on
    left: Matrix,
    scale: Matrix,
    zero: Matrix,
    top: np.float32,
    upper: Matrix,
    found: Matrix,
    first: int,
    end: int,
) -> None:
    """Round the columns of one group; ``left`` becomes the errors ``e``."""
    for n in range(first, end):
        for k in range(left.shape[1]):
            s, z = scale[n, k], zero[n, k]
            q = min(max(np.rint(left[n, k] / s) + z, np.float32(0)), top) - z
            found[n, k] = q
            error = (left[n, k] - q * s) / upper[k, k]
            left[n, k] = error
            for later in range(k + 1, left.shape[1]):
                left[n, later] -= error * upper[k, later]
