"""What ``compare`` prints: three small tables that fit 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.cli.console import (
    DASH,
    bytes_text,
    db_text,
    line,
    ms_text,
    percent_text,
    table,
    times_text,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType
    from rich.table import Table

    from onnxq.compare.compare import ComparedRun, Comparison


def views(found: Comparison) -> Iterator[RenderableType]:
    """The runs with their numbers, then times, then numerics."""
    yield _runs(found)
    yield ""
    if found.timing is not None:
        yield _times(found)
        yield line(
            f"Times faster: than the first model on the same provider, with the spread over "
            f"{found.timing.rounds} rounds of {found.timing.runs} runs."
        )
        yield ""
    if len(found.runs) > 1 or found.reference.accuracy is not None:
        yield _numerics(found)
        yield line(f"Compared with run 1 on {found.samples} samples, first output.")
    for number, run in enumerate(found.runs, start=1):
        if run.fidelity is not None and run.fidelity.not_finite:
            names = ", ".join(run.fidelity.not_finite)
            yield line(f"warning: run {number} gives NaN or Inf in {names}", style="yellow")


def _runs(found: Comparison) -> Table:
    shown = table("", ["run", "model", "provider"], ["size", "integer kernels"])
    for number, run in enumerate(found.runs, start=1):
        kernels = DASH if run.kernels is None else str(run.kernels.integer)
        names = (line(str(run.model)), line(run.provider))
        shown.add_row(str(number), *names, bytes_text(run.file_bytes), kernels)
    return shown


def _times(found: Comparison) -> Table:
    headers = ["load", "first run", "median", "p90", "times faster", "peak memory"]
    shown = table("Latency", ["run"], headers)
    for number, run in enumerate(found.runs, start=1):
        shown.add_row(str(number), *_time_cells(run))
    return shown


def _time_cells(run: ComparedRun) -> list[str]:
    found, ratio = run.latency, run.ratio
    if found is None:
        return []
    return [
        ms_text(found.load_seconds * 1000),
        ms_text(found.first_ms),
        ms_text(found.median_ms),
        ms_text(found.p90_ms),
        "1" if ratio is None else times_text(ratio.median, ratio.low, ratio.high),
        bytes_text(found.peak_rss_bytes),
    ]


def _numerics(found: Comparison) -> Table:
    headers = ["SQNR", "cosine", "max error", "same top class", "accuracy"]
    shown = table("Numerics", ["run"], headers)
    for number, run in enumerate(found.runs, start=1):
        fidelity = run.fidelity
        cells = ["reference", DASH, DASH, DASH]
        if fidelity is not None:
            cells = [
                db_text(fidelity.sqnr_db),
                f"{fidelity.cosine:.5f}",
                f"{fidelity.max_error:.3g}",
                percent_text(fidelity.top1_agreement),
            ]
        shown.add_row(str(number), *cells, percent_text(run.accuracy))
    return shown
