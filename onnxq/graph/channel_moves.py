"""How a division of channels moves from what an operator makes to what it reads.

One function an operator, from a node and the labels of one of its outputs (``channels.py``) to
alternatives, each a list of inputs that together take the division, with their labels. Cases:
    - Identity, Relu, LeakyRelu, PRelu, Abs, Neg: their first input, because
      f(x / t) = f(x) / t for every t > 0;
    - MaxPool, AveragePool, GlobalMaxPool, GlobalAveragePool: the same, for channels on axis 1;
    - Reshape, Flatten, Squeeze, Unsqueeze, Transpose, Expand, Concat, Slice, Gather, Split.
Arithmetic is in ``arithmetic_moves.py``, attention in ``attention_moves.py``. Anything else does
not commute with the division.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxq.graph.channels import (
    Classes,
    NoFoldError,
    before_reshape,
    before_transpose,
    channel_axis,
    dims_of,
    narrowed,
    padded,
)
from onnxq.graph.edit import constant_tensor
from onnxq.graph.selections import before_selection, integers

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

    from onnxq.graph.channels import Labels

    Move = tuple[int, Labels]
    Handler = Callable[["Made", Classes], list[list[Move]]]


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """An output of a node that is to be divided.

    Attributes:
        node: The node.
        output: Which of its outputs.
        labels: Of this output.
    """

    node: ir.Node
    output: int
    labels: Labels

    def dims(self, index: int) -> tuple[int | str | None, ...] | None:
        """The lengths of an input."""
        return dims_of(self.node.inputs[index])

    def has(self, index: int) -> bool:
        """Whether an input is there."""
        return index < len(self.node.inputs) and self.node.inputs[index] is not None

    def is_constant(self, index: int) -> bool:
        """Whether an input is a constant."""
        value = self.node.inputs[index]
        return value is not None and constant_tensor(value) is not None


def _first(made: Made, _classes: Classes) -> list[list[Move]]:
    return [[(0, made.labels)]]


def _pool(made: Made, _classes: Classes) -> list[list[Move]]:
    dims = made.dims(0)
    if dims is None or made.output:
        text = f"the shape of what {made.node.op_type} {made.node.name!r} reads is not known"
        raise NoFoldError(text)
    labels = padded(made.labels, len(dims))
    if channel_axis(labels) not in {1 - len(dims), -1} or max(labels.shape[2:], default=1) > 1:
        text = f"{made.node.op_type} {made.node.name!r} pools along the axis of the channels"
        raise NoFoldError(text)
    return [[(0, labels)]]


def _reshape(made: Made, _classes: Classes) -> list[list[Move]]:
    return [[(0, before_reshape(made.labels, made.dims(0), dims_of(made.node.outputs[0])))]]


def _squeeze(made: Made, _classes: Classes) -> list[list[Move]]:
    """Squeeze and Unsqueeze: which axes is in both shapes, whatever their lengths are."""
    before, after = made.dims(0), dims_of(made.node.outputs[0])
    given = integers(made.node, 1)
    axes = made.node.attributes.get_ints("axes", None) if given is None else given.tolist()
    if axes is None or before is None or after is None:
        return _reshape(made, _classes)
    rank = max(len(before), len(after))
    places = tuple(axis % rank for axis in axes)
    if made.node.op_type == "Squeeze":
        return [[(0, np.expand_dims(padded(made.labels, len(after)), places))]]
    return [[(0, np.squeeze(padded(made.labels, len(after)), places))]]


def _transpose(made: Made, _classes: Classes) -> list[list[Move]]:
    dims = made.dims(0)
    order = made.node.attributes.get_ints("perm", None)
    if order is None:
        if dims is None:
            text = "its shape is not known"
            raise NoFoldError(text)
        order = tuple(reversed(range(len(dims))))
    return [[(0, before_transpose(made.labels, order))]]


def _expand(made: Made, classes: Classes) -> list[list[Move]]:
    return [[(0, narrowed(made.labels, made.dims(0), classes))]]


def _concat(made: Made, _classes: Classes) -> list[list[Move]]:
    dims = dims_of(made.node.outputs[0])
    axis = made.node.attributes.get_int("axis", 0)
    if dims is None:
        text = "its shape is not known"
        raise NoFoldError(text)
    labels = padded(made.labels, len(dims))
    if labels.shape[axis] == 1:
        return [[(index, labels) for index in range(len(made.node.inputs))]]
    moves, start = [], 0
    for index in range(len(made.node.inputs)):
        part = made.dims(index)
        length = None if part is None else part[axis]
        if not isinstance(length, int):
            text = f"the lengths that Concat {made.node.name!r} joins are not known"
            raise NoFoldError(text)
        moves.append((index, np.take(labels, np.arange(start, start + length), axis)))
        start += length
    return [moves]


def _selection(made: Made, _classes: Classes) -> list[list[Move]]:
    node = made.node
    value = node.inputs[0]
    others = [value, *(out for out in node.outputs if out is not node.outputs[made.output])]
    counts = [len(other.uses()) + other.is_graph_output() for other in others if other]
    alone = counts == [1] + [0] * (len(counts) - 1)
    return [[(0, before_selection(node, made.output, made.labels, alone=alone))]]


MOVES: dict[tuple[str, str], Handler] = {
    **{("", op): _first for op in ("Abs", "Identity", "LeakyRelu", "Neg", "PRelu", "Relu")},
    **{("", op): _pool for op in ("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool")},
    **{("", op): _selection for op in ("Gather", "Slice", "Split")},
    ("", "Concat"): _concat,
    ("", "Expand"): _expand,
    ("", "Flatten"): _reshape,
    ("", "Reshape"): _reshape,
    ("", "Squeeze"): _squeeze,
    ("", "Transpose"): _transpose,
    ("", "Unsqueeze"): _squeeze,
}
"""By domain and operator."""
