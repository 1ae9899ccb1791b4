"""Tables and numbers as people read them."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from onnxq.wording import (
    DASH,
    bytes_text,
    count_text,
    db_text,
    ms_text,
    percent_text,
    printable,
    times_text,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "DASH",
    "bytes_text",
    "console",
    "count_text",
    "db_text",
    "line",
    "ms_text",
    "percent_text",
    "table",
    "times_text",
]


class _PipeConsole(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the caller; rich would end the process with status 1."""
        raise BrokenPipeError


def console(stream: IO[str]) -> Console:
    """A console that takes every text literally."""
    return _PipeConsole(file=stream, markup=False, highlight=False, emoji=False)


def table(title: str, names: Sequence[str], numbers: Sequence[str]) -> Table:
    """A table whose columns of names fold, so that nothing is cut, and whose numbers stay whole.

    Args:
        title: What stands above it.
        names: Headers of the columns of text, which come first.
        numbers: Headers of the columns of numbers, aligned to the right.
    """
    made = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    for header in names:
        made.add_column(header, overflow="fold", min_width=len(header))
    for header in numbers:
        made.add_column(header, justify="right", no_wrap=True)
    return made


def line(text: str, style: str = "") -> Text:
    """A paragraph; what a terminal would obey is escaped."""
    return Text(printable(text), style=style, overflow="fold")
