"""Reads ONNX files, lazily, and refuses broken ones where they are broken."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

from onnxq.errors import ModelError
from onnxq.graph.edit import all_nodes, sort_nodes
from onnxq.graph.external import external_files, secure_external_data
from onnxq.graph.tensors import all_tensors

PROTOBUF_LIMIT = (1 << 31) - 1
"""No protobuf message, hence no ONNX file without external data, is larger (bytes)."""

_AGAIN = "copy or export the model again"


def load(path: str | Path) -> ir.Model:
    """Read an ONNX file; weights in external files are mapped only when they are used.

    Args:
        path: The ``.onnx`` file.

    Raises:
        ModelError: If there is no such file, it is truncated or no ONNX model, its graph refers to
            values that do not exist, a tensor lacks bytes, or external data is missing, too short
            or outside the model's folder.
    """
    # An absolute folder, because onnx_ir checks no location against an empty one.
    file = Path(path).absolute()
    proto = _read(file)
    _check_complete(proto, file)
    try:
        model = ir.serde.deserialize_model(proto)
    except Exception as error:
        code, text = "graph.invalid", f"not a valid ONNX model: {reason(error)}"
        raise ModelError(code, text, where=str(file), remedy=_AGAIN) from error
    _use_one_name_for_the_onnx_domain(model)
    secure_external_data(model, file)
    for tensor in all_tensors(model):
        _check_inline(tensor, file)
    _check_defined(model, file)
    sort_nodes(model)
    return model


def file_bytes(path: str | Path) -> int:
    """Size on disk in bytes: the model file and the data files that it names."""
    file = Path(path).absolute()
    return file.stat().st_size + sum(p.stat().st_size for p in external_files(load(file)))


def reason(error: BaseException) -> str:
    """The innermost cause, on one line; the outer ones say which function it came through."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."


def _read(file: Path) -> onnx.ModelProto:
    where = str(file)
    try:
        size = file.stat().st_size
        proto = None if size > PROTOBUF_LIMIT else _parse(file)
    except OSError as error:
        code, text = "graph.cannot_read", f"cannot be read: {error.strerror or error}"
        raise ModelError(code, text, where=where, remedy="check the path") from error
    if proto is None:
        code, text = "graph.too_large", "above 2 GiB in one file, which ONNX does not allow"
        raise ModelError(code, text, where=where, remedy="save it with external data")
    return proto


def _parse(file: Path) -> onnx.ModelProto:
    try:
        return onnx.load(file, format="protobuf", load_external_data=False)
    except OSError:
        raise
    except Exception as error:  # protobuf's own types differ between its versions
        code, text = "graph.truncated", "truncated, or not an ONNX model"
        raise ModelError(code, text, where=str(file), remedy=_AGAIN) from error


def _check_complete(proto: onnx.ModelProto, file: Path) -> None:
    """Protobuf reads a file cut at a field's end, or an empty one, without complaint."""
    missing = ""
    if not proto.HasField("graph") or not proto.graph.output:
        missing = "a graph with outputs"
    elif not proto.ir_version:
        missing = "the IR version"
    elif not proto.opset_import:
        missing = "the opset version"
    if missing:
        code, text = "graph.truncated", f"truncated, or not an ONNX model: it lacks {missing}"
        raise ModelError(code, text, where=str(file), remedy=_AGAIN)
    if proto.graph.sparse_initializer:
        code, text = "graph.sparse", "it holds sparse initializers, which onnxq does not read"
        raise ModelError(code, text, where=str(file), remedy="export it with dense weights")


def _use_one_name_for_the_onnx_domain(model: ir.Model) -> None:
    imports = [model.opset_imports, *(f.opset_imports for f in model.functions.values())]
    for versions in imports:
        version = versions.pop("ai.onnx", None)
        if version is not None:
            versions.setdefault("", version)


_TYPED_FIELDS = {
    ir.DataType.FLOAT: "float_data",
    ir.DataType.DOUBLE: "double_data",
    ir.DataType.INT32: "int32_data",
    ir.DataType.INT64: "int64_data",
}


def _check_inline(tensor: ir.TensorProtocol, file: Path) -> None:
    """A tensor with too few bytes otherwise fails when it is first used, far from the cause."""
    if not isinstance(tensor, ir.serde.TensorProtoTensor):
        return
    proto = tensor.raw
    code, where = "graph.tensor_length", f"{file}, tensor {tensor.name!r}"
    if tensor.dtype == ir.DataType.UNDEFINED:
        text = "a tensor without an element type"
        raise ModelError(code, text, where=where, remedy=_AGAIN)
    if proto.HasField("raw_data"):
        present, wanted, unit = len(proto.raw_data), tensor.nbytes, "bytes"
    else:
        field = _TYPED_FIELDS.get(tensor.dtype)
        present = tensor.size if field is None else len(getattr(proto, field))
        wanted, unit = tensor.size, "elements"
    if present != wanted:
        text = f"{present} {unit} where its shape wants {wanted}"
        raise ModelError(code, text, where=where, remedy=_AGAIN)


def _check_defined(model: ir.Model, file: Path) -> None:
    known: set[ir.Value] = set()
    for graph in model.graphs():
        known.update(graph.inputs)
        known.update(graph.initializers.values())
    for function in model.functions.values():
        known.update(function.inputs)
    nodes = list(all_nodes(model))
    for node in nodes:
        known.update(node.outputs)
    read = [(node.name or node.op_type, value) for node in nodes for value in node.inputs]
    read += [("the graph's outputs", value) for graph in model.graphs() for value in graph.outputs]
    for reader, value in read:
        if value is not None and value not in known:
            code = "graph.undefined"
            text = f"value {value.name!r} is read by {reader} and made by no one"
            raise ModelError(code, text, where=str(file), remedy=_AGAIN)
