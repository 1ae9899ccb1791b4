"""Tensors as files store them: the element type is known, and the elements are all there.

A tensor's elements lie in ``raw_data``, in the one typed field that belongs to its type, or in
another file, in exactly one of the three. Whatever does not fit would fail when the tensor is first
read, far from the cause, or be read as something else.

Source: the comments of ``TensorProto`` in onnx.proto.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NoReturn

import onnx
import onnx_ir as ir

from onnxq.errors import ModelError
from onnxq.graph import limits

if TYPE_CHECKING:
    from collections.abc import Mapping

_AGAIN = "copy or export the model again"

_OWN_FIELD: Final[Mapping[str, str]] = {
    "FLOAT": "float_data",
    "COMPLEX64": "float_data",
    "DOUBLE": "double_data",
    "COMPLEX128": "double_data",
    "INT64": "int64_data",
    "UINT32": "uint64_data",
    "UINT64": "uint64_data",
    "STRING": "string_data",
}
"""The typed field of an element type; all others use ``int32_data``."""

_FIELDS: Final = (*dict.fromkeys(_OWN_FIELD.values()), "int32_data")


def check_tensor(tensor: onnx.TensorProto, where: str) -> None:
    """Refuse a tensor whose type, dimensions or elements do not fit each other.

    Args:
        tensor: As it was parsed; external ones are checked as far as the model file tells.
        where: The file, for messages.

    Raises:
        ModelError: It does not fit.
    """
    where = f"{where}, tensor {shortened(tensor.name)!r}"
    dtype = element_type(tensor.data_type, where)
    size = _size(tensor, where)
    filled = [name for name in _FIELDS if len(getattr(tensor, name))]
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        _check_external_entries(tensor, where)
        if filled or tensor.raw_data:
            _refuse("graph.tensor_field", "its elements are both in this file and another", where)
        return
    own = _OWN_FIELD.get(dtype.name, "int32_data")
    raw = tensor.HasField("raw_data")
    wrong = [name for name in filled if raw or name != own]
    if wrong or (raw and dtype == ir.DataType.STRING):
        text = f"{dtype.name} elements in {', '.join(wrong) or 'raw_data'}"
        text = f"{text} beside raw_data" if raw and wrong else f"{text}, where {own} is their place"
        _refuse("graph.tensor_field", text, where)
    if raw:
        _check_length(len(tensor.raw_data), _nbytes(size, dtype), "bytes", where)
    else:
        _check_length(len(getattr(tensor, own)), _entries(size, dtype), "elements", where)


def check_raw_bytes(tensor: onnx.TensorProto, present: int, where: str) -> None:
    """Refuse a tensor whose shape does not want so many bytes of raw data.

    Raises:
        ModelError: Type, dimensions and bytes do not fit each other.
    """
    where = f"{where}, tensor {shortened(tensor.name)!r}"
    dtype = element_type(tensor.data_type, where)
    if dtype == ir.DataType.STRING:
        text = "STRING elements in raw_data, where string_data is their place"
        _refuse("graph.tensor_field", text, where)
    _check_length(present, _nbytes(_size(tensor, where), dtype), "bytes", where)


_HOLDERS = frozenset({"sequence_type", "optional_type", "map_type"})


def _refuse_map(where: str) -> NoReturn:
    """What scikit-learn's classifiers give, unless told otherwise."""
    text = "a map is no tensor, and its classes cannot be compared"
    remedy = "skl2onnx leaves it out: to_onnx(..., options={'zipmap': False})"
    raise ModelError(code="graph.map_type", message=text, where=where, remedy=remedy)


def check_type(kind: onnx.TypeProto, where: str) -> None:
    """Refuse a map, an unknown element type or a rank beyond numpy's.

    Raises:
        ModelError: One of these holds.
    """
    while (inner := kind.WhichOneof("value")) in _HOLDERS:
        if inner == "map_type":
            _refuse_map(where)
        held = getattr(kind, inner)
        kind = held.elem_type
    if inner not in {"tensor_type", "sparse_tensor_type"}:
        return
    tensor = getattr(kind, inner)
    # 0 stands for a type that is left open.
    if tensor.elem_type:
        element_type(tensor.elem_type, where)
    _check_rank(len(tensor.shape.dim), where)
    if any(dim.dim_value > limits.TENSOR_DIM for dim in tensor.shape.dim):
        _refuse("graph.tensor_dims", "a dimension that no int64 holds", where)


def element_type(number: int, where: str) -> ir.DataType:
    """The element type of a number.

    Raises:
        ModelError: There is none of this number, or it is 0.
    """
    try:
        dtype = ir.DataType(number)
    except ValueError:
        dtype = ir.DataType.UNDEFINED
    if dtype == ir.DataType.UNDEFINED:
        what = f"the unknown element type {number}" if number else "no element type"
        _refuse("graph.tensor_type", f"it has {what}", where)
    return dtype


def shortened(name: str) -> str:
    """A name for messages; that of a hostile file may be 64 KiB long."""
    return name if len(name) <= 200 else f"{name[:197]}..."


def _size(tensor: onnx.TensorProto, where: str) -> int:
    dims = list(tensor.dims[: limits.TENSOR_RANK + 1])
    _check_rank(len(tensor.dims), where)
    if any(dim < 0 for dim in dims):
        _refuse("graph.tensor_dims", f"it has dimensions {dims}", where)
    # numpy multiplies what is not zero, too, to see whether it can address it.
    if math.prod(dim for dim in dims if dim) > limits.TENSOR_DIM:
        _refuse("graph.tensor_dims", f"it has dimensions {dims}, too many elements", where)
    return math.prod(dims)


def _check_rank(rank: int, where: str) -> None:
    if rank > limits.TENSOR_RANK:
        text = f"it has {rank:,} dimensions, where {limits.TENSOR_RANK} are the most"
        _refuse("graph.tensor_dims", text, where)


def _nbytes(size: int, dtype: ir.DataType) -> int:
    return -(-size * dtype.bitwidth // 8)


def _entries(size: int, dtype: ir.DataType) -> int:
    """Numbers in the typed field: complex ones take two, those below a byte share one."""
    if dtype in {ir.DataType.COMPLEX64, ir.DataType.COMPLEX128}:
        return 2 * size
    if dtype != ir.DataType.STRING and dtype.bitwidth < 8:
        return _nbytes(size, dtype)
    return size


def _check_length(present: int, wanted: int, unit: str, where: str) -> None:
    if present != wanted:
        text = f"{present} {unit} where its shape wants {wanted}"
        _refuse("graph.tensor_length", text, where)


def _check_external_entries(tensor: onnx.TensorProto, where: str) -> None:
    """Readers differ in which of two entries counts and in how they read a number."""
    keys = [entry.key for entry in tensor.external_data]
    doubled = len(set(keys)) < len(keys)
    if doubled or "location" not in keys:
        what = "names its file or range twice" if doubled else "names no file"
        _refuse("graph.external_entries", f"its external data {what}", where)
    for entry in tensor.external_data:
        digits = entry.value.isascii() and entry.value.isdigit() and len(entry.value) < 20
        if entry.key in {"offset", "length"} and not digits:
            text = (
                f"{entry.key} {shortened(entry.value)!r} of its external data is no count of bytes"
            )
            _refuse("graph.external_length", text, where)


def _refuse(code: str, text: str, where: str) -> NoReturn:
    raise ModelError(code, text, where=where, remedy=_AGAIN)
