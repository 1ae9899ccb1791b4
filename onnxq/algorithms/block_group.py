"""Quantize the weights that read one activation: scale them jointly, then each by itself.

What is fitted sees four fifths of the calibration tokens; the rest says what fits them too closely:
how far GPTQ trusts its Hessian, GPTQ itself, and for ``auto`` the algorithm and the symmetry of each weight.
What won is then fitted to all tokens. Rounding to the nearest is a candidate throughout: on the
calibration tokens no result errs more than it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from onnxq.algorithms.block_algorithm import ranges_of
from onnxq.numerics.awq import search_scaling
from onnxq.numerics.blockwise import (
    block_size,
    dequantized,
    minmax_params,
    output_error,
    times_scales,
)
from onnxq.numerics.classes import class_mean
from onnxq.numerics.gptq import compensation, gptq_steps
from onnxq.numerics.packing import pack_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from onnxq.algorithms.block_algorithm import Algorithm
    from onnxq.numerics.awq import Scaling
    from onnxq.numerics.blockwise import Matrix
    from onnxq.numerics.gptq import Compensation
    from onnxq.numerics.moments import SplitMoments
    from onnxq.numerics.schemes import QParams, Scheme

SHRINKAGES = (0.1, 0.3, 0.6)
"""How much the off-diagonal part of GPTQ's Hessian is shrunk. Measured on SmolLM2: 0.3 is best on
text like that of calibration, 0.6 on text of another kind."""

_DAMPING = 0.03
_UNTRIED = 0.6
"""The shrinkage where no tokens are held out."""

_AS_GOOD = 1.05
"""A stronger shrinkage is taken where it costs at most so much on held-out tokens: these are of the
kind that calibration saw, and what the model will see may not be."""


@dataclass(frozen=True, eq=False, slots=True)
class WeightTask:
    """What is wanted of one weight.

    Attributes:
        weight: ``[N, K]``.
        algorithms: Those to try; the best is taken.
        schemes: The integers to try, the first of which channels are scaled for.
    """

    weight: Matrix
    algorithms: tuple[Algorithm, ...]
    schemes: tuple[Scheme, ...]


@dataclass(frozen=True, eq=False, slots=True)
class GroupTask:
    """What is wanted of the weights that read one activation.

    Attributes:
        weights: Each by name.
        classes: ``[K]``: channels of one number get one factor; None where channels cannot be
            scaled.
        least_gain: The share of the error that scaling has to take away to be worth it.
    """

    weights: Mapping[str, WeightTask]
    classes: NDArray[np.int64] | None = None
    least_gain: float = 0.0


@dataclass(frozen=True, eq=False, slots=True)
class BlockResult:
    """One weight, quantized.

    Attributes:
        label: The algorithm and the integers that gave the least error.
        params: Scales and zero points of the weight, its input channels scaled.
        packed: The integers as ``numerics/packing.py`` packs them, where they are not those of
            rounding to the nearest; else None.
    """

    label: str
    params: QParams
    packed: NDArray[np.uint8] | None


@dataclass(frozen=True, eq=False, slots=True)
class GroupResult:
    """The weights that read one activation, quantized.

    Attributes:
        factor: What their input channels are multiplied by, ``[K]``; None where they are not.
        exponent: AWQ's exponent behind it.
        weights: The best of each weight, by name.
        signals: Squared product of each float weight on held-out tokens.
        noises: For each weight the squared error under all that was tried, by label.
    """

    factor: Matrix | None
    exponent: float
    weights: Mapping[str, BlockResult]
    signals: Mapping[str, float]
    noises: Mapping[str, Mapping[str, float]]


def solve_group(task: GroupTask, moments: SplitMoments) -> GroupResult:
    """Quantize each weight in the way that errs least.

    Args:
        task: What is wanted.
        moments: Of the activation that they read; at least one finite token was seen.
    """
    tokens, weights = _Tokens.of(moments), task.weights
    scaling = _scaling(task, moments, tokens)
    spaces = [_Space(tokens, None)]
    if scaling is not None:
        spaces.append(_Space(tokens, scaling.factor))
    options = [_solve(weights, space) for space in spaces]
    noises: dict[str, dict[str, float]] = {name: {} for name in weights}
    for option in options:
        for name, candidates in option.tried.items():
            for candidate in candidates:
                known = noises[name].get(candidate.label, np.inf)
                noises[name][candidate.label] = min(known, candidate.noise)
    # Siblings read one activation, so that they are all scaled or none is.
    best = min((option for option in options if option.complete), key=lambda o: o.noise)
    return GroupResult(
        factor=best.space.factor,
        exponent=0.0 if scaling is None or best.space.factor is None else scaling.exponent,
        weights={n: _fitted_to_all(weights[n], best.space, c) for n, c in best.chosen.items()},
        signals={name: output_error(w.weight, tokens.judging) for name, w in weights.items()},
        noises=noises,
    )


@dataclass(frozen=True, eq=False, slots=True)
class _Tokens:
    """Gram matrices ``[K, K]``: of all tokens, of those that are fitted to, of those that judge."""

    every: Matrix
    fitted: Matrix
    judging: Matrix
    held_out: bool

    @classmethod
    def of(cls, moments: SplitMoments) -> _Tokens:
        fitted, rest = moments.fitted.gram(), moments.held_out.gram()
        if not (moments.fitted.tokens and moments.held_out.tokens):
            fitted += rest
            return cls(fitted, fitted, fitted, held_out=False)
        return cls(fitted + rest, fitted, rest, held_out=True)


@dataclass(eq=False, slots=True)
class _Space:
    """Input channels multiplied by a factor: what the Gram matrices are then."""

    tokens: _Tokens
    factor: Matrix | None
    known: dict[tuple[str, float], Compensation] = field(default_factory=dict)

    @property
    def every(self) -> Matrix:
        return self._scaled(self.tokens.every)

    @property
    def judging(self) -> Matrix:
        return self._scaled(self.tokens.judging)

    def weight(self, weight: Matrix) -> Matrix:
        return weight if self.factor is None else weight * self.factor

    def compensation(self, part: Literal["every", "fitted"], shrinkage: float) -> Compensation:
        """How errors are made up for; siblings share it."""
        key = (part, shrinkage)
        if key not in self.known:
            gram = self.tokens.every if part == "every" else self.tokens.fitted
            self.known[key] = compensation(self._scaled(gram), _DAMPING, shrinkage)
        return self.known[key]

    def _scaled(self, gram: Matrix) -> Matrix:
        if self.factor is None:
            return gram
        return gram / self.factor[:, np.newaxis] / self.factor


@dataclass(frozen=True, eq=False, slots=True)
class _Candidate:
    label: str
    params: QParams
    shrinkage: float | None
    noise: float


@dataclass(frozen=True, eq=False, slots=True)
class _Option:
    """All weights of the group in one space, and the best candidate of each."""

    space: _Space
    tried: Mapping[str, Sequence[_Candidate]]

    @property
    def complete(self) -> bool:
        return all(self.tried.values())

    @property
    def chosen(self) -> dict[str, _Candidate]:
        return {name: _best(found) for name, found in self.tried.items()}

    @property
    def noise(self) -> float:
        return sum(candidate.noise for candidate in self.chosen.values())


def _scaling(task: GroupTask, moments: SplitMoments, tokens: _Tokens) -> Scaling | None:
    """The best scaling of the input channels, where it is allowed and worth it."""
    wanted = all(any(a.scaled for a in weight.algorithms) for weight in task.weights.values())
    if task.classes is None or not wanted:
        return None
    magnitude = class_mean(moments.magnitude, task.classes)
    weights = [(weight.weight, weight.schemes[0]) for weight in task.weights.values()]
    found = search_scaling(weights, tokens.every, magnitude)
    gain = found.plain_error - found.error
    return found if gain > task.least_gain * found.plain_error else None


def _solve(weights: Mapping[str, WeightTask], space: _Space) -> _Option:
    every, judging = space.every, space.judging
    return _Option(space, {n: list(_tried(w, space, every, judging)) for n, w in weights.items()})


def _tried(task: WeightTask, space: _Space, every: Matrix, judging: Matrix) -> Iterator[_Candidate]:
    weight = space.weight(task.weight)
    for scheme in task.schemes:
        for algorithm in task.algorithms:
            if space.factor is not None and not algorithm.scaled:
                continue
            params = _no_worse_than_covering(weight, every, algorithm, scheme)
            label = f"{algorithm.name}, {scheme.label}"
            noise = output_error(dequantized(weight, params) - weight, judging)
            yield _Candidate(label, params, None, noise)
            for shrinkage in _shrinkages(algorithm, space.tokens):
                found = gptq_steps(weight, params, space.compensation("fitted", shrinkage))
                noise = output_error(times_scales(found, params) - weight, judging)
                yield _Candidate(label, params, shrinkage, noise)


def _no_worse_than_covering(
    weight: Matrix, gram: Matrix, algorithm: Algorithm, scheme: Scheme
) -> QParams:
    """The algorithm's ranges, unless those that cover each block err less on all tokens."""
    params = ranges_of(weight, gram, algorithm.ranges, scheme)
    if algorithm.ranges == "minmax":
        return params
    covering = minmax_params(weight, scheme)
    errors = [output_error(dequantized(weight, p) - weight, gram) for p in (params, covering)]
    return params if errors[0] <= errors[1] else covering


