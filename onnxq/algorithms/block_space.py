"""The Gram matrices of an activation whose channels may be divided by a factor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from onnxq.numerics.blockwise import output_error
from onnxq.numerics.gptq import compensation

if TYPE_CHECKING:
    from onnxq.numerics.blockwise import Matrix
    from onnxq.numerics.gptq import Compensation
    from onnxq.numerics.moments import SplitMoments

SHRINKAGE = 0.6
"""How much of the off-diagonal part of GPTQ's Hessian is left out. On SmolLM2, calibrated on
speeches, 0.3 leaves 27 % of the KL of rounding to the nearest on speeches and 40 % on news, 0.6
leaves 29 % and 37 %: a Hessian of a few thousand tokens fits their kind of text."""

MOST_GRAMS = 6
"""Matrices ``[K, K]`` of float32 that solving a group takes at the most, its moments among them."""

_DAMPING = 0.03


@dataclass(frozen=True, eq=False, slots=True)
class Tokens:
    """Gram matrices ``[K, K]``.

    Attributes:
        every: Of all tokens.
        judging: Of those that tell what fits too closely; all, if none were held out.
    """

    every: Matrix
    judging: Matrix

    @classmethod
    def of(cls, moments: SplitMoments) -> Tokens:
        """The matrices of what was observed, which is used up."""
        both = moments.fitted.tokens and moments.held_out.tokens
        every, judging = moments.fitted.take(), moments.held_out.take()
        every += judging
        return cls(every, judging if both else every)

    def fitted(self) -> Matrix:
        """Of those that are fitted to, where some were held out: a new array."""
        return self.every - self.judging


@dataclass(eq=False, slots=True)
class Space:
    """Input channels of weights multiplied by a factor, those of their activation divided by it.

    Attributes:
        factor: ``[K]``; None where they stay as they are.
        tokens: The Gram matrices of the activation itself: what is divided is made when it is
            wanted, since each takes ``K^2`` numbers.
    """

    factor: Matrix | None
    tokens: Tokens
    _known: tuple[str, Compensation] | None = None

    def weight(self, weight: Matrix) -> Matrix:
        """A weight ``[N, K]`` as it is multiplied here."""
        return weight if self.factor is None else weight * self.factor

    def error(self, change: Matrix, part: Literal["every", "judging"]) -> float:
        """Squared error of a product, on all tokens or on those held out.

        Args:
            change: What was changed in the weight as it is multiplied here, ``[N, K]``.
            part: The tokens.
        """
        gram = self.tokens.every if part == "every" else self.tokens.judging
        return output_error(change if self.factor is None else change / self.factor, gram)

    def gram(self) -> Matrix:
        """Of all tokens, as the activation is here."""
        return self._divided(self.tokens.every)

    def compensation(self, part: Literal["every", "fitted"]) -> Compensation:
        """How errors are made up for; kept for siblings until the other part is asked for."""
        part = "every" if self.tokens.judging is self.tokens.every else part
        if self._known is None or self._known[0] != part:
            self._known = None
            gram = self._divided(self.tokens.every if part == "every" else self.tokens.fitted())
            self._known = part, compensation(gram, _DAMPING, SHRINKAGE)
        return self._known[1]

    def _divided(self, gram: Matrix) -> Matrix:
        if self.factor is None:
            return gram
        divided: Matrix = gram / self.factor[:, np.newaxis]
        divided /= self.factor
        return divided
