"""Reader of ``.parquet`` tables: a row is a sample, a row group is in memory at a time."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, Any, Final

from onnxq.data.documents import DocumentReader
from onnxq.data.extras import require
from onnxq.data.fingerprint import feed_file, feed_part
from onnxq.data.lines import opened
from onnxq.data.rows import RowMapper
from onnxq.data.texts import nothing
from onnxq.errors import DataError

if TYPE_CHECKING:
    import hashlib
    from collections.abc import Sequence
    from pathlib import Path

    from onnxq.data.sample import Sample, Signature
    from onnxq.data.steps import Steps

MAX_GROUP: Final = 512 << 20
"""Bytes of a row group, of the columns that are used, before compression."""


class ParquetRows(DocumentReader):
    """Each row of a table is a sample."""

    def __init__(self, path: Path, signature: Signature, steps: Steps) -> None:
        """Read what the file says of its row groups.

        Raises:
            DataError: pyarrow is missing, the file is damaged, empty, or has too large row groups.
        """
        super().__init__(str(path))
        self._path = path
        self._steps = steps
        self._mapper = RowMapper(signature, steps, typed=True)
        self._arrow = require("pyarrow.parquet", str(path))
        self._errors = (require("pyarrow", str(path)).ArrowException, OSError, ValueError)
        with opened(path) as stream:
            file = self._open(stream)
            self._columns = list(self._mapper.columns(file.schema_arrow.names))
            groups = [file.metadata.row_group(index) for index in range(file.num_row_groups)]
            unused = [name for name in file.schema_arrow.names if name not in self._columns]
            kinds = require("pyarrow.types", str(path))
            self._texts = [
                field.name
                for field in file.schema_arrow
                if any(test(field.type) for test in (kinds.is_string, kinds.is_binary))
            ]
        if unused:
            names = ", ".join(map(repr, unused))
            self.note(f"{self.name}: columns left out, the model has no such input: {names}")
        self._starts = [0]
        for group in groups:
            try:
                self._check_group(group)
            except self._errors as error:  # names of columns that are no text
                raise self._damaged(error) from error
            self._starts.append(self._starts[-1] + group.num_rows)
        if len(self) == 0:
            raise nothing(self.name, "row")
        self._held: tuple[int, Any] | None = None

    def _open(self, stream: Any, texts: Sequence[str] = ()) -> Any:
        try:
            return self._arrow.ParquetFile(
                stream,
                # Equal texts are then kept once, however often a small page repeats them.
                read_dictionary=list(texts),
                thrift_string_size_limit=16 << 20,
                thrift_container_size_limit=1 << 20,
            )
        except self._errors as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> DataError:
        code, text = "data.damaged", f"the table cannot be read ({str(error).splitlines()[0]})"
        remedy = "It may be truncated or another format; write it again."
        return DataError(code, text, where=self.name, remedy=remedy)

    def _check_group(self, group: Any) -> None:
        # Runs of equal values take next to nothing in the file and 8 bytes each in memory.
        size = sum(
            max(column.total_uncompressed_size, 8 * column.num_values)
            for column in map(group.column, range(group.num_columns))
            if column.path_in_schema.split(".")[0] in self._columns
        )
        if size >= MAX_GROUP:
            code, text = "data.too_large", f"a row group takes {size >> 20} MiB"
            remedy = "Write it with smaller row groups: row_group_size=1000, say."
            raise DataError(code, text, where=self.name, remedy=remedy)

    def __len__(self) -> int:
        """The number of rows."""
        return self._starts[-1]

    def read(self, index: int) -> Sample:
        """The inputs that a row holds."""
        return self._mapper(self._row(index), self.place(index), self.note)

    def document(self, index: int) -> str | None:
        """The text of a row."""
        return self._mapper.text(self._row(index))

    def place(self, index: int) -> str:
        """The file and the row."""
        return f"{self._path.name}, row {index + 1}"

    def _row(self, index: int) -> dict[str, object]:
        group = bisect.bisect_right(self._starts, index) - 1
        if self._held is None or self._held[0] != group:
            self._held = None
            self._held = group, self._table(group)
        row = self._held[1].slice(index - self._starts[group], 1)
        return {name: row.column(name)[0].as_py() for name in self._columns}

    def _table(self, group: int) -> Any:
        with opened(self._path) as stream:
            file = self._open(stream, self._texts)
            try:
                table = file.read_row_group(group, columns=self._columns, use_threads=False)
            except self._errors as error:
                raise self._damaged(error) from error
        promised = self._starts[group + 1] - self._starts[group]
        if table.num_rows != promised:
            reason = f"a row group of {promised} rows has {table.num_rows}"
            raise self._damaged(ValueError(reason))
        return table

    def _feed(self, hasher: hashlib._Hash) -> None:
        feed_part(hasher, self._steps.text_digest())
        feed_part(hasher, self._steps.image_digest())
        feed_file(hasher, self._path)
