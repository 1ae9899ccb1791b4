"""Which shapes the samples give the inputs whose shape a model leaves open."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from onnxq.graph.structure import InputSpec

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ShapeRange:
    """The shapes of one input.

    Attributes:
        name: The input.
        least: The least length of each axis.
        typical: Its shape in the median sample by size; one sample's for every input.
        greatest: The greatest length of each axis.
    """

    name: str
    least: Shape
    typical: Shape
    greatest: Shape


def open_inputs(inputs: Iterable[InputSpec]) -> list[InputSpec]:
    """The inputs whose rank or a length of which is not fixed."""
    return [
        spec
        for spec in inputs
        if not spec.rank_known or not all(isinstance(dim, int) for dim in spec.shape)
    ]


def shape_ranges(
    names: Sequence[str], feeds: Iterable[Mapping[str, NDArray[Any]]]
) -> tuple[tuple[ShapeRange, ...], int]:
    """The range of each input's shapes, and of how many samples.

    Args:
        names: The inputs.
        feeds: The samples; every one has all of these inputs, each of one rank throughout.

    Raises:
        ValueError: An input's rank differs between samples, one lacks it, or there is no sample.
    """
    counts: Counter[tuple[Shape, ...]] = Counter()
    for feed in feeds:
        missing = [name for name in names if name not in feed]
        if missing:
            msg = f"a sample lacks {missing[0]!r}"
            raise ValueError(msg)
        counts[tuple(feed[name].shape for name in names)] += 1
    if not counts:
        msg = "there is no sample"
        raise ValueError(msg)
    typical = _median(list(counts.elements()))
    ranges = []
    for index, name in enumerate(names):
        shapes = [together[index] for together in counts]
        if len(set(map(len, shapes))) > 1:
            msg = f"the rank of {name!r} differs between samples"
            raise ValueError(msg)
        axes = list(zip(*shapes, strict=True))
        least, greatest = tuple(map(min, axes)), tuple(map(max, axes))
        ranges.append(ShapeRange(name, least, typical[index], greatest))
    return tuple(ranges), counts.total()


def _median(shapes: Sequence[tuple[Shape, ...]]) -> tuple[Shape, ...]:
    ordered = sorted(shapes, key=lambda together: (sum(map(prod, together)), together))
    return ordered[(len(ordered) - 1) // 2]
