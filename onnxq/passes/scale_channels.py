"""Divide the channels of an activation by factors and multiply the weights behind it by the same.

The product stays what it is, ``x W = (x / t) (t W)``, while the channels of ``x / t`` become alike,
so that one scale serves them all, or those that matter become large. Cases:

* constants in front take the division (``graph/channel_folds.py`` says which may): nothing is added
  to the graph, and who else reads such a constant keeps reading the old one;
* else: ``x -> readers`` becomes ``x -> Mul(1 / t) -> readers``; other readers keep reading ``x``.

A constant may be multiplied for one activation and divided for another (a weight between two of
them): it is written once, with all its factors, whatever the order of the entries is.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq.errors import PlanError
from onnxq.graph.edit import constant_tensor
from onnxq.passes.base import Editor
from onnxq.plan import Reader, scaling_misfit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from onnxq.plan import ScalingEntry


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """One vector that a constant is multiplied by.

    Attributes:
        key: Equal for equal steps.
        axis: The constant's axis, counted from the end.
        vector: One factor for each position, or for each that the axis is to have.
    """

    key: tuple[str, int, int | None, bool]
    axis: int
    vector: NDArray[np.float32]


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
        steps: defaultdict[Reader, list[_Step]] = defaultdict(list)
        for entry in self.entries:
            factor = entry.factor(self.arrays)
            for reader, axis in zip(entry.weights, entry.axes, strict=True):
                shape = tuple(_constant(editor, reader)[1].shape.numpy())
                if not 0 <= axis < len(shape) or shape[axis] != factor.size:
                    raise scaling_misfit(entry.tensor)
                place = axis - len(shape)
                steps[reader].append(_Step((entry.tensor, place, None, True), place, factor))
            for fold in entry.folds:
                inverse = (1 / entry.divisor(fold, self.arrays)).astype(np.float32)
                key = (entry.tensor, fold.axis, fold.source, False)
                reader = Reader(node=fold.node, input=fold.input)
                steps[reader].append(_Step(key, fold.axis, inverse))
            if not entry.folds:
                _multiply(editor, entry, factor)
        _write(editor, steps)
        return ir.passes.PassResult(model, modified=bool(self.entries))


def _write(editor: Editor, steps: Mapping[Reader, list[_Step]]) -> None:
    """Replace each constant by one that is multiplied; equal ones are written once."""
    made: dict[tuple[object, ...], ir.Value] = {}
    for reader, own in steps.items():
        ordered = sorted(own, key=lambda step: (step.axis, step.key[0], step.key[3]))
        value, tensor = _constant(editor, reader)
        key = (value.name, *(step.key for step in ordered))
        if key not in made:
            lazy = ir.LazyTensor(
                partial(_times, tensor, ordered),
                dtype=tensor.dtype,
                shape=ir.Shape(_shape(tensor, ordered)),
                name=value.name,
            )
            made[key] = editor.constant(f"{value.name}_channel_scaled", lazy)
        editor.rewire((reader,), made[key])
    editor.drop_if_unread(str(key[0]) for key in made)


def _constant(editor: Editor, reader: Reader) -> tuple[ir.Value, ir.TensorProtocol]:
    node = editor.node(reader.node)
    value = node.inputs[reader.input] if 0 <= reader.input < len(node.inputs) else None
    name = "" if value is None else value.name or ""
    tensor = None if value is None else constant_tensor(value)
    if value is None or tensor is None:
        code, text = "plan.unknown_name", f"input {reader.input} of {reader.node!r} is no constant"
        raise PlanError(code, text, where=name, remedy="make a plan for this model")
    return value, tensor


def _shape(tensor: ir.TensorProtocol, steps: Iterable[_Step]) -> tuple[int, ...]:
    """The result's shape: a scalar or a single element is broadcast to a vector."""
    shape = list(tensor.shape.numpy())
    for step in steps:
        shape[:0] = [1] * (-step.axis - len(shape))
        if shape[step.axis] == 1:
            shape[step.axis] = step.vector.size
        elif step.vector.size not in {1, shape[step.axis]}:
            raise scaling_misfit(tensor.name or "")
    return tuple(shape)


def _times(tensor: ir.TensorProtocol, steps: Iterable[_Step]) -> ir.TensorProtocol:
    product = np.asarray(tensor.numpy())
    kind = product.dtype
    for step in steps:
        column = step.vector.reshape(-1, *[1] * (-step.axis - 1))
        product = product * (column if kind != np.float64 else column.astype(np.float64))
    return ir.Tensor(product.astype(kind), dtype=tensor.dtype)


def _multiply(editor: Editor, entry: ScalingEntry, factor: NDArray[np.float32]) -> None:
    value = editor.value(entry.tensor)
    dtype = value.dtype or ir.DataType.FLOAT
    column = (1 / factor).astype(dtype.numpy()).reshape(-1, *[1] * (-entry.axis - 1))
    inverse = editor.constant(f"{entry.tensor}_channel_scale", column)
    product = editor.add("Mul", [value, inverse], f"{entry.tensor}_scaled", dtype)
    product.outputs[0].shape = value.shape
    editor.put_behind(value, product)
    editor.rewire(entry.readers, product.outputs[0])
