"""External data is read inside the model's folder and nowhere else.

A model file names the files that hold its weights. Such a name may be absolute, climb out with
``..``, be a link to somewhere else, or ask for bytes that are not there. All of that is found when
the model is loaded, before anything is mapped, and not in the middle of a run.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx_ir as ir

from onnxq.errors import ModelError
from onnxq.graph.tensors import all_tensors

_COPY = "put the data file itself into the model's folder and name it by a relative path"
_AGAIN = "copy or export the model again, together with its data files"


def secure_external_data(model: ir.Model, path: Path) -> None:
    """Bind the external tensors of a freshly read model to its folder, and check each one.

    Args:
        model: Changed in place: every external tensor is told the folder.
        path: The model file, absolute.

    Raises:
        ModelError: If a location leaves the folder, is missing, is no ordinary file, or offset and
            length do not fit the tensor or the file.
    """
    folder = path.parent
    sizes: dict[str, int] = {}
    for tensor in all_tensors(model):
        if isinstance(tensor, ir.ExternalTensor):
            tensor.base_dir = folder
            location = str(tensor.location)
            if location not in sizes:
                sizes[location] = _size_inside(folder, location, path)
            _check_range(tensor, sizes[location], path)


def external_files(model: ir.Model) -> frozenset[Path]:
    """The data files that a model's tensors map, links resolved."""
    return frozenset(
        Path(tensor.path).resolve()
        for tensor in all_tensors(model)
        if isinstance(tensor, ir.ExternalTensor)
    )


def _size_inside(folder: Path, location: str, model_path: Path) -> int:
    where = str(model_path)
    absolute = PurePosixPath(location).is_absolute() or PureWindowsPath(location).anchor
    if not location or absolute:
        code, text = (
            "graph.external_absolute",
            f"external data at {location!r}, not a relative path",
        )
        raise ModelError(code, text, where=where, remedy=_COPY)
    if ".." in PurePosixPath(location.replace("\\", "/")).parts:
        code, text = "graph.external_outside", f"external data at {location!r}, outside its folder"
        raise ModelError(code, text, where=where, remedy=_COPY)
    target = folder / location
    if not target.resolve().is_relative_to(folder.resolve()):
        code, text = (
            "graph.external_link",
            f"external data {location!r} is a link out of its folder",
        )
        raise ModelError(code, text, where=where, remedy=_COPY)
    if not target.is_file():
        code, text = "graph.external_missing", f"external data file {location!r} is missing"
        raise ModelError(code, text, where=where, remedy=_AGAIN)
    status = target.stat()
    if status.st_nlink > 1:
        code, text = "graph.external_link", f"external data {location!r} has several hard links"
        raise ModelError(code, text, where=where, remedy=_COPY)
    return status.st_size


def _check_range(tensor: ir.ExternalTensor, file_size: int, path: Path) -> None:
    where = f"{path}, tensor {tensor.name!r}"
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
            f"bytes {offset} to {offset + length} of {str(tensor.location)!r}, "
            f"which has {file_size}"
        )
        code = "graph.external_truncated"
        raise ModelError(code, text, where=where, remedy=_AGAIN)
