"""Constant expressions of bounded size are computed.

Declined: what makes an output of a graph; random operators; ConstantOfShape, which is smaller than
its result; Q/DQ, which says how a weight is quantized; operators of other domains; anything with a
large input; anything whose result may be large, which shows only once it is computed: a few bytes
can ask for gigabytes, or for a loop without end.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnxscript import optimizer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

FOLD_INPUT_ELEMENTS = 8192
FOLD_OUTPUT_ELEMENTS = 512 * 512
_KEEP = frozenset(
    {
        "ConstantOfShape",
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
_BOUNDLESS = frozenset(
    {
        *("AffineGrid", "Attention", "AveragePool", "BlackmanWindow", "CenterCropPad", "Col2Im"),
        *("Conv", "ConvInteger", "ConvTranspose", "DFT", "DeformConv", "Einsum", "GatherND"),
        *("GridSample", "HammingWindow", "HannWindow", "If", "ImageDecoder", "LpPool", "Loop"),
        *("MaxPool", "MaxRoiPool", "MaxUnpool", "MelWeightMatrix", "NonMaxSuppression"),
        *("QLinearConv", "RegexFullMatch", "Resize", "RoiAlign", "STFT", "Scan", "SequenceMap"),
        *("StringConcat", "StringSplit", "TfIdfVectorizer", "Upsample"),
    }
)
"""What their results take depends on more than the sizes of their inputs."""


class FoldConstantsPass(ir.passes.InPlacePass):
    """Compute constant expressions of bounded size."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold in place; what inputs and outputs declare stays as it is."""
        declared = {
            value.name: (value.type, None if value.shape is None else value.shape.copy())
            for value in (*model.graph.inputs, *model.graph.outputs)
        }
        optimizer.fold_constants(
            model,
            onnx_shape_inference=False,
            input_size_limit=FOLD_INPUT_ELEMENTS,
            output_size_limit=FOLD_OUTPUT_ELEMENTS,
            should_fold=_should_fold,
        )
        for value in (*model.graph.inputs, *model.graph.outputs):
            if value.name in declared:
                value.type, value.shape = declared[value.name]
        for graph in model.graphs():
            values = [*graph.initializers.values()]
            values += [output for node in graph for output in node.outputs]
            for value in values:
                value.metadata_props.pop("pkg.onnxscript.optimizer.folded_from", None)
        return ir.passes.PassResult(model, modified=True)

    def __repr__(self) -> str:
        """The pass's name."""
        return "FoldConstantsPass()"


def _should_fold(node: ir.Node) -> bool | None:
    if node.domain or node.op_type in _KEEP | _BOUNDLESS:
        return False
    if any(output.is_graph_output() for output in node.outputs):
        return False
    tensors = [v.const_value for v in node.inputs if v is not None and v.const_value is not None]
    # Its own rule folds a Transpose of any size, into memory; FoldLayoutPass has had its turn.
    if any(tensor.size > FOLD_INPUT_ELEMENTS for tensor in tensors):
        return False
    try:
        large = _elements(node, tensors) > FOLD_OUTPUT_ELEMENTS
    except (ArithmeticError, IndexError, TypeError, ValueError):  # evaluating it says what is wrong
        return None
    return False if large else None


def _elements(node: ir.Node, tensors: Sequence[ir.TensorProtocol]) -> float:
    """About how many elements the result of a node with constant inputs has, from above.

    Operands that broadcast (and products of a column and a row, the worst of products) give their
    common shape; where they do not, no more than the input limit lets a product have is made.
    """
    known = _ELEMENTS.get(node.op_type)
    if known is not None:
        return known(node, tensors)
    try:
        return math.prod(np.broadcast_shapes(*map(_shape, tensors)))
    except ValueError:
        return 0


def _concatenated(_: ir.Node, tensors: Sequence[ir.TensorProtocol]) -> float:
    return sum(tensor.size for tensor in tensors)


def _expanded(_: ir.Node, tensors: Sequence[ir.TensorProtocol]) -> float:
    return math.prod(np.broadcast_shapes(_shape(tensors[0]), tuple(_numbers(tensors[1]))))


def _gathered(node: ir.Node, tensors: Sequence[ir.TensorProtocol]) -> float:
    length = _shape(tensors[0])[node.attributes.get_int("axis", 0)]
    return tensors[1].size * tensors[0].size / max(length, 1)


def _multiplied(node: ir.Node, tensors: Sequence[ir.TensorProtocol]) -> float:
    rows = _shape(tensors[0])[1 if node.attributes.get_int("transA", 0) else 0]
    return rows * _shape(tensors[1])[0 if node.attributes.get_int("transB", 0) else 1]


def _one_hot(_: ir.Node, tensors: Sequence[ir.TensorProtocol]) -> float:
    return tensors[0].size * float(_numbers(tensors[1])[0])


def _padded(node: ir.Node, tensors: Sequence[ir.TensorProtocol]) -> float:
    shape = _shape(tensors[0])
    given, axes = _constant_input(node, 1), _constant_input(node, 3)
    pads = [int(pad) for pad in (node.attributes.get_ints("pads", ()) if given is None else given)]
    padded = range(len(shape)) if axes is None else [int(axis) % len(shape) for axis in axes]
    lengths = list(shape)
    for place, axis in enumerate(padded):
        lengths[axis] += pads[place] + pads[len(pads) // 2 + place]
    return math.prod(lengths)


def _range(_: ir.Node, tensors: Sequence[ir.TensorProtocol]) -> float:
    start, limit, delta = (float(_numbers(tensor)[0]) for tensor in tensors)
    return abs((limit - start) / delta) if delta else 0


def _tiled(_: ir.Node, tensors: Sequence[ir.TensorProtocol]) -> float:
    return tensors[0].size * math.prod(map(int, _numbers(tensors[1])))


_ELEMENTS: dict[str, Callable[[ir.Node, Sequence[ir.TensorProtocol]], float]] = {
    "Concat": _concatenated,
    "Expand": _expanded,
    "Gather": _gathered,
    "Gemm": _multiplied,
    "OneHot": _one_hot,
    "Pad": _padded,
    "Range": _range,
    "Tile": _tiled,
}


def _constant_input(node: ir.Node, index: int) -> NDArray[np.generic] | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    return None if value is None or value.const_value is None else _numbers(value.const_value)


def _shape(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    return tuple(tensor.shape.numpy())


def _numbers(tensor: ir.TensorProtocol) -> NDArray[np.generic]:
    return tensor.numpy().reshape(-1)
