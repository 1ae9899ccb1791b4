"""Divide the channels of an activation by factors and multiply the weights behind it by the same.

The product stays what it is, ``x W = (x / t) (t W)``, while the channels of ``x / t`` become alike,
so that one scale serves them all. Cases:

* the activation is the output of a normalization that only these sites read: its scale and bias
  are divided, nothing is added to the graph;
* else: ``x -> readers`` becomes ``x -> Mul(1 / t) -> readers``; other readers keep reading ``x``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq.errors import PlanError
from onnxq.graph.edit import constant_array
from onnxq.passes.base import Editor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxq.plan import ScalingEntry


class ScaleChannels(ir.passes.InPlacePass):
    """Execute scaling entries; ``arrays`` holds their factors under ``scaling/TENSOR/factor``."""

    def __init__(self, entries: tuple[ScalingEntry, ...], arrays: Mapping[str, np.ndarray]) -> None:
        """Keep the entries."""
        self.entries = entries
        self.arrays = arrays

    def __repr__(self) -> str:
        """The pass's name."""
        return "ScaleChannels()"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Scale each activation and its weights."""
        editor = Editor(model)
        for entry in self.entries:
            key = f"scaling/{entry.tensor}/factor"
            if key not in self.arrays:
                code, text = "plan.incomplete", f"the plan lacks the array {key!r}"
                raise PlanError(code, text, remedy="make the plan again with --plan-out")
            factor = np.asarray(self.arrays[key], np.float32)
            self._scale_weights(editor, entry, factor)
            if entry.fold:
                _fold(editor, entry.fold, factor)
            else:
                _multiply(editor, entry, factor)
        return ir.passes.PassResult(model, modified=bool(self.entries))

    def _scale_weights(self, editor: Editor, entry: ScalingEntry, factor: np.ndarray) -> None:
        scaled: dict[str, ir.Value] = {}
        for reader, axis in zip(entry.weights, entry.axes, strict=True):
            weight = editor.node(reader.node).inputs[reader.input]
            name = "" if weight is None else weight.name or ""
            if name not in scaled:
                tensor = editor.weight(name)
                lazy = ir.LazyTensor(
                    partial(_times, tensor, factor, axis),
                    dtype=ir.DataType.FLOAT,
                    shape=ir.Shape(tuple(tensor.shape.numpy())),
                    name=name,
                )
                scaled[name] = editor.constant(f"{name}_channel_scaled", lazy)
            editor.rewire((reader,), scaled[name])
        editor.drop_if_unread(scaled)


def _times(tensor: ir.TensorProtocol, factor: np.ndarray, axis: int) -> ir.TensorProtocol:
    column = [1] * len(tensor.shape)
    column[axis] = -1
    return ir.Tensor(tensor.numpy() * factor.reshape(column))


def _fold(editor: Editor, name: str, factor: np.ndarray) -> None:
    node = editor.node(name)
    for index in range(1, len(node.inputs)):
        value = node.inputs[index]
        array = constant_array(value)
        if value is None or array is None:
            continue
        base = f"{value.name}_channel_scaled"
        node.replace_input_with(index, editor.constant(base, (array / factor).astype(np.float32)))
        editor.drop_if_unread((value.name or "",))


def _multiply(editor: Editor, entry: ScalingEntry, factor: np.ndarray) -> None:
    value = editor.value(entry.tensor)
    inverse = editor.constant(f"{entry.tensor}_channel_scale", (1 / factor).astype(np.float32))
    product = editor.add("Mul", [value, inverse], f"{entry.tensor}_scaled", ir.DataType.FLOAT)
    product.outputs[0].shape = value.shape
    editor.put_behind(value, product)
    editor.rewire(entry.readers, product.outputs[0])
