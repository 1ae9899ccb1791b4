"""What can become of one weight in blocks, and what it costs on held-out tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxq.algorithms.block_algorithm import ranges_of
from onnxq.numerics.blockwise import (
    block_size,
    dequantized,
    minmax_params,
    output_error,
    times_scales,
)
from onnxq.numerics.gptq import gptq_steps
from onnxq.numerics.packing import pack_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from onnxq.algorithms.block_algorithm import Algorithm, Ranges
    from onnxq.algorithms.block_space import Space
    from onnxq.numerics.blockwise import Matrix
    from onnxq.numerics.schemes import QParams, Scheme

SHRINKAGES = (0.1, 0.3, 0.6)
"""How much the off-diagonal part of GPTQ's Hessian is shrunk. Measured on SmolLM2: 0.3 is best on
text like that of calibration, 0.6 on text of another kind."""

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
class Candidate:
    """One way to quantize a weight.

    Attributes:
        algorithm: Its algorithm.
        params: Scales and zero points.
        shrinkage: That of GPTQ's Hessian; None where it rounds to the nearest.
        noise: Squared error of its product on held-out tokens.
    """

    algorithm: Algorithm
    params: QParams
    shrinkage: float | None
    noise: float

    @property
    def label(self) -> str:
        """The algorithm and the integers."""
        return f"{self.algorithm.name}, {self.params.scheme.label}"


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


def nearest(task: WeightTask, space: Space) -> Iterator[Candidate]:
    """Each algorithm's ranges with the weight rounded to the nearest; one scaled or not."""
    weight = space.weight(task.weight)
    for scheme in task.schemes:
        known: dict[Ranges, tuple[QParams, float]] = {}
        for algorithm in task.algorithms:
            if space.factor is not None and not algorithm.scaled:
                continue
            if algorithm.ranges not in known:
                params = _no_worse_than_covering(weight, space, algorithm.ranges, scheme)
                known[algorithm.ranges] = (params, _noise(weight, params, space.tokens.judging))
            params, noise = known[algorithm.ranges]
            yield Candidate(algorithm, params, None, noise)


def compensated(task: WeightTask, space: Space, start: Sequence[Candidate]) -> Iterator[Candidate]:
    """GPTQ in the ranges of candidates that round to the nearest."""
    weight = space.weight(task.weight)
    shrinkages = SHRINKAGES if space.tokens.held_out else (_UNTRIED,)
    for candidate in start:
        for shrinkage in shrinkages if candidate.algorithm.compensated else ():
            how = space.compensation("fitted", shrinkage)
            steps = gptq_steps(weight, candidate.params, how)
            change = times_scales(steps, candidate.params) - weight
            noise = output_error(change, space.tokens.judging)
            yield Candidate(candidate.algorithm, candidate.params, shrinkage, noise)


def best_of(candidates: Sequence[Candidate]) -> Candidate:
    """The one with the least error; of GPTQ the most cautious of those that are nearly as good."""
    least = min(candidates, key=lambda candidate: candidate.noise)
    if least.shrinkage is None:
        return least
    alike = [
        each
        for each in candidates
        if each.params is least.params
        and each.shrinkage is not None
        and each.noise <= _AS_GOOD * least.noise
    ]
    return max(alike, key=lambda candidate: candidate.shrinkage or 0.0)


def fitted_to_all(task: WeightTask, space: Space, best: Candidate) -> BlockResult:
    """What becomes of a weight; of GPTQ with all tokens, unless rounding errs less on them."""
    params = best.params
    if best.shrinkage is None:
        return BlockResult(best.label, params, None)
    weight, gram = space.weight(task.weight), space.tokens.every
    steps = gptq_steps(weight, params, space.compensation("every", best.shrinkage))
    error = output_error(times_scales(steps.copy(), params) - weight, gram)
    packed = _packed(steps, params) if error <= _noise(weight, params, gram) else None
    return BlockResult(best.label, params, packed)


def _no_worse_than_covering(
    weight: Matrix, space: Space, ranges: Ranges, scheme: Scheme
) -> QParams:
    """The ranges, unless those that cover each block err less on all tokens."""
    gram = space.tokens.every
    params = ranges_of(weight, gram, ranges, scheme)
    if ranges == "minmax":
        return params
    covering = minmax_params(weight, scheme)
    return min((params, covering), key=lambda each: _noise(weight, each, gram))


def _noise(weight: Matrix, params: QParams, gram: Matrix) -> float:
    return output_error(dequantized(weight, params) - weight, gram)


def _packed(steps: Matrix, params: QParams) -> NDArray[np.uint8]:
    size = block_size(params.scheme)
    zero = np.repeat(params.zero_point, size, axis=1)[:, : steps.shape[1]]
    return pack_blocks((steps + zero).astype(np.uint8), params.scheme.bits, size)
