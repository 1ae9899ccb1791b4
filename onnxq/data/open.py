"""From what the user gave to a source of samples that fit the model."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from onnxq.data.decode import SUFFIXES
from onnxq.data.folder import list_samples
from onnxq.data.images import ImageFiles
from onnxq.data.iterables import open_object
from onnxq.data.lines import opened
from onnxq.data.npz import NpzFiles, open_npy
from onnxq.data.reading import Reading
from onnxq.data.source import DataSource, Reader, ReaderSource, checked
from onnxq.data.steps import Steps
from onnxq.data.tables import ParquetRows
from onnxq.data.texts import CsvRows, JsonLines, TextLines
from onnxq.data.windows import packed
from onnxq.errors import DataError

if TYPE_CHECKING:
    from onnxq.data.sample import Signature

DataLike = str | Path | Iterable[Mapping[str, object]] | DataSource | Reading | Any
"""A path, an iterable of dicts, a PyTorch ``DataLoader``, a ``datasets.Dataset``, an ONNX Runtime
``CalibrationDataReader``, a source, or a reading of one of these. The paths: a folder of ``.npz``
or of images; one ``.npz``, ``.npy``, image, ``.txt``, ``.jsonl``, ``.csv`` or ``.parquet``.
"""

FORMS: Final = (
    "a folder of .npz files or images, an .npz, .npy, .txt, .jsonl, .csv or .parquet file, or in "
    "Python an iterable of dicts of arrays"
)


def open_data(source: DataLike, signature: Signature) -> DataSource:
    """Open calibration or evaluation data.

    Args:
        source: A path or Python object; see :data:`DataLike`.
        signature: The inputs of the model that shall be fed.

    Returns:
        A source with at least one sample, which completes and checks each sample as it is read.

    Raises:
        DataError: There is nothing there, nothing in it, or it is of no known kind.
    """
    reading = source if isinstance(source, Reading) else Reading(source)
    source = reading.source
    if isinstance(source, DataSource):
        return checked(source, signature)
    steps = Steps(reading, signature)
    if isinstance(source, str | Path):
        reader = _open_path(Path(source), signature, steps)
    else:
        reader = open_object(source, signature, steps)
    return checked(ReaderSource(reader), signature)


def _open_path(path: Path, signature: Signature, steps: Steps) -> Reader:
    try:
        is_folder = path.is_dir()
    except (OSError, ValueError) as error:
        code, text = "data.not_found", "there is no file of such a name"
        raise DataError(code, text, where=str(path), remedy=f"Give {FORMS}.") from error
    if is_folder:
        files = list_samples(path)
        if files[0].suffix.lower() == ".npz":
            return _arrays(NpzFiles(str(path), files), steps)
        return ImageFiles(path, files, steps)
    if not path.exists():
        raise _not_found(path)
    return _open_file(path, signature, steps)


def _open_file(path: Path, signature: Signature, steps: Steps) -> Reader:
    suffix = path.suffix.lower()
    # Refuses what is no regular file before anything waits for it.
    opened(path).close()
    if suffix == ".npz":
        return _arrays(NpzFiles(str(path), [path]), steps)
    if suffix == ".npy":
        return _arrays(open_npy(path, signature), steps)
    if suffix in SUFFIXES:
        return ImageFiles(path, [path], steps)
    if suffix == ".txt":
        return packed(TextLines(path, steps), steps.packing)
    kinds: dict[str, type[JsonLines | CsvRows | ParquetRows]] = {
        ".jsonl": JsonLines,
        ".csv": CsvRows,
        ".parquet": ParquetRows,
    }
    if suffix not in kinds:
        code = "data.unknown_form"
        text = f"onnxq does not read {path.suffix or 'files without an ending'} as data"
        raise DataError(code, text, where=str(path), remedy=f"Give {FORMS}.")
    reader = kinds[suffix](path, signature, steps)
    # Arrays need no tokenizer, so none is opened for them.
    if not steps.tokenizes or reader.document(0) is None:
        return reader
    return packed(reader, steps.packing)


def _arrays(reader: Reader, steps: Steps) -> Reader:
    if steps.given:
        reader.note(f"{reader.name} holds arrays: --preprocess and --tokenizer do not change them")
    return reader


def _not_found(path: Path) -> DataError:
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=1)
    remedy = f"Did you mean {near[0]!r}?" if near else f"Give {FORMS}."
    code, text = "data.not_found", "there is no such file or folder"
    return DataError(code, text, where=str(path), remedy=remedy)
