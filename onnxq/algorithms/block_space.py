"""The Gram matrices of an activation whose channels may be divided by a factor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from onnxq.numerics.gptq import compensation

if TYPE_CHECKING:
    from onnxq.numerics.blockwise import Matrix
    from onnxq.numerics.gptq import Compensation
    from onnxq.numerics.moments import SplitMoments

SHRINKAGE = 0.6
"""How much of the off-diagonal part of GPTQ's Hessian is left out. On SmolLM2, calibrated on
speeches, 0.3 leaves 27 % of the KL of rounding to the nearest on speeches and 40 % on news, 0.6
leaves 29 % and 37 %: a Hessian of a few thousand tokens fits their kind of text."""

_DAMPING = 0.03


@dataclass(frozen=True, eq=False, slots=True)
class Tokens:
    """Gram matrices ``[K, K]``.

    Attributes:
        every: Of all tokens.
        fitted: Of those that are fitted to.
        judging: Of those that tell what fits too closely; all, if none were held out.
        held_out: Whether some were.
    """

    every: Matrix
    fitted: Matrix
    judging: Matrix
    held_out: bool

    @classmethod
    def of(cls, moments: SplitMoments) -> Tokens:
        """The matrices of what was observed."""
        fitted, rest = moments.fitted.gram(), moments.held_out.gram()
        if not (moments.fitted.tokens and moments.held_out.tokens):
            fitted += rest
            return cls(fitted, fitted, fitted, held_out=False)
        return cls(fitted + rest, fitted, rest, held_out=True)


@dataclass(eq=False, slots=True)
class Space:
    """Input channels of weights multiplied by a factor, those of their activation divided by it.

    Attributes:
        factor: ``[K]``; None where they stay as they are.
        tokens: The Gram matrices as they are then.
    """

    factor: Matrix | None
    tokens: Tokens
    _known: dict[str, Compensation] = field(default_factory=dict)

    @classmethod
    def of(cls, tokens: Tokens, factor: Matrix | None) -> Space:
        """The space of a factor."""
        if factor is None:
            return cls(None, tokens)

        def scaled(gram: Matrix) -> Matrix:
            return gram / factor[:, np.newaxis] / factor

        every = scaled(tokens.every)
        if not tokens.held_out:
            return cls(factor, Tokens(every, every, every, held_out=False))
        judging = scaled(tokens.judging)
        return cls(factor, Tokens(every, scaled(tokens.fitted), judging, held_out=True))

    def weight(self, weight: Matrix) -> Matrix:
        """A weight ``[N, K]`` as it is multiplied here."""
        return weight if self.factor is None else weight * self.factor

    def compensation(self, part: Literal["every", "fitted"]) -> Compensation:
        """How errors are made up for; weights that read the activation share it."""
        if part not in self._known:
            gram = self.tokens.every if part == "every" else self.tokens.fitted
            self._known[part] = compensation(gram, _DAMPING, SHRINKAGE)
        return self._known[part]