def _shrinkages(algorithm: Algorithm, tokens: _Tokens) -> tuple[float, ...]:
    if not algorithm.compensated:
        return ()
    return SHRINKAGES if tokens.held_out else (_UNTRIED,)


def _best(candidates: Sequence[_Candidate]) -> _Candidate:
    """The one with the least error; of GPTQ the most cautious of those that are nearly as good."""
    least = min(candidates, key=lambda candidate: candidate.noise)
    if least.shrinkage is None:
        return least
    alike = [
        each
        for each in candidates
        if each.label == least.label
        and each.shrinkage is not None
        and each.noise <= _AS_GOOD * least.noise
    ]
    return max(alike, key=lambda candidate: candidate.shrinkage or 0.0)


def _fitted_to_all(task: WeightTask, space: _Space, best: _Candidate) -> BlockResult:
    """The best candidate, GPTQ with all tokens where it is that."""
    if best.shrinkage is None:
        return BlockResult(best.label, best.params, None)
    weight, gram = space.weight(task.weight), space.every
    steps = gptq_steps(weight, best.params, space.compensation("every", best.shrinkage))
    compensated = output_error(times_scales(steps.copy(), best.params) - weight, gram)
    nearest = output_error(dequantized(weight, best.params) - weight, gram)
    packed = _packed(steps, best.params) if compensated <= nearest else None
    return BlockResult(best.label, best.params, packed)


def _packed(steps: Matrix, params: QParams) -> NDArray[np.uint8]:
    size = block_size(params.scheme)
    zero = np.repeat(params.zero_point, size, axis=1)[:, : steps.shape[1]]
    return pack_blocks((steps + zero).astype(np.uint8), params.scheme.bits, size)
