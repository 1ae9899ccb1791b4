"""Run compiled work on the rows of an array, on every core."""

from __future__ import annotations

import functools
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_WORTH_THREADS = 1 << 14
"""With fewer elements than this, starting threads takes longer than the work."""


def over_rows(work: Callable[[int, int], None], rows: int, elements: int) -> None:
    """Call ``work(first, end)`` until every row was covered once.

    Args:
        work: Works on rows ``first`` to ``end``, exclusive; compiled code that releases the GIL.
        rows: How many there are.
        elements: What it all goes through; little is done at once.
    """
    workers = min(os.cpu_count() or 1, rows)
    if elements < _WORTH_THREADS or workers < 2:
        work(0, rows)
        return
    # Twice as many parts as workers: a core that is busy elsewhere holds up no whole half.
    ends = [rows * part // (2 * workers) for part in range(2 * workers + 1)]
    jobs = [_pool().submit(work, a, b) for a, b in itertools.pairwise(ends) if a < b]
    for job in jobs:
        job.result()


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """Threads that wait for work: it comes thousands of times, a millisecond each."""
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="onnxq-rows")
