"""Reads ONNX files, lazily, and refuses broken ones where they are broken.

In this order, so that each step meets only what the one before it lets through: an ordinary file,
bytes of bounded size (:mod:`onnxq.graph.wire`), a model that is whole and says nothing twice
(:mod:`onnxq.graph.checks`), data files inside its folder (:mod:`onnxq.graph.external`), a graph
that reads only what is made and has no cycle.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import BinaryIO

import onnx
import onnx_ir as ir

from onnxq.errors import ModelError
from onnxq.files import is_utf8, open_regular
from onnxq.garbage import no_collection
from onnxq.graph import limits, wire
from onnxq.graph.checks import check_proto
from onnxq.graph.edit import all_nodes, sort_nodes
from onnxq.graph.external import check_checksums, external_locations, secure_external_data
from onnxq.graph.skeleton import without_weights
from onnxq.graph.stored_tensors import shortened

_AGAIN = "copy or export the model again"


def load(path: str | Path) -> ir.Model:
    """Read an ONNX file; weights in external files are mapped only when they are used.

    Args:
        path: The ``.onnx`` file.

    Raises:
        ModelError: If there is no such file, its path is not UTF-8, it is no ordinary file, it is
            truncated or no ONNX model, it is beyond :mod:`onnxq.graph.limits`, its graph refers to
            values that do not exist or are made twice, a tensor does not fit its type, shape or
            bytes, a function calls itself, or external data is missing, damaged or outside the
            model's folder.
    """
    # An absolute folder, because onnx_ir checks no location against an empty one.
    file = Path(path).absolute()
    if not is_utf8(file):
        code, text = "graph.not_utf8", "the path is not UTF-8, which ONNX Runtime wants"
        raise ModelError(code, text, where=str(file), remedy="rename the file or folder")
    with no_collection():
        try:
            with open_regular(file) as handle:
                proto = _read(handle, file)
        except OSError as error:
            code, text = "graph.cannot_read", f"cannot be read: {error.strerror or error}"
            raise ModelError(code, text, where=str(file), remedy="check the path") from error
        model = _build(proto, file)
        secure_external_data(model, file)
    check_checksums(proto, file)
    return model


def file_bytes(path: str | Path) -> int:
    """Size on disk in bytes: a loadable model file and the data files that it names."""
    file = Path(path).absolute()
    with open_regular(file) as handle:
        proto = _read(handle, file)
    data = {(file.parent / name).resolve() for name in external_locations(proto)}
    return file.stat().st_size + sum(path.stat().st_size for path in data)


def reason(error: BaseException) -> str:
    """The innermost cause, on one line; the outer ones say which function it came through."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."


def _read(handle: BinaryIO, file: Path) -> onnx.ModelProto:
    size = os.fstat(handle.fileno()).st_size
    if size > limits.PROTOBUF_BYTES:
        code, text = "graph.too_large", "above 2 GiB in one file, which ONNX does not allow"
        raise ModelError(code, text, where=str(file), remedy="save it with external data")
    if size > limits.SKELETON_BYTES:
        with mmap.mmap(handle.fileno(), size, access=mmap.ACCESS_READ) as mapped:
            _check_size(mapped, file)
            _build(_parse(without_weights(mapped, str(file)), file), file)
        return _parse(handle.read(size), file)
    # No more than was there: a file that grows must not be read for ever.
    data = handle.read(size)
    _check_size(data, file)
    return _parse(data, file)


def _check_size(data: bytes | mmap.mmap, file: Path) -> None:
    try:
        found = wire.survey(data)
    except wire.MalformedError as error:
        msg = "graph.truncated"
        raise ModelError(msg, str(error), where=str(file), remedy=_AGAIN) from error
    except wire.WireError as error:
        msg = "graph.too_large"
        raise ModelError(msg, str(error), where=str(file), remedy=_AGAIN) from error
    # Packed integers of one byte each grow eightfold.
    if found.weights > max(2 * len(data), limits.GRAPH_BYTES):
        code, text = "graph.too_large", f"its tensors would take {found.weights >> 20} MiB"
        remedy = "save its weights as raw data"
        raise ModelError(code, text, where=str(file), remedy=remedy)


def _parse(data: bytes, file: Path) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except Exception as error:  # protobuf's own types differ between its versions
        code, text = "graph.truncated", "truncated, or not an ONNX model"
        raise ModelError(code, text, where=str(file), remedy=_AGAIN) from error
    return proto


def _build(proto: onnx.ModelProto, file: Path) -> ir.Model:
    _check_complete(proto, file)
    check_proto(proto, str(file))
    try:
        model = ir.serde.deserialize_model(proto)
    except Exception as error:
        code, text = "graph.invalid", f"not a valid ONNX model: {reason(error)}"
        raise ModelError(code, text, where=str(file), remedy=_AGAIN) from error
    _use_one_name_for_the_onnx_domain(model)
    _check_defined(model, file)
    sort_nodes(model, str(file))
    return model


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


def _use_one_name_for_the_onnx_domain(model: ir.Model) -> None:
    imports = [model.opset_imports, *(f.opset_imports for f in model.functions.values())]
    for versions in imports:
        version = versions.pop("ai.onnx", None)
        if version is not None:
            versions.setdefault("", version)


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
            name, by = shortened(value.name or ""), shortened(reader)
            text = f"value {name!r} is read by {by} and made by no one"
            raise ModelError(code, text, where=str(file), remedy=_AGAIN)
