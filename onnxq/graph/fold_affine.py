"""What scales and shifts the channels behind a Conv becomes part of the Conv's weights.

With ``y = s * conv(x) + t`` for each output channel: ``W' = s * W``, ``b' = s * b + t``, computed
in float64 and rounded once, so that the fused model differs from the original by float rounding
alone.

Cases, each reading the output of a Conv that has no other reader and is no graph output:
    - BatchNormalization in inference mode, its four parameters constant:
      ``s = gamma / sqrt(var + epsilon)``, ``t = beta - mean * s``;
    - Add of a constant, Sub of one: ``t = c`` or ``-c``;
    - Mul by a constant, Div by one: ``s = c`` or ``1 / c``;
      the constant has one element, or one for each channel along the channel axis.
A weight that is scaled is read by nobody else. Declined: anything that a caller may override, and
results that are not finite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq.graph.edit import (
    NameScope,
    constant_array,
    constant_tensor,
    initializer,
    is_overridable,
    nodes_below,
    remove_if_unread,
    replace_input,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE})
_SHIFTING = frozenset({"Add", "Sub"})
_ARITHMETIC = _SHIFTING | {"Mul", "Div"}
_BATCHNORM = "BatchNormalization"


@dataclass(frozen=True, slots=True)
class _Affine:
    """What happens to each channel: ``scale * x + shift``, float64, shape (C,).

    Attributes:
        scale: The factors; None for 1, which leaves the weight as it is.
        shift: What is added.
    """

    scale: NDArray[np.float64] | None
    shift: NDArray[np.float64]


class FoldAffinePass(ir.passes.InPlacePass):
    """Fold BatchNormalization, Add, Sub, Mul and Div into the Conv before them."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold in place, in the graph and its subgraphs."""
        fresh = NameScope(model)
        folded = 0
        for node in list(nodes_below(model.graph)):
            conv = _conv_before(node, model)
            if conv is not None:
                folded += _fold(model, conv, node, fresh)
        return ir.passes.PassResult(model, bool(folded))

    def __repr__(self) -> str:
        """The pass's name."""
        return "FoldAffinePass()"


def _conv_before(node: ir.Node, model: ir.Model) -> ir.Node | None:
    place = _place_of_data(node)
    value = None if place is None else node.inputs[place]
    conv = None if value is None else value.producer()
    if conv is None or conv.op_type != "Conv" or conv.domain or conv.graph is not node.graph:
        return None
    if value is None or len(value.uses()) != 1 or value.is_graph_output():
        return None
    weight = conv.inputs[1]
    bias = conv.inputs[2] if len(conv.inputs) > 2 else None
    if weight is None or weight.dtype not in _FLOATS:
        return None
    readers = None if node.op_type in _SHIFTING else 1
    own = [weight] if bias is None else [weight, bias]
    if not all(_is_own(value, model, readers) for value in own):
        return None
    constants = [value for index, value in enumerate(node.inputs) if index != place]
    return conv if all(_is_own(value, model) for value in constants) else None


def _place_of_data(node: ir.Node) -> int | None:
    """The input that may come from a Conv; None if the node is of no foldable form."""
    if node.domain:
        return None
    if node.op_type == _BATCHNORM:
        return 0 if _is_inference(node) else None
    if node.op_type not in _ARITHMETIC:
        return None
    places = [i for i in (0, 1) if not _is_constant(node.inputs[i])]
    if len(places) != 1 or (places[0] == 1 and node.op_type in {"Sub", "Div"}):
        return None
    return places[0]


def _is_constant(value: ir.Value | None) -> bool:
    return value is not None and constant_tensor(value) is not None


def _is_inference(norm: ir.Node) -> bool:
    training = norm.attributes.get_int("training_mode", 0)
    if len(norm.inputs) != 5 or training or not norm.attributes.get_int("spatial", 1):
        return False
    return not any(output.uses() or output.is_graph_output() for output in norm.outputs[1:])


