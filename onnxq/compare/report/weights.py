"""The weights of a model as it computes with them: what its integers stand for.

==========================================  ======================================================
MatMulNBits                                 unpacked, ``(q - zero_point) * scale`` of each block
QLinearConv, QLinearMatMul, QGemm, …        ``(q - zero_point) * scale``, by their inputs
MatMulInteger, ConvInteger                  the same; the scale is the constant that the product is
                                            multiplied by behind them
anything else                               the input itself, which ONNX Runtime computes from
                                            constants (DequantizeLinear, or Cast and Mul)
==========================================  ======================================================

Source: the operators' definitions in onnxruntime/docs/ContribOperators.md and ONNX's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from onnxq.graph.edit import constant_array, consumers
from onnxq.numerics.packing import unpack, unpack_blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    Values = NDArray[np.float32]

_INPUTS: Final = {
    "DynamicQuantizeMatMul": (1, 2, 3),
    "MatMulIntegerToFloat": (1, 3, 5),
    "QGemm": (3, 4, 5),
    "QLinearConv": (3, 4, 5),
    "QLinearMatMul": (3, 4, 5),
}
"""Where operators take a weight, its scale and its zero point."""
_WITHOUT_SCALE: Final = {"ConvInteger": (1, 3), "MatMulInteger": (1, 3)}
_DEFAULT_BITS: Final = 4


def stored_weight(node: ir.Node) -> Values | None:
    """The weight of a node that takes it as integers; None of any other, or if it is unclear."""
    if node.op_type == "MatMulNBits":
        return _of_blocks(node)
    if node.op_type in _INPUTS:
        weight, scale, zero = _constants(node, _INPUTS[node.op_type])
    elif node.op_type in _WITHOUT_SCALE:
        weight, zero = _constants(node, _WITHOUT_SCALE[node.op_type])
        scale = _scale_behind(node)
    else:
        return None
    if weight is None or scale is None:
        return None
    axis = 0 if node.op_type.endswith(("Conv", "ConvInteger")) else -1
    centred = np.asarray(weight, np.float32)
    if zero is not None:
        centred = centred - _along(zero, weight.ndim, axis)
    found: Values = centred * _along(scale, weight.ndim, axis)
    return found


def takes_integers(node: ir.Node) -> bool:
    """Whether a node takes its weight as integers, as :func:`stored_weight` reads them."""
    return node.op_type in {*_INPUTS, *_WITHOUT_SCALE, "MatMulNBits"}


def _constants(node: ir.Node, indices: Sequence[int]) -> list[NDArray[np.generic] | None]:
    return [constant_array(node.inputs[i]) if i < len(node.inputs) else None for i in indices]


def _along(array: NDArray[np.generic], rank: int, axis: int) -> Values:
    """A scalar, or a value for each channel, shaped to stand beside the weight."""
    values = np.asarray(array, np.float32)
    if values.ndim != 1:
        return values
    shape = [1] * rank
    shape[axis] = values.size
    return values.reshape(shape)


def _scale_behind(node: ir.Node) -> NDArray[np.generic] | None:
    """The weight's scale, where integers are cast and multiplied by activation and weight scale."""
    cast = next((n for n, _ in consumers(node.outputs[0]) if n.op_type == "Cast"), None)
    if cast is None:
        return None
    for product, index in consumers(cast.outputs[0]):
        if product.op_type != "Mul":
            continue
        factor = product.inputs[1 - index]
        maker = None if factor is None else factor.producer()
        candidates = [factor] if maker is None else list(maker.inputs)
        for value in candidates:
            found = constant_array(value)
            if found is not None:
                return found
    return None


def _of_blocks(node: ir.Node) -> Values | None:
    """The weight ``[K, N]`` of MatMulNBits, from blocks ``[N, blocks, bytes]``."""
    packed, scale, zero = _constants(node, (1, 2, 3))
    length, size = node.attributes.get_int("K"), node.attributes.get_int("block_size")
    bits = node.attributes.get_int("bits", _DEFAULT_BITS)
    if packed is None or scale is None or length is None or size is None or bits is None:
        return None
    blocks = packed.shape[1]
    integers = unpack_blocks(np.asarray(packed, np.uint8), bits, size, length)
    scales = np.asarray(scale, np.float32).reshape(len(packed), blocks)
    middle = np.full_like(scales, 1 << (bits - 1))
    if zero is not None:
        middle = _zero_points(zero, bits, blocks)
    centred = integers.astype(np.float32) - np.repeat(middle, size, axis=1)[:, :length]
    found: Values = (centred * np.repeat(scales, size, axis=1)[:, :length]).T
    return found


def _zero_points(zero: NDArray[np.generic], bits: int, blocks: int) -> Values:
    """Packed zero points, or floats that stand for themselves, ``[N, blocks]``."""
    if zero.dtype != np.uint8:
        return np.asarray(zero, np.float32).reshape(-1, blocks)
    rows = np.asarray(zero, np.uint8).reshape(-1, -(-blocks * bits // 8))
    return unpack(rows, bits, blocks).astype(np.float32)
