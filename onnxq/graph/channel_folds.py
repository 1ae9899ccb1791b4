"""Into which constants a division of an activation's channels can go, so that no node is added.

From the activation the division is followed backwards (``channel_moves.py``) until constants take
it. It is declined, with a reason, where anybody else would see the difference:
    - a value on the way is an output of the model, read inside of a subgraph, or read by another
      node, unless that one only selects channels that are not divided;
    - a weight is shared, is an output, or may be replaced by a caller. A vector that others read
      as well is copied instead: they keep theirs;
    - an operator on the way does not commute with the division, or channels cannot be told apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxq.graph.arithmetic_moves import ARITHMETIC
from onnxq.graph.attention_moves import ATTENTION
from onnxq.graph.channel_moves import MOVES, Made
from onnxq.graph.channels import NONE, Classes, NoFoldError, channel_axis
from onnxq.graph.derived import origin_of
from onnxq.graph.edit import constant_tensor, consumers
from onnxq.graph.selections import is_selection, reads_divided
from onnxq.graph.weighted import FLOATS

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx_ir as ir
    from numpy.typing import NDArray

    from onnxq.graph.channels import Labels

_MOVES = {**MOVES, **ARITHMETIC, **ATTENTION}
_MOST_STEPS = 64
"""So many operators lie between an activation and the constants, at most."""


@dataclass(frozen=True, slots=True, eq=False)
class FoldedParameter:
    """A constant that takes the division.

    Attributes:
        node: The node that reads it.
        input: At which input.
        axis: Its axis along which it is divided, counted from the end. It is broadcast to as many
            axes, and along this one, where it has fewer.
        channels: For each position along the axis the activation's channel that it is divided as,
            ``NONE`` where it is not.
    """

    node: str
    input: int
    axis: int
    channels: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """Where a division goes.

    Attributes:
        parameters: The constants that take it; empty if none can.
        classes: ``[K]``; channels of the same number have to be divided by the same.
        between: Names of the values behind the constants and before the activation, which come out
            divided as well.
        reason: Why no constants can take it; empty if they can.
    """

    parameters: tuple[FoldedParameter, ...]
    classes: NDArray[np.int64]
    between: tuple[str, ...] = ()
    reason: str = ""


def find_fold(
    value: ir.Value, labels: Labels, readers: Collection[tuple[ir.Node, int]], model: ir.Model
) -> Fold:
    """Find the constants that can take the division of an activation's channels.

    Args:
        value: The activation, of the main graph.
        labels: The channel of each of its elements (``channels.py``): ``arange(K)``, with axes of
            length 1 behind where the channels are not on the last axis.
        readers: Who is going to read the divided activation, each with the index of the input.
        model: A normalized model; left as it is.
    """
    count = int(labels.max(initial=-1)) + 1
    search = _Search(model, count)
    try:
        search.divide(value, labels, readers)
    except NoFoldError as refusal:
        return Fold((), np.arange(count), reason=str(refusal))
    classes = search.classes.numbered()
    if count > 1 and not classes.any():
        text = "all its channels would have to be divided by the same"
        return Fold((), np.arange(count), reason=text)
    # The activation itself comes last.
    return Fold(tuple(search.parameters), classes, tuple(search.between[:-1]))


class _Search:
    """The constants and values found so far."""

    def __init__(self, model: ir.Model, channels: int) -> None:
        self.model = model
        self.classes = Classes(channels)
        self.parameters: list[FoldedParameter] = []
        self.between: list[str] = []
        self.steps = 0

    def divide(
        self, value: ir.Value, labels: Labels, readers: Collection[tuple[ir.Node, int]]
    ) -> None:
        """Divide a value for its readers.

        Raises:
            NoFoldError: Nothing can take the division.
        """
        name, node = value.name or "", value.producer()
        _check_readers(value, labels, readers)
        if node is None:
            text = f"{name!r} is an input of the model"
            raise NoFoldError(text)
        self.steps += 1
        handler = _MOVES.get((node.domain, node.op_type))
        if handler is None:
            text = f"{node.op_type} {node.name!r} does not commute with a division of channels"
            raise NoFoldError(text)
        if self.steps > _MOST_STEPS:
            text = "the constants are too far away"
            raise NoFoldError(text)
        made = Made(node, node.outputs.index(value), labels)
        try:
            alternatives = handler(made, self.classes)
        except (ValueError, IndexError) as error:
            text = f"the shapes at {node.op_type} {node.name!r} contradict each other"
            raise NoFoldError(text) from error
        self._any(node, alternatives)
        self.between.append(name)

    def _any(self, node: ir.Node, alternatives: list[list[tuple[int, Labels]]]) -> None:
        """Take the first alternative that goes."""
        reasons = []
        for moves in alternatives:
            kept = len(self.parameters), len(self.between), self.classes.of
            try:
                for index, labels in moves:
                    self._move(node, index, labels)
            except NoFoldError as refusal:
                reasons.append(str(refusal))
                del self.parameters[kept[0] :], self.between[kept[1] :]
                self.classes.of = kept[2]
            else:
                return
        fallback = f"{node.op_type} {node.name!r} has no operand of its shape"
        raise NoFoldError("; ".join(reasons) or fallback)

    def _move(self, node: ir.Node, index: int, labels: Labels) -> None:
        value = node.inputs[index]
        if value is None or (labels == NONE).all():
            return
        if constant_tensor(value) is None:
            self.divide(value, labels, {(node, index)})
            return
        _check_parameter(value, self.model)
        axis = channel_axis(labels)
        channels = labels.reshape(-1)
        self.parameters.append(FoldedParameter(node.name or "", index, axis, channels))


def _check_readers(
    value: ir.Value, labels: Labels, readers: Collection[tuple[ir.Node, int]]
) -> None:
    name = value.name or ""
    if value.is_graph_output():
        text = f"{name!r} is an output of the model"
        raise NoFoldError(text)
    known = set(readers)
    for node, index in consumers(value):
        if (node, index) in known:
            continue
        if node.graph is not value.graph:
            text = f"{name!r} is read inside of a subgraph"
            raise NoFoldError(text)
        if not (is_selection(node) and index == 0 and not reads_divided(node, labels)):
            text = f"{name!r} is also read by {node.op_type} {node.name!r}"
            raise NoFoldError(text)


def _check_parameter(value: ir.Value, model: ir.Model) -> None:
    """See that a constant can be replaced by another for one reader."""
    name, tensor = value.name or "", constant_tensor(value)
    reason = ""
    if value.graph is not model.graph or not value.is_initializer() or tensor is None:
        reason = f"{name!r} is no initializer of the main graph"
    elif value.is_graph_input():
        reason = f"{name!r} is also an input of the model, so a caller may replace it"
    elif value.is_graph_output():
        reason = f"{name!r} is also an output of the model"
    elif tensor.dtype not in FLOATS:
        reason = f"{name!r} is {tensor.dtype.name}, no floating-point number"
    elif sum(length > 1 for length in tensor.shape.numpy()) > 1:
        reason = why_shared(value, 1)
    if reason:
        raise NoFoldError(reason)


def why_shared(value: ir.Value, readers: int) -> str:
    """Who else reads a weight, or what it was made from; empty if nobody does.

    Args:
        value: An initializer.
        readers: How many readers it may have.
    """
    name, uses = value.name or "", consumers(value)
    if len(uses) > readers:
        return f"{name!r} is shared: {', '.join(sorted(repr(n.name) for n, _ in uses)[:3])} read it"
    origin, graph = origin_of(value), value.graph
    if origin is None or graph is None:
        return ""
    original = graph.initializers.get(origin.name)
    if original is None or original is value or original.const_value is not origin.tensor:
        return ""
    others = consumers(original)
    if not others:
        return ""
    return f"{name!r} is {origin.name!r} rearranged, which {others[0][0].name!r} reads, too"
