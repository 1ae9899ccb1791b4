"""External data is read inside the model's folder and nowhere else.

A model file names the files that hold its weights. Such a name may be absolute, climb out with
``..``, be a link to somewhere else, or ask for bytes that are not there. All of that is found when
the model is loaded, before anything is mapped, and not in the middle of a run. A file that changes
afterwards is noticed when the result is written.
"""

from __future__ import annotations

import hashlib
import stat
from itertools import pairwise
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Final

import onnx
import onnx_ir as ir

from onnxq.errors import ModelError
from onnxq.graph import limits
from onnxq.graph.checks import stored_tensors
from onnxq.graph.stored_tensors import shortened
from onnxq.graph.tensors import all_tensors

if TYPE_CHECKING:
    from collections.abc import Iterable

_COPY = "put the data file itself into the model's folder and name it by a relative path"
_AGAIN = "copy or export the model again, together with its data files"


_STAMP: Final = "onnxq.stamp"


def secure_external_data(model: ir.Model, path: Path) -> None:
    """Bind the external tensors of a freshly read model to its folder, and check each one.

    Args:
        model: Changed in place: every external tensor is told the folder.
        path: The model file, absolute.

    Raises:
        ModelError: If a location leaves the folder, is missing, is no ordinary file, offset and
            length do not fit the tensor or the file, two tensors lie across each other, or many
            name the same bytes.
    """
    folder = path.parent
    found: dict[str, _Stamp] = {}
    tensors = [t for t in all_tensors(model) if isinstance(t, ir.ExternalTensor)]
    for tensor in tensors:
        tensor.base_dir = folder
        location = str(tensor.location)
        if location not in found:
            try:
                found[location] = _check_location(folder, location, path)
            # A loop of links (RuntimeError before Python 3.13), a name that no file can have.
            except (OSError, ValueError, RuntimeError) as error:
                why = getattr(error, "strerror", None) or "no file can be there"
                code = "graph.external_missing"
                text = f"external data {shortened(location)!r} cannot be opened: {why}"
                raise ModelError(code, text, where=str(path), remedy=_AGAIN) from error
        _check_range(tensor, found[location][2], path)
        tensor.meta[_STAMP] = found[location]
    _check_overlap(tensors, path)
    total, stored = sum(t.nbytes for t in tensors), sum(size for _, _, size, _ in found.values())
    if total > limits.EXTERNAL_BYTES or stored > limits.EXTERNAL_BYTES:
        code, most = "graph.too_large", limits.EXTERNAL_BYTES >> 30
        text = f"{max(total, stored) >> 30:,} GiB of external data, more than {most:,} GiB"
        raise ModelError(code, text, where=str(path), remedy=_AGAIN)
    if total > limits.SHARED_WEIGHTS * stored:
        code = "graph.external_shared"
        text = f"its tensors add up to {total:,} bytes, which {stored:,} bytes of data are read as"
        raise ModelError(code, text, where=str(path), remedy=_AGAIN)


def check_checksums(proto: onnx.ModelProto, path: Path) -> None:
    """Compare the data files with the SHA-1 that the model states of them, where it does.

    Args:
        proto: The parsed model, its locations already found good.
        path: The model file, absolute.

    Raises:
        ModelError: A file has another digest.
    """
    stated = {
        (entries["location"], entries["checksum"])
        for entries in (
            {entry.key: entry.value for entry in tensor.external_data}
            for tensor in stored_tensors(proto)
        )
        if "checksum" in entries
    }
    for location, checksum in sorted(stated):
        with (path.parent / location).open("rb") as handle:
            # The specification names SHA-1; it finds damage, it proves no origin.
            digest = hashlib.file_digest(handle, lambda: hashlib.sha1(usedforsecurity=False))
        if digest.hexdigest() != checksum.lower():
            code = "graph.external_checksum"
            text = f"external data {shortened(location)!r} does not have the checksum it should"
            raise ModelError(code, text, where=str(path), remedy=_AGAIN)


