"""How a division of channels moves through arithmetic, and which constants take it.

As :mod:`.channel_moves`, from a node and the labels of its output to alternatives. Cases:
    - Add, Sub, Sum: all operands; Mul: either one, a vector first; Div: the dividend;
    - MatMul: the right operand for columns, the left one for rows; Gemm: B and C; Conv: W and B;
    - LayerNormalization, RMSNormalization and those alike: scale and bias, never what is
      normalized; of the Skip variants not the bias that is added before;
    - BatchNormalization, InstanceNormalization: scale and bias.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxq.graph.channels import Classes, NoFoldError, dims_of, narrowed, padded
from onnxq.graph.edit import constant_tensor
from onnxq.graph.opset import MICROSOFT

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxq.graph.channel_moves import Handler, Made, Move
    from onnxq.graph.channels import Labels


def _sum(made: Made, classes: Classes) -> list[list[Move]]:
    return [[(index, _operand(made, index, classes)) for index in range(len(made.node.inputs))]]


def _product(made: Made, classes: Classes) -> list[list[Move]]:
    """Either operand. No element is to be divided for several channels."""
    if is_gelu(made.node):
        text = f"{made.node.name!r} is part of a Gelu, which runs as one operator"
        raise NoFoldError(text)
    found: list[list[Move]] = []
    for index in sorted(range(2), key=lambda index: _preference(made, index)):
        merged = Classes(classes.of.size)
        try:
            labels = _operand(made, index, merged)
        except NoFoldError:
            continue
        if np.array_equal(merged.of, np.arange(classes.of.size)):
            found.append([(index, labels)])
    return found


def _preference(made: Made, index: int) -> int:
    """A constant of many elements first; a single number last, which the runtime may fuse."""
    value = made.node.inputs[index]
    tensor = None if value is None else constant_tensor(value)
    if tensor is None:
        return 1
    return 0 if tensor.size > 1 else 2


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


def _conv(made: Made, classes: Classes) -> list[list[Move]]:
    """All positions of a channel are divided by the same, those too that somebody flattened."""
    tensor = None if made.node.inputs[1] is None else constant_tensor(made.node.inputs[1])
    if tensor is None:
        text = f"the weight of Conv {made.node.name!r} is no constant"
        raise NoFoldError(text)
    rank, count = len(tensor.shape), int(tensor.shape.numpy()[0])
    positions = [1] * (rank - 2)
    channels = narrowed(made.labels, (1, count, *positions), classes).reshape(-1)
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


ARITHMETIC: dict[tuple[str, str], Handler] = {
    ("", "Add"): _sum,
    ("", "BatchNormalization"): _channel_affine,
    ("", "Conv"): _conv,
    ("", "Div"): _dividend,
    ("", "Gemm"): _gemm,
    ("", "InstanceNormalization"): _channel_affine,
    ("", "LayerNormalization"): _affine(1, 2),
    ("", "MatMul"): _matmul,
    ("", "Mul"): _product,
    ("", "RMSNormalization"): _affine(1),
    ("", "SimplifiedLayerNormalization"): _affine(1),
    ("", "Sub"): _sum,
    ("", "Sum"): _sum,
    (MICROSOFT, "EmbedLayerNormalization"): _affine(5, 6),
    (MICROSOFT, "SkipLayerNormalization"): _affine(2, 3),
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): _affine(2),
}
"""By domain and operator."""
