"""Where two runs of one graph part: the first node whose own output differs.

Reading an intermediate value changes what ONNX Runtime fuses, so single values are read, each in a
session of its own, and what was found is run again alone::

    1. bisect   over the values in topological order, for one within the tolerance whose successor
                is not; then upstream, while an input of it is beyond the tolerance too
    2. isolate  the nodes that make the value found, on both sides, fed with the reference's values
    3. walk     from the model's inputs to there, node by node, each fed with the reference's
                values: an earlier node may differ by itself and its error have shrunk again
    4. widen    where nothing differs alone: the fewest nodes in front that differ when they run
                together. If their own errors do not add up to it, they differ because they fuse

A value that no input has a part in belongs to the node that reads it. Memory: the values of one
piece, in the walk those that later nodes still read.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import onnx_ir as ir

from onnxq.compare.node_difference import differences
from onnxq.errors import ModelError
from onnxq.numerics.metrics import relative_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from onnxq.compare.side import SideGraph, Values
    from onnxq.graph.segment import Segment

Kind = Literal["node", "fusion", "accumulated", "vanishes"]

_FLOATS: Final = frozenset({"FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE"})


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the sides part.

    Attributes:
        kind: ``node`` differs by itself; ``fusion``: nodes differ only when they run together;
            ``accumulated``: no node is beyond the tolerance, their rounding adds up;
            ``vanishes``: the output agrees as soon as it is computed without the other outputs.
        value: The name of the value that differs first.
        boundary: The values that were given to the piece that differs.
        own_error: Relative error of the value, the piece fed with the reference's values.
        error: Relative error of the value when both sides run from the model's inputs.
        greatest: The value with the greatest error of its own that the walk saw, and that error;
            empty and 0 where it saw none.
        walked: How many values the walk looked at, of how many.
        later: Where the search came upon the difference, if an earlier node differs by itself.
    """

    kind: Kind
    value: str
    boundary: frozenset[str]
    own_error: float
    error: float
    greatest: tuple[str, float]
    walked: tuple[int, int]
    later: str = ""


