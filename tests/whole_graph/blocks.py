"""The table of blocks: each adds a few nodes behind a value and gives the value they end in.

A block is a function of a draft and of the value it starts from. The table says for which ranks,
opsets and IR versions it is valid and how often it is drawn; it may still give None where a shape
does not suit it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.whole_graph.draft import Draft, Val

if TYPE_CHECKING:
    from collections.abc import Sequence

Function = Callable[[Draft, Val], Val | None]

TABLE: list[Block] = []
"""Every block, in the order of their definition."""


@dataclass(frozen=True, slots=True)
class Block:
    """An entry of the table.

    Attributes:
        name: The function's name.
        run: The function.
        ranks: The ranks of the value it starts from.
        since: The first opset in which it is valid.
        until: The first one in which it is not any more.
        ir_version: The lowest IR version.
        often: How often it is drawn, relative to others.
    """

    name: str
    run: Function
    ranks: tuple[int, ...]
    since: int
    until: int
    ir_version: int
    often: float


def block(
    *ranks: int, since: int = 7, until: int = 1000, ir_version: int = 3, often: float = 1.0
) -> Callable[[Function], Function]:
    """Enter a function into the table."""

    def enter(function: Function) -> Function:
        name = getattr(function, "__name__", "block")
        TABLE.append(Block(name, function, ranks, since, until, ir_version, often))
        return function

    return enter


def fitting(draft: Draft, rank: int) -> Sequence[Block]:
    """The blocks that may follow a value of this rank."""
    style = draft.style
    return [
        entry
        for entry in TABLE
        if rank in entry.ranks
        and entry.since <= style.opset < entry.until
        and entry.ir_version <= style.ir_version
    ]
