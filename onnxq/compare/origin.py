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

A value that no input has a part in belongs to the node that reads it. So does one that the other
side holds at other scales, as SmoothQuant and AWQ leave it: a factor for each channel, which nodes
behind it, written differently there, divide out again. Memory: the values of one
piece, in the walk those that later nodes still read.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import onnx_ir as ir

from onnxq.compare.node_difference import differences
from onnxq.errors import ModelError
from onnxq.numerics.metrics import relative_error
from onnxq.numerics.rescaling import FactorMeter

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
        rescaled: Values that were passed over, since the other side holds them at other scales.
    """

    kind: Kind
    value: str
    boundary: frozenset[str]
    own_error: float
    error: float
    greatest: tuple[str, float]
    walked: tuple[int, int]
    later: str = ""
    rescaled: tuple[str, ...] = ()


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
        there = other.segments.varying
        self.values = [
            name
            for name, value in reference.segments.varying.items()
            if name in there and _may_be_float(value) and _may_be_one(value, there[name])
        ]
        self._all = frozenset(self.values)
        self._errors: dict[str, float] = dict.fromkeys(feeds, 0.0)
        self._rescaled: dict[str, None] = {}

    def find(self, output: str, progress: Callable[[int, int], None]) -> Origin:
        """The origin of the difference in an output.

        Raises:
            ModelError: The model does not run as far as one of its values.
        """
        progress(0, 1)
        if self.error(output) <= self.tolerance:
            return Origin("vanishes", output, frozenset(), 0.0, 0.0, ("", 0.0), (0, 0))
        end = time.monotonic() + self._limit
        found = self._bisect(output)
        while self._held_at_other_scales(found):
            found = self._bisect(output)
        while True:
            line = self._line(found)
            walked = self._walk(line[:-1], end, progress)
            first = next((name for name, error in walked.items() if error > self.tolerance), "")
            if not first or not self._held_at_other_scales(first):
                break
        origin = self._judge(found, first, line, walked)
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

    def _held_at_other_scales(self, name: str) -> bool:
        """Whether a value is to be passed over; it is left out of the values then."""
        if not self._is_rescaled(name, {}):
            return False
        self._rescaled[name] = None
        self.values.remove(name)
        self._all -= {name}
        return True

    def _is_rescaled(self, name: str, known: dict[str, bool]) -> bool:
        """Whether a factor for each channel brings a value close, and none is left behind it.

        What reads it and is written differently takes the factors out; another reader passes them
        on, or they meet their inverse there, as those of queries and keys do.
        """
        if name not in known:
            known[name] = False
            known[name] = (
                name in self._all
                and not self.reference.segments.varying[name].is_graph_output()
                and self._fits(name)
                and all(
                    self._takes_out(reader, name, known)
                    for reader in self.reference.segments.readers(name)
                )
            )
        return known[name]

    def _takes_out(self, reader: ir.Node, name: str, known: dict[str, bool]) -> bool:
        made = [value.name or "" for value in reader.outputs if value.name]
        sides = [side.segments for side in self._sides]
        if not all(value in side.varying for value in made for side in sides):
            return True
        if differences(*(side.cut(made, self._all | {name}) for side in sides), opsets=False):
            return True
        return all(
            (value in self._all and (self.error(value) <= self.tolerance))
            or self._is_rescaled(value, known)
            for value in made
        )

    def _fits(self, name: str) -> bool:
        meter = FactorMeter()
        there = self._there(name)
        one = self.reference.fetch([name], self.feeds)[name]
        other = self.other.fetch([there], self.feeds)[there]
        if one.shape != other.shape or not (np.isfinite(one).all() and np.isfinite(other).all()):
            return False
        meter.add(one, other)
        return meter.relative_error <= self.tolerance

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

    def _walk(
        self, line: Sequence[str], end: float, progress: Callable[[int, int], None]
    ) -> dict[str, float]:
        """The own error of each value, up to the first that is beyond the tolerance.

        Ends before at a piece that does not run alone, and at the time ``end``. The reference's
        values come of running its nodes one by one.
        """
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
            # The other side may read what the reference does not need for this value.
            missing = [fed for fed in its.inputs if fed not in held]
            try:
                held |= self.reference.fetch(missing, self.feeds)
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

    def _judge(self, found: str, first: str, line: list[str], walked: dict[str, float]) -> Origin:
        alone = self._own(found, self._all)
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
        error, rescaled = self.error(value), tuple(self._rescaled)
        return Origin(kind, value, boundary, own, error, greatest, looked_at, later, rescaled)

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


def _may_be_one(value: ir.Value, other: ir.Value) -> bool:
    """Whether two values of one name may be the same value.

    Exporters number what they make: under the same name another operator may make a value of
    another shape.
    """
    makers = [node.op_identifier() for node in (value.producer(), other.producer()) if node]
    if len(set(makers)) == 1 or value.shape is None or other.shape is None:
        return True
    if value.shape.rank() != other.shape.rank():
        return False
    pairs = zip(value.shape, other.shape, strict=True)
    return not any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs)
