"""How a division of channels moves from what an operator makes to what it reads.

One function an operator, from a node and the labels of one of its outputs (``channels.py``) to
alternatives, each a list of inputs that together take the division, with their labels. Cases:
    - Identity, Relu, LeakyRelu, PRelu, Abs, Neg, Dropout that is off: their first input, because
      f(x / t) = f(x) / t for every t > 0;
    - MaxPool, AveragePool, GlobalMaxPool, GlobalAveragePool: the same, for channels on axis 1;
    - Reshape, Flatten, Squeeze, Unsqueeze, Transpose, Expand, Concat, Slice, Gather, Split;
    - Add, Sub: both operands; Mul: either one; Div: the dividend;
    - MatMul: the right operand for columns, the left one for rows; Gemm: B and C; Conv: W and B;
    - LayerNormalization, RMSNormalization and those alike: scale and bias, never what is
      normalized; of the Skip variants not the bias that is added before;
    - BatchNormalization, InstanceNormalization: scale and bias.
Attention is in ``attention_moves.py``. Anything else does not commute with the division.
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
from onnxq.graph.opset import MICROSOFT
from onnxq.graph.selections import before_selection

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


def _dropout(made: Made, _classes: Classes) -> list[list[Move]]:
    if made.has(2) or made.output:
        text = f"Dropout {made.node.name!r} may be training"
        raise NoFoldError(text)
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
    axes = made.node.attributes.get_ints("axes", None)
    tensor = constant_tensor(made.node.inputs[1]) if made.has(1) else None  # type: ignore[arg-type]
    if tensor is not None:
        axes = [int(axis) for axis in tensor.numpy().reshape(-1)]
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


def _sum(made: Made, classes: Classes) -> list[list[Move]]:
    return [[(index, _operand(made, index, classes)) for index in range(len(made.node.inputs))]]


def _product(made: Made, classes: Classes) -> list[list[Move]]:
    """Either operand; a constant comes first. No element is to be divided for several channels."""
    if is_gelu(made.node):
        text = f"{made.node.name!r} is part of a Gelu, which runs as one operator"
        raise NoFoldError(text)
    order = sorted(range(2), key=lambda index: not made.is_constant(index))
    found: list[list[Move]] = []
    for index in order:
        merged = Classes(classes.of.size)
        labels = _operand(made, index, merged)
        if np.array_equal(merged.of, np.arange(classes.of.size)):
            found.append([(index, labels)])
    return found


def _dividend(made: Made, classes: Classes) -> list[list[Move]]:
    return [[(0, _operand(made, 0, classes))]]


def _operand(made: Made, index: int, classes: Classes) -> Labels:
    """A constant is written anew in whatever shape it takes; an activation has its own."""
    if made.is_constant(index):
        return made.labels
    return narrowed(made.labels, made.dims(index), classes)


def _matmul(made: Made, classes: Classes) -> list[list[Move]]:
    if made.is_constant(1):
        return [[(1, padded(made.labels, 1))]]
    left, right = made.dims(0), made.dims(1)
    if left is None or right is None or min(len(left), len(right)) < 2:
        text = f"the shape of what MatMul {made.node.name!r} reads is not known"
        raise NoFoldError(text)
    labels = padded(made.labels, max(made.labels.ndim, 2))
    if labels.shape[-2] == 1:
        return [[(1, narrowed(labels, right, classes))]]
    if labels.shape[-1] == 1:
        return [[(0, narrowed(labels, left, classes))]]
    text = "its channels lie along several axes"
    raise NoFoldError(text)


def _gemm(made: Made, _classes: Classes) -> list[list[Move]]:
    columns = padded(made.labels, 1)
    transposed = made.node.attributes.get_int("transB", 0)
    moves = [(1, columns.reshape(-1, 1) if transposed else columns)]
    return [[*moves, (2, columns)] if made.has(2) else moves]


def _conv(made: Made, _classes: Classes) -> list[list[Move]]:
    tensor = None if made.node.inputs[1] is None else constant_tensor(made.node.inputs[1])
    if tensor is None:
        text = f"the weight of Conv {made.node.name!r} is no constant"
        raise NoFoldError(text)
    rank = len(tensor.shape)
    channels = padded(np.moveaxis(padded(made.labels, rank), 1, -1), 1)
    moves = [(1, channels.reshape(-1, *[1] * (rank - 1)))]
    return [[*moves, (2, channels)] if made.has(2) else moves]


def _affine(*inputs: int) -> Handler:
    """Normalizations whose first output is scaled and shifted by these inputs at last."""

    def moves(made: Made, _classes: Classes) -> list[list[Move]]:
        if made.output:
            text = f"{made.node.name!r} gives it before it scales"
            raise NoFoldError(text)
        channels = padded(made.labels, 1)
        return [[(index, channels) for index in inputs if made.has(index)]]

    return moves


def _channel_affine(made: Made, _classes: Classes) -> list[list[Move]]:
    """Scale and bias are vectors of the channels on axis 1."""
    node, dims = made.node, dims_of(made.node.outputs[0])
    if dims is None or made.output or node.attributes.get_int("training_mode", 0):
        text = f"{node.op_type} {node.name!r} is in training, or its shape is not known"
        raise NoFoldError(text)
    channels = padded(np.moveaxis(padded(made.labels, len(dims)), 1, -1), 1)
    return [[(1, channels), (2, channels)]]


def is_gelu(node: ir.Node) -> bool:
    """Whether a Mul is part of a Gelu: a factor of it is 1 + erf or 1 + tanh, itself or halved.

    The runtime knows it by its plain numbers, so these are left as they are.
    """
    return any(_is_gate(value, 2) for value in node.inputs)


def _is_gate(value: ir.Value | None, depth: int) -> bool:
    producer = None if value is None else value.producer()
    if producer is None or producer.domain or not depth:
        return False
    if producer.op_type == "Add":
        makers = [None if source is None else source.producer() for source in producer.inputs]
        return any(maker is not None and maker.op_type in {"Erf", "Tanh"} for maker in makers)
    if producer.op_type != "Mul":
        return False
    return any(_is_gate(source, depth - 1) for source in producer.inputs)


MOVES: dict[tuple[str, str], Handler] = {
    **{("", op): _first for op in ("Abs", "Identity", "LeakyRelu", "Neg", "PRelu", "Relu")},
    **{("", op): _pool for op in ("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool")},
    **{("", op): _selection for op in ("Gather", "Slice", "Split")},
    ("", "Add"): _sum,
    ("", "BatchNormalization"): _channel_affine,
    ("", "Concat"): _concat,
    ("", "Conv"): _conv,
    ("", "Div"): _dividend,
    ("", "Dropout"): _dropout,
    ("", "Expand"): _expand,
    ("", "Flatten"): _reshape,
    ("", "Gemm"): _gemm,
    ("", "InstanceNormalization"): _channel_affine,
    ("", "LayerNormalization"): _affine(1, 2),
    ("", "MatMul"): _matmul,
    ("", "Mul"): _product,
    ("", "RMSNormalization"): _affine(1),
    ("", "Reshape"): _reshape,
    ("", "SimplifiedLayerNormalization"): _affine(1),
    ("", "Squeeze"): _squeeze,
    ("", "Sub"): _sum,
    ("", "Sum"): _sum,
    ("", "Transpose"): _transpose,
    ("", "Unsqueeze"): _squeeze,
    (MICROSOFT, "EmbedLayerNormalization"): _affine(5, 6),
    (MICROSOFT, "SkipLayerNormalization"): _affine(2, 3),
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): _affine(2),
}
"""By domain and operator."""