def check_unchanged(tensors: Iterable[ir.TensorProtocol]) -> None:
    """Notice that a data file was changed or replaced since its model was loaded.

    Raises:
        ModelError: One was.
    """
    stamps = {
        Path(tensor.path): tensor.meta[_STAMP]
        for tensor in tensors
        if isinstance(tensor, ir.ExternalTensor) and _STAMP in tensor.meta
    }
    for path, stamp in stamps.items():
        try:
            now = _stamp(path)
        except OSError:
            now = None
        if now != stamp:
            code, text = "graph.external_changed", "it was changed while it was read"
            remedy = "run again, and leave the model's files alone meanwhile"
            raise ModelError(code, text, where=str(path), remedy=remedy)


def external_locations(proto: onnx.ModelProto) -> frozenset[str]:
    """The data files that a parsed model names, as it names them."""
    # Entries may be left over in a tensor that was stored inside again.
    outside = (t for t in stored_tensors(proto) if t.data_location == onnx.TensorProto.EXTERNAL)
    entries = (entry for tensor in outside for entry in tensor.external_data)
    return frozenset(entry.value for entry in entries if entry.key == "location")


def external_files(model: ir.Model) -> frozenset[Path]:
    """The data files that a model's tensors map, links resolved."""
    return frozenset(
        Path(tensor.path).resolve()
        for tensor in all_tensors(model)
        if isinstance(tensor, ir.ExternalTensor)
    )


_Stamp = tuple[int, int, int, int]
"""Device, inode, size in bytes and time of the last change of a file."""


def _stamp(path: Path) -> _Stamp:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _check_location(folder: Path, location: str, model_path: Path) -> _Stamp:
    shown = repr(shortened(location))
    windows = PureWindowsPath(location)
    target = folder / location
    if not location or PurePosixPath(location).is_absolute() or windows.anchor:
        problem = ("absolute", f"external data at {shown}, not a relative path", _COPY)
    elif ".." in windows.parts:
        problem = ("outside", f"external data at {shown}, outside its folder", _COPY)
    elif not target.resolve().is_relative_to(folder.resolve()):
        problem = ("link", f"external data {shown} is a link out of its folder", _COPY)
    elif not target.exists():
        problem = ("missing", f"external data file {shown} is missing", _AGAIN)
    elif not stat.S_ISREG(target.stat().st_mode):
        problem = ("not_a_file", f"external data {shown} is no ordinary file", _COPY)
    elif target.stat().st_nlink > 1:
        problem = ("link", f"external data {shown} has several hard links", _COPY)
    else:
        return _stamp(target)
    what, text, remedy = problem
    msg = f"graph.external_{what}"
    raise ModelError(msg, text, where=str(model_path), remedy=remedy)


def _check_range(tensor: ir.ExternalTensor, file_size: int, path: Path) -> None:
    where = f"{path}, tensor {shortened(tensor.name or '')!r}"
    if tensor.dtype == ir.DataType.STRING or tensor.dtype == ir.DataType.UNDEFINED:
        code, text = "graph.external_type", f"external data of type {tensor.dtype.name}"
        raise ModelError(code, text, where=where, remedy=_AGAIN)
    offset = tensor.offset or 0
    length = tensor.nbytes if tensor.length is None else tensor.length
    if offset < 0 or length != tensor.nbytes:
        text = f"offset {offset} and length {length} do not fit a tensor of {tensor.nbytes} bytes"
        code = "graph.external_length"
        raise ModelError(code, text, where=where, remedy=_AGAIN)
    if offset + length > file_size:
        text = (
            f"bytes {offset} to {offset + length} of {shortened(str(tensor.location))!r}, "
            f"which has {file_size}"
        )
        code = "graph.external_truncated"
        raise ModelError(code, text, where=where, remedy=_AGAIN)


def _check_overlap(tensors: Iterable[ir.ExternalTensor], path: Path) -> None:
    """Tied weights name the same bytes; bytes that belong to two tensors in part are a mistake."""
    ranges: dict[str, set[tuple[int, int]]] = {}
    for tensor in tensors:
        start = tensor.offset or 0
        if tensor.nbytes:
            places = ranges.setdefault(str(Path(tensor.path).resolve()), set())
            places.add((start, start + tensor.nbytes))
    for file, found in ranges.items():
        for (_, end), (start, _) in pairwise(sorted(found)):
            if start < end:
                code = "graph.external_overlap"
                text = f"two tensors lie across each other at byte {start} of {Path(file).name!r}"
                raise ModelError(code, text, where=str(path), remedy=_AGAIN)
