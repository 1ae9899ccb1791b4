"""Reading ``.npy`` and ``.npz`` files that nobody vouches for.

Every header is read before any array is: an array is refused if it holds pickled objects, if its
header disagrees with the bytes that follow, or if it would unpack to more than
:data:`MAX_SAMPLE_BYTES`. Unpickling is never allowed.
"""

from __future__ import annotations

import os
import struct
import tokenize
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import numpy as np
from numpy.lib import format as npy_format

from onnxq.errors import DataError
from onnxq.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

MAX_SAMPLE_BYTES = 512 << 20
"""What one sample may take in memory: 512 MiB. Reading and checking it then stays below 1 GiB."""

_MAX_DIRECTORY = 1 << 20
"""Bytes of an archive's list of arrays; a model has hundreds of inputs at most."""

# Deflate cannot shrink data by more than 1032 to 1; small members are all header.
_MAX_DEFLATE_RATIO = 1032
_SMALL = 64 << 10
_END_MAGIC = b"PK\x05\x06"
_END_RECORD = 20 + 22 + (1 << 16)  # the record for larger archives' place, the record, a comment
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

_UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,  # numpy tokenizes a header that does not parse
)
"""What zipfile, zlib and numpy raise for a damaged, truncated or encrypted file."""

Header = tuple[tuple[int, ...], np.dtype[Any]]


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file.

    Raises:
        DataError: It is damaged, holds pickled objects, or would unpack to too much.
    """
    try:
        with open_regular(path) as stream, _archive(path, stream) as archive:
            _check_members(path, archive)
            return {
                member.filename.removesuffix(".npy"): _read_member(path, archive, member)
                for member in archive.infolist()
            }
    except _UNREADABLE as error:
        _refuse(path, error)


def npy_header(path: Path) -> Header:
    """Shape and element type of an ``.npy`` file, checked against its length.

    Raises:
        DataError: It is damaged, truncated or holds pickled objects.
    """
    try:
        with open_regular(path) as stream:
            shape, dtype = _read_header(str(path), stream)
            begin = stream.tell()
            _check_length(str(path), (shape, dtype), stream.seek(0, os.SEEK_END) - begin)
    except _UNREADABLE as error:
        _refuse(path, error)
    return shape, dtype


def read_npy_rows(path: Path, start: int, stop: int) -> NDArray[Any]:
    """A copy of rows ``start`` to ``stop`` of an ``.npy`` file, mapped for the moment.

    Raises:
        DataError: It cannot be read.
    """
    try:
        mapped: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        return np.array(mapped[start:stop], order="C")
    except _UNREADABLE as error:
        _refuse(path, error)


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays uncompressed; unlike ``numpy.savez`` under any name, and never pickled."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                npy_format.write_array(stream, array, allow_pickle=False)


def _archive(path: Path, stream: BinaryIO) -> zipfile.ZipFile:
    """Open an archive whose list of arrays is short: zipfile reads all of it at once."""
    stream.seek(-min(stream.seek(0, os.SEEK_END), _END_RECORD), os.SEEK_END)
    tail = stream.read()
    # Found as zipfile finds it: at the very end, else the last one in front of a comment.
    plain = tail[-22:].startswith(_END_MAGIC) and tail.endswith(b"\0\0")
    at = len(tail) - 22 if plain else tail.rfind(_END_MAGIC)
    directory = int.from_bytes(tail[at + 12 : at + 16], "little") if at >= 0 else 0
    # A record for larger archives would override this one; none that is read here needs it.
    if directory > _MAX_DIRECTORY or b"PK\x06\x07" in tail[max(at - 20, 0) : max(at, 0)]:
        code, text = "data.too_large", "it says that it holds more arrays than any sample"
        raise DataError(code, text, where=str(path), remedy="Write one sample a file.")
    return zipfile.ZipFile(stream)


def _check_members(path: Path, archive: zipfile.ZipFile) -> None:
    members = archive.infolist()
    if not members:
        code, text = "data.empty_sample", "the file holds no array"
        raise DataError(code, text, where=str(path), remedy="Leave this file out.")
    names = [member.filename for member in members]
    if len(set(names)) != len(names):
        code, text = "data.damaged", "two arrays have the same name"
        raise DataError(code, text, where=str(path), remedy="Write the file anew.")
    total = 0
    for member in members:
        if not member.filename.endswith(".npy") or member.compress_type not in _METHODS:
            code = "data.npz_member"
            text = f"{member.filename!r} is not an array as numpy.savez writes it"
            raise DataError(code, text, where=str(path), remedy="Write arrays only.")
        if member.file_size > _MAX_DEFLATE_RATIO * member.compress_size + _SMALL:
            code = "data.damaged"
            text = f"{member.filename!r} says {member.file_size} bytes, more than it can unpack to"
            raise DataError(code, text, where=str(path), remedy="Write the file anew.")
        total += member.file_size
    _check_total(str(path), total)


def _check_total(where: str, total: int) -> None:
    if total > MAX_SAMPLE_BYTES:
        code = "data.too_large"
        text = f"the sample would take {total} bytes, more than {MAX_SAMPLE_BYTES}"
        remedy = "Split it: a file is one sample, not the whole data set."
        raise DataError(code, text, where=where, remedy=remedy)


def _read_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    where = f"{path}, array {member.filename.removesuffix('.npy')!r}"
    with archive.open(member) as stream:
        header = _read_header(where, stream)
        _check_length(where, header, member.file_size - stream.tell())
    with archive.open(member) as stream:
        array: NDArray[Any] = npy_format.read_array(stream, allow_pickle=False)
    return array


def _read_header(where: str, stream: BinaryIO | Any) -> Header:
    version = npy_format.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = npy_format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, _, dtype = npy_format.read_array_header_2_0(stream)
    else:
        # Version 3 exists only for structured types with names outside Latin-1.
        code = "data.structured"
        text = f"numpy format {version[0]}.{version[1]} is not for plain arrays"
        raise DataError(code, text, where=where, remedy="Give a plain array.")
    if dtype.hasobject:
        code, text = "data.pickled", "the array holds pickled Python objects"
        remedy = "Store numbers: unpickling would run code from the file, so onnxq never does."
        raise DataError(code, text, where=where, remedy=remedy)
    if dtype.names is not None or dtype.subdtype is not None:
        code, text = "data.structured", "the array has a structured type"
        raise DataError(code, text, where=where, remedy="Store one plain array for each input.")
    return shape, dtype


def _check_length(where: str, header: Header, present: int) -> None:
    shape, dtype = header
    expected = dtype.itemsize
    for length in shape:
        expected *= int(length)
    if expected != present or any(length < 0 for length in shape):
        code = "data.damaged"
        text = f"the header says {list(shape)} {dtype}, {expected} bytes, but {present} follow"
        raise DataError(code, text, where=where, remedy="Write the file anew.")


def _refuse(path: Path, error: Exception) -> NoReturn:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    code, text = "data.damaged", f"the file cannot be read ({reason})"
    remedy = "It may be truncated or another format; write it again with numpy."
    raise DataError(code, text, where=str(path), remedy=remedy) from error
