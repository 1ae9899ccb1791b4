"""How close a language model's next-token distributions are to another's, and how good both are.

Definitions, with ``p = softmax(logits)`` over the vocabulary, in nats::

    KL         = mean over tokens of sum_v p_float (log p_float - log p_quantized)
    perplexity = exp(mean over predicted tokens of -log p(the token that follows))

``log p = logits - log sum exp(logits)``; the greatest logit is subtracted first, so that nothing
overflows (Blanchard, Higham and Higham, IMA J. Numer. Anal. 2021). Logits may be float32 or
float16; everything behind them is float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Doubles = NDArray[np.float64]

NOTHING_FOLLOWS: Final = -1
"""Stands for the token behind a position where none is known."""

_AT_ONCE: Final = 1 << 17
"""Logits in float64 at a time, 1 MiB, so that they stay in the processor's cache."""


@dataclass(slots=True)
class TokenMeter:
    """Sums over tokens from which KL and both perplexities follow.

    Attributes:
        divergence: Sum of the KL of each token, nats.
        tokens: How many tokens that is.
        surprise: Sum of the reference's negative log-likelihood of each next token, nats.
        other: The same of the result.
        predicted: How many next tokens that is.
        left_out: Tokens not measured because the reference gives NaN or +Inf there.
    """

    divergence: float = 0.0
    tokens: int = 0
    surprise: float = 0.0
    other: float = 0.0
    predicted: int = 0
    left_out: int = 0

    def add(
        self,
        reference: NDArray[np.floating[Any]],
        result: NDArray[np.floating[Any]],
        following: NDArray[np.integer[Any]],
    ) -> None:
        """Compare two models at the same tokens.

        Args:
            reference: Logits ``[tokens, vocabulary]``; -Inf is a token that cannot come.
            result: The other model's logits, of the same shape.
            following: The token that follows each, ``[tokens]``; :data:`NOTHING_FOLLOWS` where
                none is known.
        """
        rows = max(1, _AT_ONCE // max(1, reference.shape[-1]))
        # NaN and Inf of the result are its own: they come out of the sums without a warning.
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            for start in range(0, len(following), rows):
                part = slice(start, start + rows)
                self._add(
                    np.asarray(reference[part], np.float64),
                    np.asarray(result[part], np.float64),
                    following[part],
                )

    def _add(self, a: Doubles, b: Doubles, following: NDArray[np.integer[Any]]) -> None:
        # NaN passes through the maximum, and -Inf is the maximum where no token can come.
        measured = np.isfinite(a.max(axis=-1))
        if not measured.all():
            self.left_out += int(np.count_nonzero(~measured))
            a, b, following = a[measured], b[measured], following[measured]
        p, normalizer = _softmax(a)
        _, other = _softmax(b)
        # 0 log 0 is 0, whatever the result says of a token that cannot come.
        gaps = np.where(p > 0, a - b, 0.0)
        divergences = np.einsum("tv,tv->t", p, gaps) - (normalizer - other)
        self.divergence += float(divergences.sum())
        self.tokens += len(following)
        known = np.flatnonzero(following != NOTHING_FOLLOWS)
        at = (known, following[known])
        self.surprise += float((normalizer[known] - a[at]).sum())
        self.other += float((other[known] - b[at]).sum())
        self.predicted += len(known)

    def merge(self, more: TokenMeter) -> None:
        """Add the sums of ``more``."""
        self.divergence += more.divergence
        self.tokens += more.tokens
        self.surprise += more.surprise
        self.other += more.other
        self.predicted += more.predicted
        self.left_out += more.left_out

    @property
    def kl_nats(self) -> float:
        """Mean KL of the result to the reference, nats per token; NaN without tokens."""
        return self.divergence / self.tokens if self.tokens else math.nan

    @property
    def perplexity(self) -> float:
        """The reference's perplexity; NaN where no next token is known."""
        return _perplexity(self.surprise, self.predicted)

    @property
    def other_perplexity(self) -> float:
        """The result's perplexity; NaN where no next token is known."""
        return _perplexity(self.other, self.predicted)


def _softmax(logits: Doubles) -> tuple[Doubles, Doubles]:
    """Probabilities, and the logarithm of the sum of exponentials of each row."""
    top = logits.max(axis=-1, keepdims=True)
    p = np.exp(logits - top)
    total = p.sum(axis=-1, keepdims=True)
    p /= total
    return p, (top + np.log(total))[..., 0]


def _perplexity(surprise: float, predicted: int) -> float:
    """Infinite where a token came that the model held impossible, or beyond float64."""
    if not predicted:
        return math.nan
    mean = surprise / predicted
    return math.exp(mean) if mean < math.log(np.finfo(np.float64).max) else mean * math.inf
