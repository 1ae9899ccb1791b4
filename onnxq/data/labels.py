"""True classes: one integer for each row of the data, in the order of the original data.

Labels are read once for the whole data and looked up by :attr:`DataSource.positions`, so they
stay with their samples through any split. A sample of batch size b has b labels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.data.arrays import npy_header, read_npy_rows
from onnxq.data.folder import list_samples
from onnxq.data.reading import Reading
from onnxq.errors import DataError
from onnxq.files import lines_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from onnxq.data.open import DataLike
    from onnxq.data.sample import Sample
    from onnxq.data.source import DataSource

LABEL_FILES = ("labels.npy", "labels.txt", "labels.csv")
"""Names under which labels are found in a folder of samples."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


@dataclass(frozen=True, eq=False, slots=True)
class Labels:
    """Labels aligned with the data as it was opened.

    Attributes:
        values: int64, a label a row of the original data.
        starts: int64, length N + 1: the labels of the sample at position p are
            ``values[starts[p]:starts[p + 1]]``.
    """

    values: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def align(cls, values: NDArray[np.int64], source: DataSource) -> Labels:
        """Lay labels out over the samples of ``source``.

        As many labels as samples mean one each, which :meth:`pair` verifies; otherwise the
        samples are gone through once to count their rows.

        Args:
            values: int64, a label a row.
            source: All the data that the labels belong to, before any split.

        Raises:
            DataError: There are more or fewer labels than rows.
        """
        if len(values) == len(source):
            return cls(values, np.arange(len(source) + 1, dtype=np.int64))
        rows = [sample.rows for sample in source]
        starts = np.concatenate(([0], np.cumsum(rows, dtype=np.int64)))
        if starts[-1] != len(values):
            raise _mismatch(source.name, len(values), int(starts[-1]))
        return cls(values, starts)

    def of(self, position: int) -> NDArray[np.int64]:
        """The labels of the sample at ``position`` of the original data."""
        return self.values[self.starts[position] : self.starts[position + 1]]

    def pair(self, source: DataSource) -> Iterator[tuple[Sample, NDArray[np.int64]]]:
        """Each sample of a subset of the original data with its labels, one a row.

        Raises:
            DataError: A sample has more or fewer rows than labels.
        """
        for position, sample in zip(source.positions, source, strict=True):
            labels = self.of(position)
            if len(labels) != sample.rows:
                raise _mismatch(sample.name, len(labels), sample.rows)
            yield sample, labels


def load_labels(data: DataLike, file: str | Path | None = None) -> NDArray[np.int64] | None:
    """The labels that were named, or else those that lie in the data's folder.

    Raises:
        DataError: They cannot be read, or it is unclear which sample each belongs to.
    """
    data = data.source if isinstance(data, Reading) else data
    labels = find_labels(data) if file is None else read_labels(file)
    if labels is not None and isinstance(data, str | Path) and Path(data).is_dir():
        _check_order(Path(data))
    return labels


def find_labels(data: DataLike) -> NDArray[np.int64] | None:
    """The labels in a folder of samples (``labels.npy``, ``.txt`` or ``.csv``), if there are any.

    Raises:
        DataError: There are two such files, or it cannot be read.
    """
    if not isinstance(data, str | Path) or not Path(data).is_dir():
        return None
    found = [path for name in LABEL_FILES if (path := Path(data) / name).is_file()]
    if len(found) > 1:
        code, text = "data.labels", f"{found[0].name} and {found[1].name} both hold labels"
        raise DataError(code, text, where=str(data), remedy="Keep one of them.")
    return read_labels(found[0]) if found else None


def read_labels(path: str | Path) -> NDArray[np.int64]:
    """Labels from a file.

    Args:
        path: ``.npy`` with a one-dimensional array of integers, or ``.txt``/``.csv`` with one
            integer a line and no header.

    Returns:
        int64, shape ``(rows,)``, at least one.

    Raises:
        DataError: There is no such file, or it holds something else.
    """
    path = Path(path)
    if not path.is_file():
        code, text = "data.not_found", "there is no such file"
        raise DataError(code, text, where=str(path), remedy="Name the file of labels.")
    if path.suffix == ".npy":
        labels = _from_npy(path)
    elif path.suffix in {".txt", ".csv"}:
        labels = _from_lines(path)
    else:
        code = "data.labels"
        text = f"onnxq does not read labels from {path.suffix or 'files without an ending'}"
        remedy = "Give .npy, or .txt or .csv with one integer a line."
        raise DataError(code, text, where=str(path), remedy=remedy)
    if labels.size == 0:
        code, text = "data.empty", "the file holds no label"
        raise DataError(code, text, where=str(path), remedy="Give one label a row of the data.")
    return labels


def _from_npy(path: Path) -> NDArray[np.int64]:
    shape, dtype = npy_header(path)
    if len(shape) != 1 or dtype.kind not in "iu":
        code = "data.labels"
        text = f"labels should be integers of shape [rows], this is {dtype} of {list(shape)}"
        remedy = "For one-hot or probabilities take argmax(axis=1) first."
        raise DataError(code, text, where=str(path), remedy=remedy)
    if not shape[0]:
        return np.empty(0, dtype=np.int64)
    values: NDArray[Any] = read_npy_rows(path, 0, shape[0])
    return values.astype(np.int64)


def _from_lines(path: Path) -> NDArray[np.int64]:
    try:
        lines = lines_of(path.read_bytes().decode("utf-8-sig").rstrip())
    except (OSError, UnicodeDecodeError) as error:
        code, text = "data.labels", "the file is not readable text"
        raise DataError(code, text, where=str(path), remedy="Write it as UTF-8.") from error
    for number, line in enumerate(lines, start=1):
        if not _INTEGER.fullmatch(line.strip()):
            code, text = "data.labels", f"{line.strip()[:40]!r} is not an integer"
            remedy = "Write one integer a line, without a header."
            raise DataError(code, text, where=f"{path}, line {number}", remedy=remedy)
    return np.array([int(line) for line in lines], dtype=np.int64)


def _mismatch(where: str, labels: int, rows: int) -> DataError:
    msg = f"{labels} labels for {rows} rows of data"
    return DataError("data.labels", msg, where=where, remedy="Give one label for each row.")


def _check_order(folder: Path) -> None:
    """Refuse names like ``2.npz`` and ``10.npz``: sorted as text, 10 comes before 2."""
    names = [path.relative_to(folder) for path in list_samples(folder)]
    natural = sorted(names, key=lambda path: [_natural(part) for part in path.parts])
    for plain, meant in zip(names, natural, strict=True):
        if plain != meant:
            code = "data.labels_order"
            text = f"samples run in order of their names, {plain} before {meant}: labels may not"
            remedy = "Write the numbers in the names with leading zeros."
            raise DataError(code, text, where=str(folder), remedy=remedy)


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.findall(r"([0-9]+)|([^0-9]+)", name)
    return [(0, int(digits), "") if digits else (1, 0, text) for digits, text in parts]
