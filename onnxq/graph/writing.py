"""Writes ONNX files: all or nothing.

A model is written into a private folder beside its destination, flushed to the disk, and moved into
place; a failure leaves nothing behind and an existing file as it was. What a killed process left is
removed by the next one. Only ordinary files are replaced: a link would be followed by whoever reads
it next, and a device is no place for a model.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxq.errors import InternalError, ModelError, UsageError
from onnxq.files import is_utf8
from onnxq.graph.edit import clone
from onnxq.graph.external import check_unchanged, external_files
from onnxq.graph.limits import PROTOBUF_BYTES
from onnxq.graph.reading import reason
from onnxq.graph.tensors import (
    all_tensors,
    in_memory,
    replace_attribute_tensors,
    replace_tensors,
    weight_bytes,
)
from onnxq.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

GIBIBYTE = 1 << 30

_INLINE_BYTES = 1024
_AGAIN = "copy or export the model again"


def save(model: ir.Model, path: str | Path, *, external_threshold: int = GIBIBYTE) -> None:
    """Write a model atomically.

    Args:
        model: Left as it is; its tensors may be lazy, external or in memory.
        path: The file; it and, for large models, ``<path>.data`` beside it are replaced.
        external_threshold: Weights of more bytes than this in total go to ``<path>.data``.

    Raises:
        ModelError: If the model cannot be written as ONNX, is above 2 GiB without its weights, or a
            file that it maps weights from was changed since.
        UsageError: If the folder does not exist or cannot be written to, or the destination is no
            ordinary file, or one that the model still maps its weights from.
    """
    target = Path(path).absolute()
    external = weight_bytes(model) > min(external_threshold, PROTOBUF_BYTES - GIBIBYTE // 2)
    data = _data_of(target)
    _check_destination(model, target, [target, data] if external else [target])
    tensors = tuple(all_tensors(model))
    copy = clone(model)
    # A Constant node's or function's data cannot stay in a file that the new model lies beside.
    replace_attribute_tensors(copy, in_memory)
    try:
        with staging(target) as staged:
            if external:
                ir.save(
                    copy,
                    staged,
                    format="protobuf",
                    external_data=data.name,
                    size_threshold_bytes=_INLINE_BYTES,
                )
            else:
                staged.write_bytes(_serialize(copy, tensors, str(target)))
            check_unchanged(tensors)
            _move([(_data_of(staged), data)], (staged, target))
    except OSError as error:
        code, text = "graph.cannot_write", f"cannot be written: {error.strerror or error}"
        raise UsageError(code, text, where=str(target)) from error


def check_output(
    path: str | Path, *, model: str | Path | None = None, files: Iterable[Path] = ()
) -> None:
    """Refuse before any work what could only fail at its end.

    Args:
        path: The file that is to be written.
        model: The file that it is made from, which it may not replace.
        files: Further files that it is made from, such as those that hold that model's weights,
            which it may not replace either.

    Raises:
        UsageError: The folder does not exist, the path is not UTF-8, it is a folder, a link or a
            device, or it is the model itself, or one of ``files`` by whatever name.
    """
    target = Path(path).absolute()
    if not is_utf8(target):
        code, text = "usage.not_utf8", "the path is not UTF-8, which ONNX Runtime wants"
        raise UsageError(code, text, where=str(path), remedy="write to another file or folder")
    if not target.parent.is_dir():
        code, text = "usage.no_folder", "the folder to write to does not exist"
        raise UsageError(code, text, where=str(path), remedy="create it first")
    source = None if model is None else Path(model)
    if source is not None and source.exists() and target.exists() and target.samefile(source):
        code, text = "usage.replaces_model", "the result would replace the model it is made from"
        raise UsageError(code, text, where=str(path), remedy="write to another file")
    for file in files:
        if any(_is_same(path, file) for path in (target, _data_of(target))):
            code, text = "usage.replaces_model", "the result would replace what it is made from"
            raise UsageError(code, text, where=str(file), remedy="write to another file")
    _check_replaceable(target)


@contextmanager
def staging(path: str | Path) -> Iterator[Path]:
    """A private folder beside ``path``, gone afterwards; gives the path to write to in it.

    Raises:
        UsageError: It cannot be made there.
    """
    target = Path(path).absolute()
    try:
        scratch = Scratch(target.parent)
    except OSError as error:
        code, text = "graph.cannot_write", f"cannot be written: {error.strerror or error}"
        raise UsageError(code, text, where=str(path), remedy="write to another folder") from error
    with scratch as folder:
        yield folder / target.name


def to_bytes(model: ir.Model) -> bytes:
    """The model as one ONNX file, all weights inside.

    Raises:
        ModelError: If it would be above 2 GiB, which the format does not allow.
    """
    tensors = tuple(all_tensors(model))
    # Tensors in files are replaced, which the model itself must not notice; else no copy is needed.
    external = any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors)
    copy = clone(model) if external else model
    data = _serialize(copy, tensors, model.graph.name or "model")
    check_unchanged(tensors)
    return data


def to_bytes_beside(model: ir.Model) -> bytes:
    """The model as one ONNX file that names the files its weights lie in, instead of holding them.

    It loads where those names lead to the files; weights that are in memory are inside.

    Raises:
        ModelError: If it would be above 2 GiB, which the format does not allow.
    """
    tensors = [t for t in all_tensors(model) if not isinstance(t, ir.ExternalTensor)]
    return _serialize(model, tensors, model.graph.name or "model")


def publish(staged: str | Path, path: str | Path) -> None:
    """Move a model that :func:`save` wrote to where it belongs, its data file with it.

    Args:
        staged: The model; on the same file system as ``path`` and of the same file name, because
            the model names its data file.
        path: The destination; replaced, with ``<path>.data``, only if everything can be moved.

    Raises:
        InternalError: If the file names differ.
        UsageError: If the files cannot be moved; the destination is as it was.
    """
    source, target = Path(staged).absolute(), Path(path).absolute()
    if source.name != target.name:
        code, text = "graph.publish", f"{source.name} cannot be published under another name"
        raise InternalError(code, text, where=str(target))
    try:
        _move([(_data_of(source), _data_of(target))], (source, target))
    except OSError as error:
        code, text = "graph.cannot_write", f"cannot be written: {error.strerror or error}"
        raise UsageError(code, text, where=str(target)) from error


def _is_same(path: Path, file: Path) -> bool:
    """By whatever name: in another case where that is one file, by a link of either kind."""
    try:
        return path.samefile(file)
    except OSError:
        # One of them is not there, or is a link to nowhere.
        return path.resolve() == file.resolve()


def _data_of(path: Path) -> Path:
    """Where the large weights of a model lie."""
    return path.with_name(f"{path.name}.data")


def _check_destination(model: ir.Model, target: Path, files: Sequence[Path]) -> None:
    if not target.parent.is_dir():
        code, text = "graph.no_folder", "its folder does not exist"
        raise UsageError(code, text, where=str(target), remedy="create the folder")
    mapped = external_files(model)
    for file in files:
        _check_replaceable(file)
        if file.resolve() in mapped:
            code, text = (
                "graph.overwrites_input",
                "the model still reads its weights from this file",
            )
            raise UsageError(code, text, where=str(file), remedy="write to another path")


def _check_replaceable(target: Path) -> None:
    """Refuse to put a file where something else is than an ordinary file, or nothing."""
    try:
        mode = target.lstat().st_mode
    except OSError:
        return
    if stat.S_ISREG(mode):
        return
    code, kind = "usage.not_a_file", "no ordinary file"
    remedy = "name a new file, or one that may be replaced"
    if stat.S_ISLNK(mode):
        code, kind = "usage.is_link", "a symbolic link"
        remedy = "name the file that it points to, or remove the link"
    elif stat.S_ISDIR(mode):
        code, kind, remedy = "usage.is_folder", "a folder", "name a file in it"
    raise UsageError(code, f"this is {kind}, a file is wanted", where=str(target), remedy=remedy)


def _serialize(copy: ir.Model, tensors: Sequence[ir.TensorProtocol], where: str) -> bytes:
    """Serialize a model of these tensors; external ones may be replaced."""
    too_large = "above 2 GiB, which ONNX does not allow in one file"
    code, remedy = "graph.too_large", "work with the model's path; weights go to an external file"
    if sum(tensor.nbytes for tensor in tensors) > PROTOBUF_BYTES:
        raise ModelError(code, too_large, where=where, remedy=remedy)
    if any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors):
        replace_tensors(copy, in_memory)
    try:
        proto = ir.serde.serialize_model(copy)
        if proto.ByteSize() <= PROTOBUF_BYTES:
            return bytes(proto.SerializeToString())
    except Exception as error:
        code, text = "graph.cannot_serialize", f"cannot be written as ONNX: {reason(error)}"
        raise ModelError(code, text, where=where, remedy=_AGAIN) from error
    raise ModelError(code, too_large, where=where, remedy=remedy)


def _move(others: Sequence[tuple[Path, Path]], last: tuple[Path, Path]) -> None:
    """Flush the staged files and put them in place; if one cannot be, put the old ones back."""
    staging = last[0].parent
    moves = [*(pair for pair in others if pair[0].exists()), last]
    for staged, target in moves:
        _flush(staged)
        replaced = target.lstat().st_mode if target.is_file() else 0o666 & ~_umask()
        staged.chmod(replaced & 0o777)
    done: list[tuple[Path, Path | None]] = []
    try:
        for staged, target in moves[:-1]:
            backup = staging / f"{target.name}.old" if target.exists() else None
            if backup is not None:
                target.replace(backup)
            done.append((target, backup))
            staged.replace(target)
        last[0].replace(last[1])
    except BaseException:
        for target, backup in done:
            target.unlink(missing_ok=True)
            if backup is not None:
                backup.replace(target)
        raise
    _flush(last[1].parent)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
