"""All tensors that a model holds, wherever they sit."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
import onnx_ir as ir

from onnxq.graph.edit import all_nodes

if TYPE_CHECKING:
    import hashlib
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

_T = TypeVar("_T", bound=np.generic)
_CHUNK = 1 << 24


def all_tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Initializers and tensor attributes, in the graph, its subgraphs and its functions."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value
    for node in all_nodes(model):
        for attribute in node.attributes.values():
            if attribute.is_ref():
                continue
            if attribute.type == ir.AttributeType.TENSOR:
                yield attribute.as_tensor()
            elif attribute.type == ir.AttributeType.TENSORS:
                yield from attribute.as_tensors()


def weight_bytes(model: ir.Model) -> int:
    """The size of all tensors in bytes; a tensor that two values share counts twice, as on disk."""
    return sum(tensor.nbytes for tensor in all_tensors(model))


def in_memory(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """The same tensor without a reference to a file (its pages stay mapped until they are read)."""
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor
    return ir.Tensor(
        tensor.numpy(),
        dtype=tensor.dtype,
        shape=tensor.shape,
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )


def replace_tensors(
    model: ir.Model, replace: Callable[[ir.TensorProtocol], ir.TensorProtocol]
) -> None:
    """Put ``replace(tensor)`` where each tensor was; changes the model in place."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = replace(value.const_value)
    replace_attribute_tensors(model, replace)


def replace_attribute_tensors(
    model: ir.Model, replace: Callable[[ir.TensorProtocol], ir.TensorProtocol]
) -> None:
    """As :func:`replace_tensors`, for the attributes of nodes alone."""
    for node in all_nodes(model):
        for name, attribute in list(node.attributes.items()):
            if attribute.is_ref():
                continue
            if attribute.type == ir.AttributeType.TENSOR:
                node.attributes[name] = ir.AttrTensor(name, replace(attribute.as_tensor()))
            elif attribute.type == ir.AttributeType.TENSORS:
                tensors = [replace(tensor) for tensor in attribute.as_tensors()]
                node.attributes[name] = ir.AttrTensors(name, tensors)


def update_hash(state: hashlib._Hash, tensor: ir.TensorProtocol) -> None:
    """Feed type, shape and contents to a hash; how and where the tensor is stored plays no part."""
    state.update(f"{tensor.dtype.name}{tuple(tensor.shape.numpy())}:".encode())
    if isinstance(tensor, ir.StringTensor):
        for text in tensor.string_data():
            state.update(f"{len(text)}:".encode())
            state.update(text)
        return
    for chunk in chunks(tensor.numpy()):
        state.update(chunk.view(np.uint8).data)


def chunks(array: NDArray[_T]) -> Iterator[NDArray[_T]]:
    """An array as short contiguous runs in row-major order, so that no copy is ever large."""
    if array.size == 0:
        return
    if array.ndim == 0 or array.flags.c_contiguous:
        flat = array.reshape(-1)
        for start in range(0, flat.size, _CHUNK):
            yield flat[start : start + _CHUNK]
    elif array.size <= _CHUNK:
        yield np.ascontiguousarray(array).reshape(-1)
    else:
        for row in array:
            yield from chunks(row)
