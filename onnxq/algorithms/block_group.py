"""Quantize the weights that read one activation: scale them jointly, then each by itself.

What is fitted sees four fifths of the calibration tokens; the rest says what fits them too closely:
scaling, GPTQ, and for ``auto`` the algorithm and the symmetry of each weight. What won is then
fitted to all tokens. Rounding to the nearest is a candidate throughout: on the calibration tokens
no group errs more than it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxq.algorithms.block_candidates import compensated, fitted_to_all, nearest
from onnxq.algorithms.block_space import Space, Tokens
from onnxq.numerics.awq import search_scaling
from onnxq.numerics.blockwise import output_error
from onnxq.numerics.classes import class_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from onnxq.algorithms.block_candidates import BlockResult, Candidate, WeightTask
    from onnxq.numerics.awq import Scaling
    from onnxq.numerics.blockwise import Matrix
    from onnxq.numerics.moments import SplitMoments


@dataclass(frozen=True, eq=False, slots=True)
class GroupTask:
    """What is wanted of the weights that read one activation.

    Attributes:
        weights: Each by name.
        classes: ``[K]``: channels of one number get one factor; None where channels cannot be
            scaled.
        least_gain: The share of the error that scaling has to take away to be worth it.
        why_not: Tells of a factor ``[K]`` why the model cannot take it; empty if it can.
    """

    weights: Mapping[str, WeightTask]
    classes: NDArray[np.int64] | None = None
    least_gain: float = 0.0
    why_not: Callable[[Matrix], str] = lambda _: ""


@dataclass(frozen=True, eq=False, slots=True)
class GroupResult:
    """The weights that read one activation, quantized.

    Attributes:
        factor: What their input channels are multiplied by, ``[K]``; None where they are not.
        exponent: AWQ's exponent behind it.
        reason: Why channels are not scaled although they could be; empty where they are, or where
            no algorithm asked for it.
        weights: The best of each weight, by name.
        signals: Squared product of each float weight on held-out tokens.
        noises: For each weight the squared error under all that was tried, by label.
    """

    factor: Matrix | None
    exponent: float
    reason: str
    weights: Mapping[str, BlockResult]
    signals: Mapping[str, float]
    noises: Mapping[str, Mapping[str, float]]


def solve_group(task: GroupTask, moments: SplitMoments) -> GroupResult:
    """Quantize each weight in the way that errs least.

    Args:
        task: What is wanted.
        moments: Of the activation that they read; at least one finite token was seen. They are used
            up.
    """
    tokens, weights = Tokens.of(moments), task.weights
    scaling, reason = _scaling(task, moments, tokens)
    spaces = [Space(None, tokens)]
    if scaling is not None:
        spaces.append(Space(scaling.factor, tokens))
    rounded = [_Option(s, {n: list(nearest(w, s)) for n, w in weights.items()}) for s in spaces]
    # Algorithms that scale go on where that was better, and nowhere else: GPTQ takes long.
    home = min(rounded, key=lambda option: option.noise_when_scaled)
    options = [option.with_gptq(weights, scaled=option is home) for option in rounded]
    # Siblings read one activation, so that they are all scaled or none is.
    best = min((option for option in options if option.complete), key=lambda each: each.noise)
    if scaling is not None and best.space.factor is None:
        scaling, reason = None, "scaled channels err more on held-out tokens"
    return GroupResult(
        factor=best.space.factor,
        exponent=0.0 if scaling is None else scaling.exponent,
        reason=reason,
        weights={n: fitted_to_all(weights[n], best.space, c) for n, c in best.chosen.items()},
        signals={name: output_error(w.weight, tokens.judging) for name, w in weights.items()},
        noises={name: _least(option.tried[name] for option in options) for name in weights},
    )


@dataclass(frozen=True, eq=False, slots=True)
class _Option:
    """All weights of the group in one space, and what was tried of each."""

    space: Space
    tried: Mapping[str, Sequence[Candidate]]

    @property
    def complete(self) -> bool:
        """Whether each weight has a candidate here."""
        return all(self.tried.values())

    @property
    def chosen(self) -> dict[str, Candidate]:
        """The best candidate of each weight."""
        return {name: min(found, key=lambda c: c.noise) for name, found in self.tried.items()}

    @property
    def noise(self) -> float:
        """The error of all weights together."""
        return sum(candidate.noise for candidate in self.chosen.values())

    @property
    def noise_when_scaled(self) -> float:
        """The error of all weights that an algorithm may scale, under the best such algorithm."""
        scaled = [[c.noise for c in found if c.algorithm.scaled] for found in self.tried.values()]
        return sum(min(noises) for noises in scaled if noises)

    def with_gptq(self, weights: Mapping[str, WeightTask], *, scaled: bool) -> _Option:
        """The same, and GPTQ where it is wanted; of algorithms that scale only if ``scaled``."""
        tried = {}
        for name, found in self.tried.items():
            start = [c for c in found if scaled or not c.algorithm.scaled]
            tried[name] = [*found, *compensated(weights[name], self.space, start)]
        return _Option(self.space, tried)


def _scaling(task: GroupTask, moments: SplitMoments, tokens: Tokens) -> tuple[Scaling | None, str]:
    """The best scaling of the input channels, or why there is none that is worth it."""
    wanted = all(any(a.scaled for a in weight.algorithms) for weight in task.weights.values())
    if task.classes is None or not wanted:
        return None, ""
    magnitude = class_mean(moments.magnitude, task.classes)
    weights = [(weight.weight, weight.schemes[0]) for weight in task.weights.values()]
    found = search_scaling(weights, tokens.every, magnitude)
    gain = found.plain_error - found.error
    if not gain > 0:
        return None, "no exponent errs less than none"
    if not gain > task.least_gain * found.plain_error:
        return None, "it takes too little of the error away to be worth a Mul"
    reason = task.why_not(found.factor)
    return (None, reason) if reason else (found, "")


def _least(tried: Iterable[Sequence[Candidate]]) -> dict[str, float]:
    """The least error under each label."""
    least: dict[str, float] = {}
    for candidate in (candidate for found in tried for candidate in found):
        least[candidate.label] = min(candidate.noise, least.get(candidate.label, candidate.noise))
    return least
