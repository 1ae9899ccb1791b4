"""Initializers that are computed from another one, and how.

A weight that is rearranged before it is used becomes an initializer of its own: sites and passes
then meet a plain weight. It remembers its origin, so that the original and the nodes can be written
again where the derived one would only make the file larger (``passes/restore_layout.py``).

Steps: transposed, reshaped, cast between floating types, multiplied by a number. All but small
results are lazy: computed when they are read or written, and never held.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq.graph.edit import NameScope, initializer
from onnxq.graph.tensors import chunks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_LAZY_BYTES = 1 << 20
_ORIGIN = "onnxq.origin"
_NORMAL = {
    kind: float(np.finfo(kind.numpy()).tiny)
    for kind in (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)
}
"""The least normal number of each type."""


@dataclass(frozen=True, slots=True)
class Transposed:
    """``order`` as the attribute ``perm`` of Transpose."""

    order: tuple[int, ...]

    def of(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """The result."""
        return np.transpose(array, self.order)


@dataclass(frozen=True, slots=True)
class Reshaped:
    """To a shape of the same number of elements, without 0 for copies and -1 for the rest."""

    shape: tuple[int, ...]

    def of(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """The result."""
        return array.reshape(self.shape)


@dataclass(frozen=True, slots=True)
class Converted:
    """To another floating type; what is too large for it becomes infinite, as in Cast."""

    dtype: ir.DataType

    def of(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """The result."""
        with np.errstate(over="ignore"):
            return array.astype(self.dtype.numpy())


@dataclass(frozen=True, slots=True)
class Scaled:
    """Multiplied by a number, which is rounded to the tensor's type first."""

    factor: float

    def of(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """The result."""
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            product: NDArray[np.generic] = np.multiply(array, np.asarray(self.factor, array.dtype))
        return product


Step = Transposed | Reshaped | Converted | Scaled


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an initializer comes from.

    Attributes:
        name: The original's name.
        tensor: The original's contents.
        steps: What was done to it, in this order.
    """

    name: str
    tensor: ir.TensorProtocol
    steps: tuple[Step, ...]


class Deriver:
    """Makes derived initializers of the main graph; the same twice is the same initializer.

    Build one and keep it for a whole pass.
    """

    def __init__(self, model: ir.Model) -> None:
        """Collect the names in use."""
        self.model = model
        self.fresh = NameScope(model)
        self._made: dict[tuple[int, tuple[Step, ...]], ir.Value] = {}

    def __call__(self, source: ir.Value, steps: Sequence[Step], suffix: str) -> ir.Value:
        """The initializer that results from ``source`` by ``steps``.

        Args:
            source: An initializer of the main graph; a derived one counts with its own origin.
            steps: What to do to it.
            suffix: Its name is that of ``source``, a dot and this, or similar.
        """
        origin = origin_of(source)
        if origin is None:
            if source.const_value is None:
                return source
            origin = Origin(source.name or "", source.const_value, ())
        found = _shortened((*origin.steps, *steps), origin.tensor)
        if found == origin.steps:
            return source
        original = self.model.graph.initializers.get(origin.name)
        if not found and original is not None and original.const_value is origin.tensor:
            return original
        key = (id(origin.tensor), found)
        known = self._made.get(key)
        if known is not None and known.is_initializer():
            return known
        name = self.fresh(f"{source.name}.{suffix}")
        value = initializer(self.model, name, _tensor(origin.tensor, found))
        value.meta[_ORIGIN] = Origin(origin.name, origin.tensor, found)
        self._made[key] = value
        return value


def stays_normal(value: ir.Value, factor: float) -> bool:
    """Whether a constant can be multiplied by a number and no element overflows or loses bits.

    What is not finite, or below the normal numbers of its type, already, does not count.
    """
    tensor = value.const_value
    if tensor is None or tensor.dtype not in _NORMAL:
        return False
    least = _NORMAL[tensor.dtype]
    for chunk in chunks(tensor.numpy()):
        before, after = np.abs(chunk), np.abs(Scaled(factor).of(chunk))
        counts = np.isfinite(before) & (before >= least)
        if not (np.isfinite(after[counts]).all() and (after[counts] >= least).all()):
            return False
    return True


def origin_of(value: ir.Value) -> Origin | None:
    """Where an initializer comes from; None if it is the model's own."""
    found = value.meta.get(_ORIGIN)
    return found if isinstance(found, Origin) else None


def _shortened(steps: tuple[Step, ...], tensor: ir.TensorProtocol) -> tuple[Step, ...]:
    """The same in fewer steps: neighbours of a kind become one, what changes nothing goes."""
    result: list[Step] = []
    for step in steps:
        last = result[-1] if result else None
        if isinstance(step, Transposed) and isinstance(last, Transposed):
            result[-1] = Transposed(tuple(last.order[axis] for axis in step.order))
        elif isinstance(step, Reshaped) and isinstance(last, Reshaped):
            result[-1] = step
        else:
            result.append(step)
        shape, dtype = _form(result[:-1], tensor)
        if _changes_nothing(result[-1], shape, dtype):
            result.pop()
    return tuple(result)


def _changes_nothing(step: Step, shape: tuple[int, ...], dtype: ir.DataType) -> bool:
    if isinstance(step, Transposed):
        return step.order == tuple(range(len(shape)))
    if isinstance(step, Reshaped):
        return step.shape == shape
    return step.dtype == dtype if isinstance(step, Converted) else step.factor == 1.0


def _form(steps: Sequence[Step], tensor: ir.TensorProtocol) -> tuple[tuple[int, ...], ir.DataType]:
    """Shape and type after some steps."""
    shape, dtype = tuple(tensor.shape.numpy()), tensor.dtype
    for step in steps:
        if isinstance(step, Transposed):
            shape = tuple(shape[axis] for axis in step.order)
        elif isinstance(step, Reshaped):
            shape = step.shape
        elif isinstance(step, Converted):
            dtype = step.dtype
    return shape, dtype


def _tensor(tensor: ir.TensorProtocol, steps: tuple[Step, ...]) -> ir.TensorProtocol:
    shape, dtype = _form(steps, tensor)
    if math.prod(shape) * dtype.itemsize <= _LAZY_BYTES:
        return _compute(tensor, steps, dtype)
    compute = partial(_compute, tensor, steps, dtype)
    return ir.LazyTensor(compute, dtype=dtype, shape=ir.Shape(shape), cache=False)


def _compute(
    tensor: ir.TensorProtocol, steps: tuple[Step, ...], dtype: ir.DataType
) -> ir.TensorProtocol:
    array = tensor.numpy()
    for step in steps:
        array = step.of(array)
    return ir.Tensor(np.ascontiguousarray(array).reshape(array.shape), dtype=dtype)
