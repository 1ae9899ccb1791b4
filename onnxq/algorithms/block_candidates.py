"""What can become of one weight in blocks, and what it costs on held-out tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from onnxq.algorithms.block_algorithm import ranges_of
from onnxq.numerics.blockwise import (
    block_size,
    dequantized,
    minmax_params,
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
        compensated: Whether GPTQ rounds it; else each weight goes to the nearest integer.
        noise: Squared error of its product on held-out tokens.
    """

    algorithm: Algorithm
    params: QParams
    compensated: bool
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
                known[algorithm.ranges] = (params, _noise(weight, params, space, "judging"))
            params, noise = known[algorithm.ranges]
            yield Candidate(algorithm, params, compensated=False, noise=noise)


def compensated(task: WeightTask, space: Space, start: Sequence[Candidate]) -> Iterator[Candidate]:
    """GPTQ in the ranges of candidates that round to the nearest."""
    weight = space.weight(task.weight)
    for candidate in start:
        if candidate.algorithm.compensated:
            steps = gptq_steps(weight, candidate.params, space.compensation("fitted"))
            change = times_scales(steps, candidate.params) - weight
            noise = space.error(change, "judging")
            yield replace(candidate, compensated=True, noise=noise)


def fitted_to_all(task: WeightTask, space: Space, best: Candidate) -> BlockResult:
    """What becomes of a weight; of GPTQ with all tokens, unless rounding errs less on them."""
    params = best.params
    if not best.compensated:
        return BlockResult(best.label, params, None)
    weight = space.weight(task.weight)
    steps = gptq_steps(weight, params, space.compensation("every"))
    error = space.error(times_scales(steps.copy(), params) - weight, "every")
    packed = _packed(steps, params) if error <= _noise(weight, params, space, "every") else None
    return BlockResult(best.label, params, packed)


def _no_worse_than_covering(
    weight: Matrix, space: Space, ranges: Ranges, scheme: Scheme
) -> QParams:
    """The ranges, unless those that cover each block err less on all tokens."""
    params = ranges_of(weight, space.gram() if ranges == "clip" else None, ranges, scheme)
    if ranges == "minmax":
        return params
    covering = minmax_params(weight, scheme)
    return min((params, covering), key=lambda each: _noise(weight, each, space, "every"))


def _noise(
    weight: Matrix, params: QParams, space: Space, part: Literal["every", "judging"]
) -> float:
    return space.error(dequantized(weight, params) - weight, part)


def _packed(steps: Matrix, params: QParams) -> NDArray[np.uint8]:
    size = block_size(params.scheme)
    zero = np.repeat(params.zero_point, size, axis=1)[:, : steps.shape[1]]
    return pack_blocks((steps + zero).astype(np.uint8), params.scheme.bits, size)
