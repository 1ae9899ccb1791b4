"""Where the lines of a text file begin, without the text in memory.

A file is gone through once; 8 bytes are kept for each line that is not empty. The encoding is
checked then, so that a broken line is known before any work.
"""

from __future__ import annotations

import csv
from array import array
from typing import TYPE_CHECKING, BinaryIO, Final

from onnxq.errors import DataError
from onnxq.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

MAX_LINE: Final = 16 << 20
"""Bytes of one line: parsed as JSON it may take thirty times as much memory."""

MAX_LINES: Final = 10_000_000
"""Lines of a file, so that going through it takes seconds."""

_BOM: Final = b"\xef\xbb\xbf"


class Lines:
    """The lines of a file that are not empty.

    Attributes:
        path: The file.
        numbers: The number of each line, counted from 1.
        empty: How many lines are empty.
    """

    def __init__(self, path: Path) -> None:
        """Go through the file once.

        Raises:
            DataError: It is no regular file, not UTF-8, or has a line or lines beyond the limits.
        """
        self.path = path
        self._offsets = array("Q")
        self.numbers = array("L")
        self.empty = 0
        with opened(path) as stream:
            for number, offset, line in _scan(path, stream):
                if line.strip():
                    self._offsets.append(offset)
                    self.numbers.append(number)
                else:
                    self.empty += 1

    def __len__(self) -> int:
        """How many lines are not empty."""
        return len(self._offsets)

    def read(self, index: int) -> str:
        """One line without its end."""
        with opened(self.path) as stream:
            stream.seek(self._offsets[index])
            line = stream.readline(MAX_LINE + 1)
        return decoded(self.path, self.numbers[index], line).removesuffix("\n").removesuffix("\r")


class Records:
    """The records of a ``.csv`` file; a quoted field may go over several lines.

    Attributes:
        path: The file.
        header: The names of the columns.
        numbers: The number of the line on which each record begins.
    """

    def __init__(self, path: Path) -> None:
        """Go through the file once.

        Raises:
            DataError: As :class:`Lines`; or it has no header, or no well-formed records.
        """
        self.path = path
        self._offsets = array("Q")
        self.numbers = array("L")
        with opened(path) as stream:
            feeder = _Feeder(path, stream)
            rows = csv.reader(feeder, strict=True)
            self.header = tuple(name.strip() for name in self._next(rows, feeder) or ())
            self._check_header()
            while (row := self._next(rows, feeder)) is not None:
                if not row:
                    continue
                self._check_width(row, feeder.number)
                self._offsets.append(feeder.offset)
                self.numbers.append(feeder.number)

    def _next(self, rows: Iterator[list[str]], feeder: _Feeder) -> list[str] | None:
        feeder.begin()
        try:
            return next(rows, None)
        except csv.Error as error:
            code, text = "data.csv", f"the record is not well-formed ({error})"
            remedy = "Check its quotes; long arrays belong in .jsonl, .parquet or .npz files."
            where = f"{self.path}, line {feeder.number}"
            raise DataError(code, text, where=where, remedy=remedy) from error

    def _check_header(self) -> None:
        if not any(self.header) or len(set(self.header)) != len(self.header):
            what = "names a column twice" if any(self.header) else "is missing"
            code, text = "data.csv", f"the line of column names {what}"
            remedy = "The first line names the columns: the model's inputs, or text."
            raise DataError(code, text, where=f"{self.path}, line 1", remedy=remedy)

    def _check_width(self, row: Sequence[str], number: int) -> None:
        if len(row) != len(self.header):
            code, text = "data.csv", f"{len(row)} fields for {len(self.header)} columns"
            remedy = "Put quotes around a field that holds a comma."
            where = f"{self.path}, line {number}"
            raise DataError(code, text, where=where, remedy=remedy)

    def __len__(self) -> int:
        """How many records there are."""
        return len(self._offsets)

    def read(self, index: int) -> dict[str, str]:
        """One record by column."""
        with opened(self.path) as stream:
            stream.seek(self._offsets[index])
            feeder = _Feeder(self.path, stream, self.numbers[index])
            row = self._next(csv.reader(feeder, strict=True), feeder) or []
        self._check_width(row, self.numbers[index])
        return dict(zip(self.header, row, strict=True))


class _Feeder:
    """Gives lines to the csv reader and knows where the record that it reads began."""

    def __init__(self, path: Path, stream: BinaryIO, number: int = 1) -> None:
        self._lines = _scan(path, stream, number)
        self._fresh = True
        self.number, self.offset = number, 0

    def begin(self) -> None:
        """The next line begins a record."""
        self._fresh = True

    def __iter__(self) -> _Feeder:
        return self

    def __next__(self) -> str:
        number, offset, line = next(self._lines)
        if self._fresh:
            self.number, self.offset, self._fresh = number, offset, False
        return line


def opened(path: Path) -> BinaryIO:
    """A regular file for reading.

    Raises:
        DataError: It cannot be opened or is something else.
    """
    try:
        return open_regular(path)
    except OSError as error:
        code, text = "data.unreadable", f"it cannot be read ({error.strerror})"
        raise DataError(code, text, where=str(path), remedy="Name a readable file.") from error


def decoded(path: Path, number: int, line: bytes) -> str:
    """One line as text.

    Raises:
        DataError: It is longer than :data:`MAX_LINE`, or not text in UTF-8.
    """
    where = f"{path}, line {number}"
    if len(line) > MAX_LINE:
        code, why = "data.too_large", f"the line is longer than {MAX_LINE >> 20} MiB"
        raise DataError(code, why, where=where, remedy="One line is one sample; split it.")
    try:
        text = line.removeprefix(_BOM).decode("utf-8") if number == 1 else line.decode("utf-8")
    except UnicodeDecodeError as error:
        code, why = "data.encoding", f"byte {error.start + 1} of the line is not UTF-8"
        raise DataError(code, why, where=where, remedy="Save the file as UTF-8.") from error
    if "\0" in text:
        code, why = "data.encoding", "the line holds a NUL, so it is not text in UTF-8"
        raise DataError(code, why, where=where, remedy="Save the file as UTF-8.")
    return text


def _scan(path: Path, stream: BinaryIO, number: int = 1) -> Iterator[tuple[int, int, str]]:
    """Number, offset and text of each line from here on; the first has the number given."""
    offset = stream.tell()
    while line := stream.readline(MAX_LINE + 1):
        if number > MAX_LINES:
            code, why = "data.too_large", f"it has more than {MAX_LINES:,} lines"
            raise DataError(code, why, where=str(path), remedy="Give a part of them.")
        yield number, offset, decoded(path, number, line)
        offset += len(line)
        number += 1
