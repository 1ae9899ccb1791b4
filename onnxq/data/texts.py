"""Readers of text files: ``.txt``, ``.jsonl``, ``.csv``.

==========  =====================================================================================
``.txt``    a line is a text; empty lines are skipped, which is said
``.jsonl``  a line is an object: a ``text``, or arrays by input name
``.csv``    the first line names the columns; a cell is a text, a number or a list in JSON
==========  =====================================================================================

All are UTF-8. Only where lines begin is kept in memory. Where windows are cut from them the lines
of a ``.txt`` file are one running text, empty ones included.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from onnxq.data.documents import DocumentReader
from onnxq.data.fingerprint import feed_file, feed_part
from onnxq.data.lines import Lines, Records
from onnxq.data.rows import RowMapper
from onnxq.data.sample import Sample
from onnxq.errors import DataError

if TYPE_CHECKING:
    import hashlib
    from pathlib import Path

    from onnxq.data.sample import Signature
    from onnxq.data.source import Reader
    from onnxq.data.steps import Steps


class TextLines(DocumentReader):
    """Each line is a text."""

    continuous = True

    def __init__(self, path: Path, steps: Steps) -> None:
        """Go through the file once.

        Raises:
            DataError: It is not readable text, or every line is empty.
        """
        super().__init__(str(path))
        self._steps = steps
        self._lines = Lines(path)
        _check_lines(self, self._lines)

    def document(self, index: int) -> str:
        """A line and the empty ones behind it, with their ends."""
        numbers = self._lines.numbers
        after = numbers[index + 1] if index + 1 < len(numbers) else numbers[index] + 1
        return self._lines.read(index) + "\n" * (after - numbers[index])

    def place(self, index: int) -> str:
        """The file and the line."""
        return _where(self._lines.path, self._lines.numbers[index])

    def __len__(self) -> int:
        """The number of lines that are not empty."""
        return len(self._lines)

    def read(self, index: int) -> Sample:
        """The inputs that the text becomes."""
        where = self.place(index)
        feeds = self._steps.text(self._lines.read(index), where)
        for text in self._steps.text_notes():
            self.note(text)
        return Sample(where, feeds)

    def _feed(self, hasher: hashlib._Hash) -> None:
        feed_part(hasher, self._steps.text_digest())
        feed_file(hasher, self._lines.path)


class JsonLines(DocumentReader):
    """Each line is a JSON object."""

    def __init__(self, path: Path, signature: Signature, steps: Steps) -> None:
        """Go through the file once.

        Raises:
            DataError: It is not readable text, or every line is empty.
        """
        super().__init__(str(path))
        self._steps = steps
        self._mapper = RowMapper(signature, steps, typed=False)
        self._lines = Lines(path)
        _check_lines(self, self._lines)

    def __len__(self) -> int:
        """The number of lines that are not empty."""
        return len(self._lines)

    def read(self, index: int) -> Sample:
        """The inputs that an object holds."""
        return self._mapper(self._row(index), self.place(index), self.note)

    def document(self, index: int) -> str | None:
        """The text of an object."""
        return self._mapper.text(self._row(index))

    def place(self, index: int) -> str:
        """The file and the line."""
        return _where(self._lines.path, self._lines.numbers[index])

    def _row(self, index: int) -> dict[str, object]:
        where = self.place(index)
        found = parse_json(self._lines.read(index), where)
        if isinstance(found, dict):
            return found
        code, text = "data.json", "the line is no JSON object"
        remedy = 'Write one object a line, like {"text": "..."}.'
        raise DataError(code, text, where=where, remedy=remedy)

    def _feed(self, hasher: hashlib._Hash) -> None:
        feed_part(hasher, self._steps.text_digest())
        feed_file(hasher, self._lines.path)


class CsvRows(DocumentReader):
    """Each record is a row."""

    def __init__(self, path: Path, signature: Signature, steps: Steps) -> None:
        """Go through the file once.

        Raises:
            DataError: It is not readable text, not well-formed, or has no record.
        """
        super().__init__(str(path))
        self._steps = steps
        self._names = {spec.name: spec for spec in signature}
        self._mapper = RowMapper(signature, steps, typed=False)
        self._records = Records(path)
        if len(self._records) == 0:
            raise nothing(self.name, "record")

    def __len__(self) -> int:
        """The number of records."""
        return len(self._records)

    def read(self, index: int) -> Sample:
        """The inputs that a record holds."""
        where = self.place(index)
        row = {key: self._cell(key, cell, where) for key, cell in self._records.read(index).items()}
        return self._mapper(row, where, self.note)

    def document(self, index: int) -> str | None:
        """The text of a record."""
        return self._mapper.text(self._records.read(index))

    def place(self, index: int) -> str:
        """The file and the line."""
        return _where(self._records.path, self._records.numbers[index])

    def _cell(self, name: str, cell: str, where: str) -> object:
        spec = self._names.get(name)
        if spec is None or (spec.dtype is not None and spec.dtype.kind in "OUT"):
            return cell
        return parse_json(cell, f"{where}, {name!r}")

    def _feed(self, hasher: hashlib._Hash) -> None:
        feed_part(hasher, self._steps.text_digest())
        feed_file(hasher, self._records.path)


def parse_json(text: str, where: str) -> Any:
    """A JSON value; NaN and the infinities are let through, because the sample's check names them.

    Raises:
        DataError: It is none, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        code, why = "data.json", "the value is nested too deeply"
        raise DataError(code, why, where=where, remedy="Give an array.") from error
    except ValueError as error:
        code, why = "data.json", f"{text.strip()[:40]!r} is no value in JSON ({error})"
        remedy = "Write numbers like 1.5, lists like [1, 2], texts in double quotes."
        raise DataError(code, why, where=where, remedy=remedy) from error


def nothing(where: str, what: str) -> DataError:
    """The error for a file without samples."""
    code, text = "data.empty", f"the file holds no {what}"
    return DataError(code, text, where=where, remedy="Give at least one sample.")


def _check_lines(reader: Reader, lines: Lines) -> None:
    if len(lines) == 0:
        raise nothing(reader.name, "line that is not empty")
    if lines.empty:
        word = "line is" if lines.empty == 1 else "lines are"
        reader.note(f"{reader.name}: {lines.empty} empty {word} skipped")


def _where(path: Path, number: int) -> str:
    return f"{path.name}, line {number}"
