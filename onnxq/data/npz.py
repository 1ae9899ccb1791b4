"""Readers of ``.npz`` folders and of single ``.npz`` and ``.npy`` files.

==================  =============================================================================
folder of ``.npz``  a file a sample, in the order of the file names
one ``.npz``        one sample; array names are input names, batch dimension included
one ``.npy``        for a model with one input: row ``i`` is the sample ``array[i:i+1]``
==================  =============================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.data.arrays import MAX_SAMPLE_BYTES, npy_header, read_npy_rows, read_npz
from onnxq.data.fingerprint import feed_file
from onnxq.data.sample import Sample
from onnxq.data.source import Reader
from onnxq.errors import DataError

if TYPE_CHECKING:
    import hashlib
    from collections.abc import Sequence
    from pathlib import Path

    from onnxq.data.sample import Signature


class NpzFiles(Reader):
    """Each file is a sample."""

    def __init__(self, name: str, files: Sequence[Path]) -> None:
        """Read these files, in this order."""
        super().__init__(name)
        self._files = tuple(files)

    def __len__(self) -> int:
        """The number of files."""
        return len(self._files)

    def read(self, index: int) -> Sample:
        """The arrays of one file."""
        path = self._files[index]
        return Sample(f"{path.parent.name}/{path.name}", read_npz(path))

    def _feed(self, hasher: hashlib._Hash) -> None:
        for path in self._files:
            feed_file(hasher, path)


class NpyRows(Reader):
    """The rows of one array, each with a batch dimension of 1."""

    def __init__(self, path: Path, input_name: str) -> None:
        """Read the header.

        Raises:
            DataError: The file is damaged, or the array has no rows.
        """
        super().__init__(str(path))
        self._path = path
        self._input = input_name
        shape, dtype = npy_header(path)
        if not shape or shape[0] == 0:
            code, text = "data.empty", f"an array of shape {list(shape)} has no rows"
            remedy = "The first axis should count the samples."
            raise DataError(code, text, where=str(path), remedy=remedy)
        self._rows = shape[0]
        row_bytes = dtype.itemsize
        for length in shape[1:]:
            row_bytes *= length
        if row_bytes == 0:
            code, text = "data.empty", f"the rows of an array of shape {list(shape)} hold nothing"
            remedy = "Every axis should be at least 1 long."
            raise DataError(code, text, where=str(path), remedy=remedy)
        if row_bytes > MAX_SAMPLE_BYTES:
            code = "data.too_large"
            text = f"one row takes {row_bytes} bytes, more than {MAX_SAMPLE_BYTES}"
            remedy = "The first axis should count the samples."
            raise DataError(code, text, where=str(path), remedy=remedy)

    def __len__(self) -> int:
        """The number of rows."""
        return self._rows

    def read(self, index: int) -> Sample:
        """A copy of one row; the file is mapped only while it is made, so memory stays flat."""
        row = read_npy_rows(self._path, index, index + 1)
        return Sample(f"{self._path.name}[{index}]", {self._input: row})

    def _feed(self, hasher: hashlib._Hash) -> None:
        hasher.update(f"{self._input}\0".encode())
        feed_file(hasher, self._path)


def open_npy(path: Path, signature: Signature) -> NpyRows:
    """The rows of an array for the only input of the model.

    Raises:
        DataError: The model has several inputs, or the file does not fit.
    """
    inputs = [spec.name for spec in signature if spec.required]
    inputs = inputs or [spec.name for spec in signature]
    if len(inputs) != 1:
        code, text = "data.npy_inputs", f"an .npy file feeds one input, the model has {len(inputs)}"
        remedy = f"Write .npz files with an array for each of: {', '.join(map(repr, inputs))}."
        raise DataError(code, text, where=str(path), remedy=remedy)
    return NpyRows(path, inputs[0])
