"""From what the user gave to a source of samples that fit the model."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from onnxq.data.iterables import open_iterable
from onnxq.data.npz import NpzFiles, list_folder, open_npy
from onnxq.data.source import DataSource, Reader, ReaderSource, checked
from onnxq.errors import DataError

if TYPE_CHECKING:
    from onnxq.data.sample import Signature

DataLike = str | Path | Iterable[Mapping[str, object]] | DataSource
"""A path (folder of ``.npz``, one ``.npz`` or ``.npy``), an iterable of dicts, or a source."""

FORMS = "a folder of .npz files, an .npz or .npy file, or in Python an iterable of dicts of arrays"


def open_data(source: DataLike, signature: Signature) -> DataSource:
    """Open calibration or evaluation data.

    Args:
        source: A path or Python object; see :data:`DataLike`.
        signature: The inputs of the model that shall be fed.

    Returns:
        A source with at least one sample, which checks each sample as it is read.

    Raises:
        DataError: There is nothing there, nothing in it, or it is of no known kind.
    """
    if isinstance(source, DataSource):
        return checked(source, signature)
    if isinstance(source, str | Path):
        reader = _open_path(Path(source), signature)
    else:
        reader = _open_object(source, signature)
    return checked(ReaderSource(reader), signature)


def _open_object(source: object, signature: Signature) -> Reader:
    if not isinstance(source, Iterable):
        code, text = "data.unknown_form", f"a {type(source).__name__} is no data"
        raise DataError(code, text, remedy=f"Give {FORMS}.")
    return open_iterable(source, signature)


def _open_path(path: Path, signature: Signature) -> Reader:
    if path.is_dir():
        return NpzFiles(str(path), list_folder(path, ".npz"))
    if not path.exists():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, beside, n=1)
        remedy = f"Did you mean {near[0]!r}?" if near else f"Give {FORMS}."
        code, text = "data.not_found", "there is no such file or folder"
        raise DataError(code, text, where=str(path), remedy=remedy)
    if path.suffix == ".npz":
        return NpzFiles(str(path), [path])
    if path.suffix == ".npy":
        return open_npy(path, signature)
    code = "data.unknown_form"
    text = f"onnxq does not read {path.suffix or 'files without an ending'} as data"
    raise DataError(code, text, where=str(path), remedy=f"Give {FORMS}.")
