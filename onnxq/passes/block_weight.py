"""What a plan says of one weight in blocks, checked, and its integers when they are wanted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import ml_dtypes
import numpy as np
import onnx_ir as ir

from onnxq.errors import PlanError
from onnxq.numerics.affine import quantize
from onnxq.numerics.packing import pack_blocks, packed_shape, unpack_blocks
from onnxq.numerics.schemes import PerBlock, QParams, Scheme, middle_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from onnxq.numerics.channel_major import ChannelMajor
    from onnxq.plan import InBlocks, Plan

_T = TypeVar("_T", bound=np.generic)

_CHUNK = 1 << 22
"""So many weights are rounded at a time, whose temporary copies are several times larger."""

_SIGNED = {2: ir.DataType.INT2, 4: ir.DataType.INT4, 8: ir.DataType.INT8}
_UNSIGNED = {2: ir.DataType.UINT2, 4: ir.DataType.UINT4, 8: ir.DataType.UINT8}
_STORED = {
    ir.DataType.INT2: np.dtype(ml_dtypes.int2),
    ir.DataType.UINT2: np.dtype(ml_dtypes.uint2),
    ir.DataType.INT4: np.dtype(ml_dtypes.int4),
    ir.DataType.UINT4: np.dtype(ml_dtypes.uint4),
    ir.DataType.INT8: np.dtype(np.int8),
    ir.DataType.UINT8: np.dtype(np.uint8),
}


@dataclass(frozen=True, eq=False, slots=True)
class BlockWeight:
    """A weight as unsigned integers ``[N, K]`` with a scale for each block of K.

    Attributes:
        name: The initializer.
        tensor: Its float contents, in its own layout.
        layout: The way to ``[N, K]``.
        bits: Width of the integers.
        symmetric: Whether all zero points are ``2^(bits - 1)``.
        block_size: Input channels to a block.
        scale: ``[N, blocks]``.
        zero_point: ``[N, blocks]``.
        chosen: The packed integers that an algorithm chose; None for the nearest.
    """

    name: str
    tensor: ir.TensorProtocol
    layout: ChannelMajor
    bits: int
    symmetric: bool
    block_size: int
    scale: NDArray[np.float32]
    zero_point: NDArray[np.uint8]
    chosen: NDArray[np.uint8] | None

    @property
    def blocks(self) -> int:
        """Blocks of an output channel."""
        return int(self.scale.shape[1])

    @property
    def dtype(self) -> ir.DataType:
        """The ONNX type of the integers where they are no packed bytes: signed if symmetric."""
        return (_SIGNED if self.symmetric else _UNSIGNED)[self.bits]

    def integers(self) -> NDArray[np.uint8]:
        """``[N, K]``."""
        if self.chosen is not None:
            return unpack_blocks(self.chosen, self.bits, self.block_size, self.layout.length)
        weight = self.layout.matrix(np.asarray(self.tensor.numpy()))
        result = np.empty(weight.shape, np.uint8)
        scheme = Scheme(self.bits, granularity=PerBlock(self.block_size, 1))
        step = max(1, _CHUNK // self.layout.length)
        for start in range(0, len(weight), step):
            rows = slice(start, start + step)
            params = QParams(self.scale[rows], self.zero_point[rows], scheme)
            result[rows] = quantize(weight[rows], params)
        return result

    def packed(self) -> ir.LazyTensor:
        """``[N, blocks, block_size · bits / 8]``, made when it is read: no weight is held twice."""
        blocks = (self.layout.channels, self.blocks)
        shape = packed_shape(blocks, self.bits, self.block_size)
        return _lazy(self._packed, ir.DataType.UINT8, shape, f"{self.name}_packed")

    def stored(self, shape: tuple[int, ...], *, own_layout: bool) -> ir.LazyTensor:
        """The integers as a tensor of :attr:`dtype`, made when it is read.

        Args:
            shape: The tensor's; if it holds more than the weight, the last block is filled up.
            own_layout: Whether the axes are those of the weight, one of them perhaps in two; else
                those of ``[N, K]``.
        """
        make = partial(self._stored, shape, own_layout=own_layout)
        return _lazy(make, self.dtype, shape, f"{self.name}_quantized")

    def typed(self, integers: NDArray[np.uint8]) -> ir.TensorProtocol:
        """Unsigned integers or zero points as a tensor of :attr:`dtype`."""
        if self.symmetric:
            shifted = (integers - np.uint8(middle_of(self.bits))).view(np.int8)
            return ir.Tensor(shifted.astype(_STORED[self.dtype]), dtype=self.dtype)
        return ir.Tensor(integers.astype(_STORED[self.dtype]), dtype=self.dtype)

    def _packed(self) -> ir.TensorProtocol:
        if self.chosen is not None:
            return ir.Tensor(self.chosen)
        return ir.Tensor(pack_blocks(self.integers(), self.bits, self.block_size))

    def _stored(self, shape: tuple[int, ...], *, own_layout: bool) -> ir.TensorProtocol:
        integers = self.integers()
        rest = math.prod(shape) // self.layout.channels - self.layout.length
        if rest:
            integers = np.pad(integers, ((0, 0), (0, rest)))
        placed = self.layout.restore(integers) if own_layout else integers
        return self.typed(placed.reshape(shape))


def read_weight(
    plan: Plan, name: str, tensor: ir.TensorProtocol, layout: ChannelMajor, entry: InBlocks
) -> BlockWeight:
    """What the plan says of a weight.

    Args:
        plan: Holds the arrays.
        name: Whose they are.
        tensor: That weight.
        layout: The way from it to ``[N, K]``.
        entry: Tells the integers.

    Raises:
        PlanError: An array is missing or does not fit the weight.
    """
    blocks = (layout.channels, -(-layout.length // entry.block_size))
    scale = _checked(plan.array("block", name, "scale"), name, np.float32, blocks)
    zero_point = np.full(blocks, middle_of(entry.bits), np.uint8)
    if not entry.symmetric:
        given = plan.array("block", name, "zero_point")
        zero_point = _checked(given, name, np.uint8, blocks)
    chosen = plan.arrays.get(f"block/{name}/packed")
    if chosen is not None:
        shape = packed_shape(blocks, entry.bits, entry.block_size)
        chosen = _checked(chosen, name, np.uint8, shape)
    if not (np.isfinite(scale).all() and scale.all()):
        raise _misfit(name, "a scale is 0 or not finite")
    if zero_point.max(initial=0) >= 1 << entry.bits:
        raise _misfit(name, f"a zero point does not fit into {entry.bits} bits")
    return BlockWeight(
        name=name,
        tensor=tensor,
        layout=layout,
        bits=entry.bits,
        symmetric=entry.symmetric,
        block_size=entry.block_size,
        scale=scale,
        zero_point=zero_point,
        chosen=chosen,
    )


def _checked(
    array: NDArray[Any], name: str, dtype: type[_T], shape: tuple[int, ...]
) -> NDArray[_T]:
    if array.dtype != dtype or array.shape != shape:
        wanted = f"{np.dtype(dtype).name} {list(shape)}"
        found = f"{array.dtype.name} {list(array.shape)}"
        raise _misfit(name, f"an array of the plan is {found}, {wanted} is wanted")
    return array


def _misfit(name: str, text: str) -> PlanError:
    return PlanError("plan.blocks", text, where=name, remedy="make the plan again")


def _lazy(
    make: Callable[[], ir.TensorProtocol], dtype: ir.DataType, shape: tuple[int, ...], name: str
) -> ir.LazyTensor:
    return ir.LazyTensor(make, dtype=dtype, shape=ir.Shape(shape), name=name)
