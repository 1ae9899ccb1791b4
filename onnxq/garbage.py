"""Python's garbage collector, held back where graphs of many small objects are made.

A graph of thousands of nodes is hundreds of thousands of objects, all alive. The collector visits
them over and over while more are made, which costs a third of the time and grows faster than the
graph does.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_OBJECTS_A_NODE = 20
"""What a copy of one node costs in objects that the collector counts, about."""


@contextmanager
def no_collection() -> Iterator[None]:
    """Leave the collector out: for work that makes objects without end and no garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def paced_collection(nodes: int) -> Iterator[None]:
    """Collect when a graph of so many nodes could have been copied, and not more often.

    Copies that are no longer needed are cycles of objects and hold arrays, so that they must go
    before there are many of them.
    """
    before = gc.get_threshold()
    gc.set_threshold(max(before[0], _OBJECTS_A_NODE * nodes), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
