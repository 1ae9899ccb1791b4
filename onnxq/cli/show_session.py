"""What ``compare`` prints of throughput and of the search for a session's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.cli.console import line, ms_text, table, times_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from rich.console import RenderableType
    from rich.table import Table

    from onnxq.compare.compare import Comparison
    from onnxq.compare.session_search import SessionSearch


def views(found: Comparison, files: Sequence[Path]) -> Iterator[RenderableType]:
    """The throughput of the runs, then what was searched and where it was written."""
    if found.throughput:
        yield ""
        yield _throughput(found)
    if found.session is not None:
        yield ""
        yield from _session(found.session)
        yield line("Written: " + ", ".join(str(path) for path in files))


def _throughput(found: Comparison) -> Table:
    shown = table("Throughput", ["run"], ["batch", "threads", "median", "rows a second (spread)"])
    numbers = {(run.model, run.provider): n for n, run in enumerate(found.runs, start=1)}
    for entry in found.throughput:
        rates = (entry.per_second, entry.low, entry.high)
        # Of a large model several seconds go by for a row.
        middle, low, high = (f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}" for rate in rates)
        rate = f"{middle} ({low}-{high})"
        cells = (str(entry.batch), str(entry.threads), ms_text(entry.median_ms), rate)
        shown.add_row(str(numbers[entry.model, entry.provider]), *cells)
    return shown


def _session(found: SessionSearch) -> Iterator[RenderableType]:
    title = f"Session settings of {found.model.name} on {found.provider}"
    shown = table(title, ["tried", "taken"], ["median", "times faster than the best before"])
    for entry in found.tried:
        ratio = entry.faster
        cells = (ms_text(entry.median_ms), times_text(ratio.median, ratio.low, ratio.high))
        shown.add_row(line(entry.tuning.changes()), "yes" if entry.taken else "no", *cells)
    yield shown
    yield line(found.verdict)
    if found.left_out:
        yield line(f"warning: no time was left for: {', '.join(found.left_out)}", style="yellow")
