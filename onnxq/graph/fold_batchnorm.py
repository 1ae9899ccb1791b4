"""A BatchNormalization that follows a Conv becomes part of the Conv's weights.

``s = gamma / sqrt(var + epsilon)``, ``W' = s * W`` along the output channels,
``b' = (b - mean) * s + beta``: computed in float64 and rounded once, so that the fused model
differs from the original by float rounding alone.

Cases: BatchNormalization in inference mode, its four parameters constant, reads the output of a
Conv that has no other reader and is no graph output; the Conv's weight and bias are constants that
nobody else reads. Declined: anything that a caller may override, and results that are not finite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq.graph.edit import (
    NameScope,
    constant_array,
    initializer,
    is_overridable,
    remove_if_unread,
    replace_input,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE})


@dataclass(frozen=True, slots=True)
class _Affine:
    """What BatchNormalization does to each channel: ``scale * x + shift``, float64, shape (C,)."""

    scale: NDArray[np.float64]
    shift: NDArray[np.float64]


class FoldBatchNormPass(ir.passes.InPlacePass):
    """Fold BatchNormalization into the Conv before it."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold in place, in the graph and its subgraphs."""
        fresh = NameScope(model)
        folded = 0
        for node in list(ir.traversal.RecursiveGraphIterator(model.graph)):
            conv = _conv_before(node, model)
            if conv is not None:
                folded += _fold(model, conv, node, fresh)
        return ir.passes.PassResult(model, bool(folded))

    def __repr__(self) -> str:
        """The pass's name."""
        return "FoldBatchNormPass()"


def _conv_before(norm: ir.Node, model: ir.Model) -> ir.Node | None:
    if norm.op_type != "BatchNormalization" or norm.domain or len(norm.inputs) != 5:
        return None
    training = norm.attributes.get_int("training_mode", 0) or not norm.attributes.get_int(
        "spatial", 1
    )
    value = norm.inputs[0]
    if training or value is None or len(value.uses()) != 1 or value.is_graph_output():
        return None
    if any(output.uses() or output.is_graph_output() for output in norm.outputs[1:]):
        return None
    conv = value.producer()
    if conv is None or conv.op_type != "Conv" or conv.domain or conv.graph is not norm.graph:
        return None
    weight = conv.inputs[1]
    if weight is None or weight.dtype not in _FLOATS:
        return None
    own = [weight] if len(conv.inputs) < 3 or conv.inputs[2] is None else list(conv.inputs[1:3])
    if not all(_is_own(value, model, readers=1) for value in own):
        return None
    return conv if all(_is_own(value, model) for value in norm.inputs[1:]) else None


def _is_own(value: ir.Value | None, model: ir.Model, readers: int | None = None) -> bool:
    if value is None or not value.is_initializer() or is_overridable(value, model):
        return False
    return readers is None or (len(value.uses()) <= readers and not value.is_graph_output())


def _fold(model: ir.Model, conv: ir.Node, norm: ir.Node, fresh: NameScope) -> bool:
    affine = _affine(norm)
    weight_value = conv.inputs[1]
    weight = constant_array(weight_value)
    if affine is None or weight is None or weight_value is None:
        return False
    if weight.shape[0] != affine.scale.size:
        return False
    bias_value = conv.inputs[2] if len(conv.inputs) > 2 else None
    bias = constant_array(bias_value)
    per_channel = affine.scale.reshape((-1,) + (1,) * (weight.ndim - 1))
    with np.errstate(over="ignore", invalid="ignore"):
        new_weight = (weight.astype(np.float64) * per_channel).astype(weight.dtype)
        offset = 0.0 if bias is None else bias.astype(np.float64) * affine.scale
        new_bias = np.asarray(offset + affine.shift).astype(weight.dtype)
    if not (np.isfinite(new_weight).all() and np.isfinite(new_bias).all()):
        return False
    _rewire(model, conv, norm, fresh, (new_weight, new_bias))
    return True


def _affine(norm: ir.Node) -> _Affine | None:
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


def _rewire(
    model: ir.Model,
    conv: ir.Node,
    norm: ir.Node,
    fresh: NameScope,
    arrays: tuple[NDArray[np.generic], NDArray[np.generic]],
) -> None:
    old = [*conv.inputs[1:], *norm.inputs[1:]]
    base = conv.inputs[1]
    stem = (base.name if base is not None else None) or "weight"
    replace_input(conv, 1, initializer(model, fresh(f"{stem}.bn"), arrays[0]))
    replace_input(conv, 2, initializer(model, fresh(f"{stem}.bn_bias"), arrays[1]))
    result, output = norm.outputs[0], conv.outputs[0]
    name, kind, shape = result.name, result.type, result.shape
    is_output = result.is_graph_output()
    result.replace_all_uses_with(output, replace_graph_outputs=True)
    if norm.graph is not None:
        norm.graph.remove(norm, safe=True)
    if is_output:
        output.type, output.shape = kind, shape
        output.name = name
    for value in old:
        if value is not None:
            remove_if_unread(value)
