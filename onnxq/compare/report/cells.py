"""Tables as the page shows them: columns, and rows of cells, whose texts the page escapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from onnxq.wording import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

_SHOWN: Final = 56
_IN_TITLE: Final = 160


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell.

    Attributes:
        text: What it shows.
        title: What it shows when pointed at; empty for nothing more.
        run: The run whose colour it bears, counted from 0; None for none.
        kind: The kind of kernel whose colour it bears; empty for none.
        bar: How much of a bar is filled, 0 to 1; None for no bar.
        code: Whether it is set as code, such as a digest.
    """

    text: str
    title: str = ""
    run: int | None = None
    kind: str = ""
    bar: float | None = None
    code: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        caption: What it holds.
        names: Headers of the columns of text, which come first.
        numbers: Headers of the columns of numbers, aligned to the right.
        rows: Their cells, in the order of the headers.
        left_out: How many more rows there would be.
    """

    caption: str
    names: tuple[str, ...]
    numbers: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    left_out: int = 0


def table(
    caption: str,
    names: Sequence[str],
    numbers: Sequence[str],
    rows: Sequence[Sequence[Cell | str]],
    *,
    most: int | None = None,
    total: int | None = None,
) -> Table:
    """A table of cells and plain texts, cut after ``most`` rows.

    Args:
        caption: What it holds.
        names: Headers of the columns of text, which come first.
        numbers: Headers of the columns of numbers.
        rows: Cells for every header.
        most: How many rows it shows; all if left out.
        total: How many rows there would be, where not all were made.
    """
    kept = tuple(
        tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row) for row in rows[:most]
    )
    return Table(caption, tuple(names), tuple(numbers), kept, (total or len(rows)) - len(kept))


def name_cell(name: str, *, full: str = "", most: int = _SHOWN) -> Cell:
    """A foreign name on one line, its middle left out where it is long; most of it in the title.

    Args:
        name: What is shown.
        full: What the title shows where it is more than that.
        most: Characters shown.
    """
    text, whole = printable(name), printable(full or name)
    shown = shortened(text, most)
    return Cell(shown, "" if shown == whole else whole[:_IN_TITLE])


def shortened(text: str, most: int = _SHOWN) -> str:
    """The text, or its two ends."""
    if len(text) <= most:
        return text
    half = (most - 1) // 2
    return f"{text[:half]}…{text[-half:]}"
