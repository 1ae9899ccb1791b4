"""A large model file without its weights, to be checked before they are copied.

Parsing copies a file twice. What can be wrong with it lies in the graph, so a file of gigabytes is
first checked with the elements of its main graph's initializers left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import onnx

from onnxq.graph.stored_tensors import check_raw_bytes
from onnxq.graph.wire import fields

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator

_GRAPH: Final = onnx.ModelProto.GRAPH_FIELD_NUMBER
_INITIALIZER: Final = onnx.GraphProto.INITIALIZER_FIELD_NUMBER
_RAW_DATA: Final = onnx.TensorProto.RAW_DATA_FIELD_NUMBER


def without_weights(data: mmap.mmap, where: str) -> bytes:
    """The serialized model with empty initializers in the place of those that hold raw data.

    Args:
        data: A serialized ModelProto that :func:`onnxq.graph.wire.survey` has walked.
        where: The file, for messages.

    Raises:
        ModelError: A tensor's raw data does not have the length of its shape.
    """
    return b"".join(_model(data, where))


def _model(data: mmap.mmap, where: str) -> Iterator[bytes]:
    for number, begin, start, end in fields(data, 0, len(data)):
        if number != _GRAPH:
            yield data[begin:end]
            continue
        graph = onnx.ModelProto()
        graph.graph.MergeFromString(b"".join(_graph(data, start, end, where)))
        yield graph.SerializeToString()


def _graph(data: mmap.mmap, start: int, end: int, where: str) -> Iterator[bytes]:
    for number, begin, inside, after in fields(data, start, end):
        if number == _INITIALIZER:
            yield _initializer(data, inside, after, where)
        else:
            yield data[begin:after]


def _initializer(data: mmap.mmap, start: int, end: int, where: str) -> bytes:
    kept, raw = [], None
    for number, begin, inside, after in fields(data, start, end):
        if number == _RAW_DATA:
            raw = after - inside
        else:
            kept.append(data[begin:after])
    tensor = onnx.TensorProto.FromString(b"".join(kept))
    if raw is not None:
        check_raw_bytes(tensor, raw, where)
        del tensor.dims[:]
        tensor.dims.append(0)
        tensor.raw_data = b""
    holder = onnx.GraphProto()
    holder.initializer.append(tensor)
    return holder.SerializeToString()