def _is_own(value: ir.Value | None, model: ir.Model, readers: int | None = None) -> bool:
    if value is None or not value.is_initializer() or is_overridable(value, model):
        return False
    return readers is None or (len(value.uses()) <= readers and not value.is_graph_output())


def _fold(model: ir.Model, conv: ir.Node, node: ir.Node, fresh: NameScope) -> bool:
    weight = constant_array(conv.inputs[1])
    if weight is None:
        return False
    affine = _batchnorm(node) if node.op_type == _BATCHNORM else _arithmetic(node, weight)
    if affine is None or affine.shift.size != weight.shape[0]:
        return False
    bias = constant_array(conv.inputs[2]) if len(conv.inputs) > 2 else None
    before = np.zeros(affine.shift.size) if bias is None else bias.astype(np.float64)
    new_weight = None
    with np.errstate(over="ignore", invalid="ignore"):
        if affine.scale is not None:
            per_channel = affine.scale.reshape((-1,) + (1,) * (weight.ndim - 1))
            new_weight = (weight.astype(np.float64) * per_channel).astype(weight.dtype)
            before = before * affine.scale
        new_bias = np.asarray(before + affine.shift).astype(weight.dtype)
    if not np.isfinite(new_bias).all():
        return False
    if new_weight is not None and not np.isfinite(new_weight).all():
        return False
    _rewire(model, conv, node, fresh, (new_weight, new_bias))
    return True


def _batchnorm(norm: ir.Node) -> _Affine | None:
    arrays = [constant_array(value) for value in norm.inputs[1:]]
    present = [array.astype(np.float64).reshape(-1) for array in arrays if array is not None]
    if len(present) != 4 or len({array.size for array in present}) != 1:
        return None
    gamma, beta, mean, variance = present
    denominator = variance + norm.attributes.get_float("epsilon", 1e-5)
    if not (denominator > 0).all():
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        scale = gamma / np.sqrt(denominator)
        return _Affine(scale, beta - mean * scale)


def _arithmetic(node: ir.Node, weight: NDArray[np.generic]) -> _Affine | None:
    """What an operator with a constant does; None where it does not go along the channels."""
    constants = [array for array in map(constant_array, node.inputs) if array is not None]
    channels, rank = weight.shape[0], weight.ndim
    if len(constants) != 1 or constants[0].ndim > rank:
        return None
    shape = (1,) * (rank - constants[0].ndim) + constants[0].shape
    if shape[1] not in {1, channels} or any(length != 1 for length in (shape[0], *shape[2:])):
        return None
    values = np.broadcast_to(constants[0].astype(np.float64).reshape(-1), (channels,))
    if node.op_type in _SHIFTING:
        return _Affine(None, -values if node.op_type == "Sub" else values)
    with np.errstate(divide="ignore", over="ignore"):
        return _Affine(1 / values if node.op_type == "Div" else values, np.zeros(channels))


def _rewire(
    model: ir.Model,
    conv: ir.Node,
    node: ir.Node,
    fresh: NameScope,
    arrays: tuple[NDArray[np.generic] | None, NDArray[np.generic]],
) -> None:
    old = [*conv.inputs[1:], *node.inputs]
    base = conv.inputs[1]
    stem = (base.name if base is not None else None) or "weight"
    if arrays[0] is not None:
        replace_input(conv, 1, initializer(model, fresh(f"{stem}.folded"), arrays[0]))
    replace_input(conv, 2, initializer(model, fresh(f"{stem}.folded_bias"), arrays[1]))
    result, output = node.outputs[0], conv.outputs[0]
    name, kind, shape = result.name, result.type, result.shape
    result.replace_all_uses_with(output, replace_graph_outputs=True)
    if node.graph is not None:
        node.graph.remove(node, safe=True)
    # A name stands for the same values before and after, by which models are compared.
    output.name, output.type = name, kind or output.type
    output.shape = output.shape if shape is None else shape
    for value in old:
        if value is not None and value is not output:
            remove_if_unread(value)