class Search:
    """Finds the origin of a difference on one sample."""

    def __init__(
        self,
        reference: SideGraph,
        other: SideGraph,
        feeds: Mapping[str, NDArray[Any]],
        tolerance: float,
        limit_seconds: float,
    ) -> None:
        """Take two sides and the inputs on which their outputs differ by more than a tolerance."""
        self.reference, self.other = reference, other
        self.feeds, self.tolerance = feeds, tolerance
        self._limit = limit_seconds
        shared = other.segments.varying.keys()
        self.values = [
            name
            for name, value in reference.segments.varying.items()
            if name in shared and _may_be_float(value)
        ]
        self._all = frozenset(self.values)
        self._errors: dict[str, float] = dict.fromkeys(feeds, 0.0)

    def find(self, output: str, progress: Callable[[int, int], None]) -> Origin:
        """The origin of the difference in an output.

        Raises:
            ModelError: The model does not run as far as one of its values.
        """
        progress(0, 1)
        if self.error(output) <= self.tolerance:
            return Origin("vanishes", output, frozenset(), 0.0, 0.0, ("", 0.0), (0, 0))
        found = self._bisect(output)
        alone = self._own(found, self._all)
        line = self._line(found)
        progress(1, len(line) + 1)
        walked = self._walk(line[:-1], progress)
        origin = self._judge(found, alone, line, walked)
        progress(len(line) + 1, len(line) + 1)
        return origin

    def error(self, name: str) -> float:
        """Relative error of a value, both sides run from the model's inputs to it alone."""
        if name not in self._errors:
            there = self._there(name)
            one = self.reference.fetch([name], self.feeds)[name]
            self._errors[name] = relative_error(one, self.other.fetch([there], self.feeds)[there])
        return self._errors[name]

    def pieces(self, value: str, boundary: frozenset[str]) -> tuple[Segment, Segment]:
        """What makes a value from a boundary, on both sides."""
        front = boundary - {value}
        one = self.reference.segments.cut([value], front)
        return one, self.other.segments.cut([self._there(value)], front)

    def outcome(self, value: str, boundary: frozenset[str]) -> tuple[Values, list[NDArray[Any]]]:
        """The reference's values that a piece is fed with, and what both sides make of them."""
        pieces = self.pieces(value, boundary)
        wanted = list(dict.fromkeys(name for piece in pieces for name in piece.inputs))
        fed = self.reference.fetch(wanted, self.feeds)
        made = [side.run(piece, fed)[0] for side, piece in zip(self._sides, pieces, strict=True)]
        return fed, made

    def _there(self, value: str) -> str:
        """What stands for a value on the other side.

        Where only that side quantizes it, what its readers see: a Relu may be left to the
        quantizer behind it, as the values that it clips are below its least integer.
        """
        name = self.other.segments.read_as(value)
        return value if name in self.reference.segments.varying else name

    @property
    def _sides(self) -> tuple[SideGraph, SideGraph]:
        return self.reference, self.other

    def _line(self, value: str) -> list[str]:
        """The values that a value depends on, in topological order, itself last."""
        needed = self.reference.segments.ancestors(value)
        front = [name for name in self.values if name in needed and name != value]
        order = {name: place for place, name in enumerate(self.reference.segments.varying)}
        return [*(name for name in front if order[name] < order[value]), value]

    def _bisect(self, value: str) -> str:
        """A value beyond the tolerance, of which no input is."""
        while True:
            line = self._line(value)
            low, high = -1, len(line) - 1
            while high - low > 1:
                middle = (low + high) // 2
                if self.error(line[middle]) > self.tolerance:
                    high = middle
                else:
                    low = middle
            found = line[high]
            names = {name for piece in self.pieces(found, self._all) for name in piece.inputs}
            beyond = [
                name for name in line[:high] if name in names and self.error(name) > self.tolerance
            ]
            if not beyond:
                return found
            value = beyond[0]

    def _own(self, value: str, boundary: frozenset[str]) -> float | None:
        """The error of a piece on the reference's values; None where it does not run alone."""
        try:
            _, (expected, found) = self.outcome(value, boundary)
        except ModelError:
            return None
        return relative_error(expected, found)

    def _walk(self, line: Sequence[str], progress: Callable[[int, int], None]) -> dict[str, float]:
        """The own error of each value, up to the first that is beyond the tolerance.

        Ends before at a piece that does not run alone, and at the time limit. The reference's
        values come of running its nodes one by one.
        """
        end = time.monotonic() + self._limit
        read = {
            name: [*set(mine.inputs), *set(its.inputs)]
            for name in line
            for mine, its in [self.pieces(name, self._all)]
        }
        readers = Counter(name for names in read.values() for name in names)
        held: Values = dict(self.feeds)
        own: dict[str, float] = {}
        for name in line:
            if time.monotonic() > end:
                break
            mine, its = self.pieces(name, self._all)
            try:
                (expected,) = self.reference.run(mine, held)
                found = expected if self._alike(mine, its) else self.other.run(its, held)[0]
            except ModelError:
                break
            own[name] = relative_error(expected, found)
            if own[name] > self.tolerance:
                # Alone it may be fused otherwise than among its neighbours.
                own[name] = min(own[name], self.error(name))
            if own[name] > self.tolerance:
                break
            held[name] = expected
            readers.subtract(read.pop(name))
            held = {name: array for name, array in held.items() if readers[name] > 0}
            progress(len(own) + 1, len(line) + 2)
        return own

    def _alike(self, one: Segment, other: Segment) -> bool:
        """Whether two pieces must give the same."""
        return self.reference.side.settings == self.other.side.settings and not differences(
            one, other
        )

    def _judge(
        self, found: str, alone: float | None, line: list[str], walked: dict[str, float]
    ) -> Origin:
        first = next((name for name, error in walked.items() if error > self.tolerance), "")
        greatest = max(walked.items(), key=lambda item: item[1], default=("", 0.0))
        kind: Kind = "node"
        value, boundary, later = first or found, self._all, found if first else ""
        if first:
            own = walked[first]
        elif alone is not None and alone > self.tolerance:
            own = alone
        else:
            boundary, own = self._widen(line)
            if alone is not None:
                inside = sum(error for name, error in walked.items() if name not in boundary)
                kind = "accumulated" if inside + alone > own / 2 else "fusion"
        looked_at = (len(walked), len(line) - 1)
        return Origin(kind, value, boundary, own, self.error(value), greatest, looked_at, later)

    def _widen(self, line: Sequence[str]) -> tuple[frozenset[str], float]:
        """The largest boundary found with which the last value is beyond the tolerance.

        With no boundary but the model's inputs it is; with all in front of it, it is not.
        """
        value, last = line[-1], len(line) - 1
        too_large, step = last, 1
        while (size := max(0, last - step)) > 0:
            own = self._own(value, frozenset(line[:size])) or 0.0
            if own > self.tolerance:
                break
            too_large, step = size, 2 * step + 1
        else:
            own = self.error(value)
        while too_large - size > 1:
            middle = (too_large + size) // 2
            tried = self._own(value, frozenset(line[:middle])) or 0.0
            if tried > self.tolerance:
                size, own = middle, tried
            else:
                too_large = middle
        return frozenset(line[:size]), own


def _may_be_float(value: ir.Value) -> bool:
    """Whether a value is a float tensor, as far as its type is known."""
    if value.type is None:
        return True
    return isinstance(value.type, ir.TensorType) and value.type.dtype.name in _FLOATS
