"""What ``compare`` prints: small tables that fit 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

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
from onnxq.cli.show_profile import profile_views
from onnxq.compare.metric import score
from onnxq.wording import number_text, perplexity_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.console import RenderableType
    from rich.table import Table

    from onnxq.compare.compare import ComparedRun, Comparison


def views(found: Comparison, report: Path | None = None) -> Iterator[RenderableType]:
    """The runs with their numbers, then times and costs, then numerics, and where the report is."""
    yield _runs(found)
    yield ""
    if found.metric != "auto":
        yield _scores(found)
        yield line(f"Measured {_on(found)}.")
    if found.timing is not None:
        yield _times(found)
        yield line(
            f"Times faster: than the first model on the same provider, with the spread over "
            f"{found.timing.rounds} rounds of {found.timing.runs} runs or more."
        )
        yield ""
        yield _costs(found)
        yield ""
    if found.metric == "auto":
        yield from _closeness(found)
    yield from profile_views(found.profile)
    for text in found.warnings:
        yield line(f"warning: {text}", style="yellow")
    if report is not None:
        yield line(f"Report: {report}")


def _closeness(found: Comparison) -> Iterator[RenderableType]:
    if len(found.runs) > 1 or _any_accuracy(found):
        yield _numerics(found)
    if any(run.fidelity and run.fidelity.farthest for run in found.runs):
        yield _other_outputs(found)
    if found.tokens is not None:
        yield _next_tokens(found)
    if len(found.runs) > 1 or _any_accuracy(found) or found.tokens is not None:
        reference = found.reference_text
        yield line(f"Compared with {reference} {_on(found)}{_of_output(found)}.")


def _any_accuracy(found: Comparison) -> bool:
    return found.runs[0].accuracy is not None


def _on(found: Comparison) -> str:
    tokens = "" if found.tokens is None else f" of {found.tokens:,} tokens"
    return f"on {found.samples} samples{tokens}"


def _of_output(found: Comparison) -> str:
    names = {run.fidelity.output: None for run in found.runs if run.fidelity is not None}
    shown = ", ".join(name for name in names if name)
    return f", output {shown}" if shown else ""


def _runs(found: Comparison) -> Table:
    headers = ["size", "integer kernels"]
    placed = any(len(run.placement.by_provider) > 1 for run in found.runs)
    shown = table("", ["run", "model", "provider"], [*headers, *["elsewhere", "copies"] * placed])
    for number, run in enumerate(found.runs, start=1):
        kernels = DASH if run.kernels is None else str(run.kernels.integer)
        names = (line(str(run.model)), line(run.provider))
        cells = [bytes_text(run.file_bytes), kernels]
        if placed:
            cells += [str(len(run.placement.fallen_back)), str(run.placement.copies)]
        shown.add_row(str(number), *names, *cells)
    return shown


def _times(found: Comparison) -> Table:
    shown = table("Latency", ["run"], ["median", "p90", "p99", "times faster"])
    for number, run in enumerate(found.runs, start=1):
        shown.add_row(str(number), *_time_cells(run))
    return shown


def _costs(found: Comparison) -> Table:
    headers = ["load", "first run", "peak memory"]
    on_device = any(run.latency and run.latency.device_bytes is not None for run in found.runs)
    energy = any(run.latency and run.latency.joules is not None for run in found.runs)
    headers += ["on the GPU"] * on_device + ["energy a run"] * energy
    shown = table("Start, memory and energy" if energy else "Start and memory", ["run"], headers)
    for number, run in enumerate(found.runs, start=1):
        cells = _cost_cells(run)
        if run.latency is not None and on_device:
            device = run.latency.device_bytes
            cells.append(DASH if device is None else bytes_text(device))
        if run.latency is not None and energy:
            cells.append(_joules_text(run.latency.joules))
        shown.add_row(str(number), *cells)
    return shown


def _joules_text(value: float | None) -> str:
    return DASH if value is None else f"{value:.3g} J"


def _time_cells(run: ComparedRun) -> list[str]:
    found, ratio = run.latency, run.ratio
    if found is None:
        return []
    return [
        ms_text(found.median_ms),
        ms_text(found.p90_ms),
        ms_text(found.p99_ms),
        "1" if ratio is None else times_text(ratio.median, ratio.low, ratio.high),
    ]


def _cost_cells(run: ComparedRun) -> list[str]:
    found = run.latency
    if found is None:
        return []
    return [
        ms_text(found.load_seconds * 1000),
        ms_text(found.first_ms),
        bytes_text(found.peak_rss_bytes),
    ]


def _numerics(found: Comparison) -> Table:
    headers = ["SQNR", "cosine", "max error", "same top class", "accuracy"]
    # Only models whose first output is not float have it.
    equal = any(run.fidelity and run.fidelity.equal_share is not None for run in found.runs)
    shown = table("Numerics", ["run"], [*headers, *["equal elements"] * equal])
    for number, run in enumerate(found.runs, start=1):
        fidelity = run.fidelity
        cells = ["reference", DASH, DASH, DASH]
        if fidelity is not None:
            cells = [
                db_text(fidelity.sqnr_db),
                number_text(fidelity.cosine, ".5f"),
                number_text(fidelity.max_error, ".3g"),
                percent_text(fidelity.top1_agreement),
            ]
        cells.append(percent_text(run.accuracy))
        if equal:
            cells.append(percent_text(None if fidelity is None else fidelity.equal_share))
        shown.add_row(str(number), *cells)
    return shown


def _other_outputs(found: Comparison) -> Table:
    """Of the float outputs beside the one above the farthest of each run."""
    shown = table("Other outputs", ["run", "farthest"], ["SQNR", "of"])
    for number, run in enumerate(found.runs, start=1):
        if run.fidelity is not None and run.fidelity.farthest is not None:
            name, db = run.fidelity.farthest
            shown.add_row(str(number), line(name), db_text(db), str(len(run.fidelity.others)))
    return shown


def _next_tokens(found: Comparison) -> Table:
    shown = table("Next tokens", ["run"], ["perplexity", f"KL to {found.reference_text}, nats"])
    for number, run in enumerate(found.runs, start=1):
        kl = "reference" if run.fidelity is None else _FORMS["kl"](score(run, "kl"))
        shown.add_row(str(number), _FORMS["perplexity"](run.perplexity), kl)
    return shown


_FORMS: Final = {
    "perplexity": perplexity_text,
    "kl": lambda value: number_text(value, ".4g"),
    "sqnr": db_text,
    "top1": percent_text,
}
_WORDS: Final = {
    "perplexity": "perplexity",
    "kl": "KL to {}, nats a token",
    "sqnr": "SQNR to {}",
    "top1": "same top class as {}",
}


def _scores(found: Comparison) -> Table:
    shown = table("", ["run"], [_WORDS[found.metric].format(found.reference_text)])
    for number, run in enumerate(found.runs, start=1):
        value = score(run, found.metric)
        is_reference = value is None and run is found.reference
        shown.add_row(str(number), "reference" if is_reference else _FORMS[found.metric](value))
    return shown
