"""Rules of the CUDA provider: what has no kernel there, and what has a better one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir

from onnxq.graph.edit import all_nodes, constant_array, static_shape
from onnxq.lint.catalogue import load_rules
from onnxq.lint.checks.biases import int32_biases
from onnxq.lint.checks.registry import check
from onnxq.lint.finding import at
from onnxq.lint.qdq import input_of, integer_products, integer_type, is_dq, is_q
from onnxq.numerics.packing import unpack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from onnxq.lint.finding import Seen
    from onnxq.lint.view import View

_BLOCKS: Final = "MatMulNBits"
_LOOKUP: Final = "GatherBlockQuantized"
_DOMAINS: Final = frozenset({"", "com.microsoft"})
_WIDE: Final = frozenset({ir.DataType.INT16, ir.DataType.UINT16})
_WIDTHS: Final = frozenset({4, 8})


@check("cuda-int8-pairs")
def int8_pairs(view: View) -> Iterator[Seen]:
    """Products written to multiply 8-bit integers."""
    for node, _, _ in integer_products(view.model):
        yield at(node, "it is quantized to 8-bit integers, and runs in float behind its pairs")


@check("cuda-integer-operators")
def integer_operators(view: View) -> Iterator[Seen]:
    """Operators on integers without a CUDA kernel."""
    operators = load_rules()["cuda-integer-operators"].operators
    for node in all_nodes(view.model):
        if node.domain in _DOMAINS and node.op_type in operators:
            yield at(node, f"{node.op_type} has no CUDA kernel")


@check("cuda-int32-bias")
def int32_bias(view: View) -> Iterator[Seen]:
    """DequantizeLinear of int32."""
    yield from int32_biases(view)


@check("cuda-16-bit-pairs")
def sixteen_bit_pairs(view: View) -> Iterator[Seen]:
    """Q/DQ of int16 and uint16."""
    for node in all_nodes(view.model):
        if (is_q(node) or is_dq(node)) and integer_type(node) in _WIDE:
            yield at(node, f"its integers are {integer_type(node).name.lower()}")


@check("cuda-float32-blocks")
def float32_blocks(view: View) -> Iterator[Seen]:
    """MatMulNBits that reads float32."""
    for node in all_nodes(view.model):
        activation = node.inputs[0] if node.op_type == _BLOCKS else None
        if activation is not None and activation.dtype == ir.DataType.FLOAT:
            yield at(node, "its activations are float32")


@check("cuda-block-width")
def block_width(view: View) -> Iterator[Seen]:
    """MatMulNBits of other widths than 4 and 8."""
    for node in all_nodes(view.model):
        bits = node.attributes.get_int("bits", 4) if node.op_type == _BLOCKS else 4
        if bits not in _WIDTHS:
            yield at(node, f"its weights have {bits} bits")


@check("cuda-bfloat16")
def bfloat16(view: View) -> Iterator[Seen]:
    """Operators that compute in bfloat16."""
    for node in all_nodes(view.model):
        if node.op_type not in {"Cast", "Constant"} and any(
            output.dtype == ir.DataType.BFLOAT16 for output in node.outputs
        ):
            yield at(node, f"{node.op_type} computes in bfloat16")


@check("cuda-lookup-zero-points")
def lookup_zero_points(view: View) -> Iterator[Seen]:
    """GatherBlockQuantized whose blocks or zero points lie elsewhere when counted through rows."""
    for node in all_nodes(view.model):
        table = input_of(node, 0) if node.op_type == _LOOKUP else None
        shape = static_shape(table)
        if table is None or not shape:
            continue
        bits, size = (node.attributes.get_int(n, d) for n, d in (("bits", 4), ("block_size", 128)))
        lanes = 8 // bits if table.dtype == ir.DataType.UINT8 else 1
        length = shape[-1] * lanes
        if length % size:
            yield at(node, f"a row of {length} is no number of whole blocks of {size}")
        elif lanes > 1 and _lie_elsewhere(constant_array(input_of(node, 3)), bits, length // size):
            yield at(
                node, f"{length // size} blocks a row, whose zero points of {bits} bits differ"
            )


def _lie_elsewhere(packed: NDArray[Any] | None, bits: int, blocks: int) -> bool:
    """Whether zero points counted through all bytes are others than those of each row."""
    if packed is None or not packed.ndim:
        return False
    integers = np.asarray(packed, np.uint8)
    by_row = unpack(integers, bits, blocks).ravel()
    return not np.array_equal(by_row, unpack(integers.ravel(), bits, by_row.size))
