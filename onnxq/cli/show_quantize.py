"""What ``quantize`` prints: a verdict, a table, the kernels, what was skipped, warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.algorithms.scheme_choice import AS_FAST, AS_LARGE
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
from onnxq.wording import number_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType
    from rich.table import Table

    from onnxq.algorithms.scheme_choice import Trial
    from onnxq.pipeline import QuantizeResult
    from onnxq.runtime.timing import Ratio
    from onnxq.verify.fidelity import Fidelity
    from onnxq.verify.kernels import KernelReport
    from onnxq.verify.next_tokens import NextTokens
    from onnxq.verify.verification import Verification

SHOWN_SITES = 20
"""So many sites that stay float are shown; `inspect` shows all."""


def views(result: QuantizeResult) -> Iterator[RenderableType]:
    """Everything, in the order of interest."""
    yield line(_verdict(result), style="bold")
    yield line(f"Scheme {result.scheme} for {result.target}: {result.scheme_reason}.")
    if result.plan.format == "qoperator":
        yield line("Written as operators on integers (domains ai.onnx and com.microsoft).")
    found = result.verification
    if found is not None:
        yield ""
        yield _measured(found)
        yield ""
        quantized = sum(site.decision != "float" for site in result.plan.sites)
        yield line(_kernels(found.kernels, quantized))
        yield line(_verified_on(found))
    if result.trials:
        yield ""
        yield _tried(result.trials)
    if result.calibration is not None:
        run = result.calibration
        again = ", statistics of an earlier run" if run.reused else ""
        came_to = f": {run.chosen}" if run.chosen != run.method else ""
        how, samples = f"{run.method}{came_to}", counted(run.samples, "sample")
        yield line(f"Calibrated ({how}) on {samples} in {run.seconds:.1f} s{again}.")
    skipped = [
        (site.name, site.op, site.reason) for site in result.plan.sites if site.decision == "float"
    ]
    yield from left_float(skipped, limit=SHOWN_SITES)
    yield from profile_views(result.shape_profile)
    for text in result.warnings:
        yield line(f"warning: {text}", style="yellow")


def left_float(
    sites: Sequence[tuple[str, str, str]], limit: int | None
) -> Iterator[RenderableType]:
    """A table of the sites that stay float, those of one reason together.

    Args:
        sites: Name, operator and reason of each.
        limit: At most so many; None for all.
    """
    if not sites:
        return
    first = {reason: index for index, (_, _, reason) in reversed(list(enumerate(sites)))}
    ordered = sorted(sites, key=lambda site: first[site[2]])
    stay = "site stays" if len(sites) == 1 else "sites stay"
    shown = table(f"{len(sites)} {stay} float", ["reason", "site", "operator"], [])
    before = None
    for name, op, reason in ordered[:limit]:
        shown.add_row(*(line(t) for t in ("" if reason == before else reason, name, op)))
        before = reason
    yield ""
    yield shown
    rest = len(sites) - len(ordered[:limit])
    if rest:
        yield line(f"and {rest} more; see `onnxq inspect`")


def _verdict(result: QuantizeResult) -> str:
    found = result.verification
    if found is None:
        return f"{result.output}: written unchanged, {result.scheme_reason}."
    parts = [size_text(found.size_ratio)]
    if found.latency is not None:
        parts.append(speed_text(found.latency.ratio))
    parts.append(_closeness(found.fidelity))
    name = result.output or "NOT WRITTEN"
    end = f"; {result.missed}" if result.missed else ""
    return f"{name}: {', '.join(parts)}{end}."


def size_text(ratio: float) -> str:
    """How much smaller or larger than float."""
    if abs(ratio - 1) <= AS_LARGE:
        return "as large as float"
    return f"{ratio:.2f} times smaller" if ratio > 1 else f"{1 / ratio:.2f} times LARGER"


def speed_text(ratio: Ratio) -> str:
    """Slower is said only where all rounds agree, and not of what counts as fast."""
    text = f"{ratio.median:.2f} times as fast as float"
    if not ratio.clear:
        return f"{text} ({ratio.low:.2f} to {ratio.high:.2f}, no clear difference)"
    return f"{text}, SLOWER" if ratio.median < AS_FAST else text


def _closeness(found: Fidelity) -> str:
    if found.sqnr_db is None and found.equal_share is not None:
        return f"{percent_text(found.equal_share)} of {found.output} equal"
    return f"SQNR {db_text(found.sqnr_db)}" if found.compared else "outputs not compared"


def counted(count: int, what: str) -> str:
    """A number of things."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _measured(found: Verification) -> Table:
    fidelity, latency = found.fidelity, found.latency
    shown = table("", [""], ["float", "quantized", "times better"])
    size = (found.float_bytes, found.quantized_bytes)
    shown.add_row("size on disk", *map(bytes_text, size), f"{found.size_ratio:.2f}")
    if latency is not None:
        float_run, run, ratio = latency.floating, latency.quantized, latency.ratio
        times = times_text(ratio.median, ratio.low, ratio.high)
        what = f", one token behind {found.timed_past}" if found.timed_past else ""
        shown.add_row(
            f"median latency{what}", ms_text(float_run.median_ms), ms_text(run.median_ms), times
        )
        memory = (float_run.peak_rss_bytes, run.peak_rss_bytes)
        shown.add_row(
            "peak memory of the process", *map(bytes_text, memory), f"{memory[0] / memory[1]:.2f}"
        )
    _add_closeness(shown, fidelity)
    return shown


def _add_closeness(shown: Table, fidelity: Fidelity) -> None:
    if fidelity.sqnr_db is not None:
        shown.add_row(line(f"SQNR of {fidelity.output}"), DASH, db_text(fidelity.sqnr_db), "")
        shown.add_row("cosine", DASH, number_text(fidelity.cosine, ".5f"), "")
        shown.add_row("greatest difference", DASH, number_text(fidelity.max_error, ".3g"), "")
    if fidelity.equal_share is not None:
        shown.add_row(
            "equal elements of the first output", DASH, percent_text(fidelity.equal_share), ""
        )
    if fidelity.top1_agreement is not None:
        shown.add_row("same top class", DASH, percent_text(fidelity.top1_agreement), "")
    if fidelity.language is not None:
        _add_next_tokens(shown, fidelity.language)
    if fidelity.quantized_accuracy is not None:
        accuracy = (fidelity.float_accuracy, fidelity.quantized_accuracy)
        shown.add_row("accuracy", *map(percent_text, accuracy), "")


def _add_next_tokens(shown: Table, found: NextTokens) -> None:
    shown.add_row("KL to float, nats a token", DASH, number_text(found.kl_nats, ".4g"), "")
    if found.float_perplexity is not None:
        perplexity = (found.float_perplexity, found.quantized_perplexity)
        shown.add_row("perplexity", *(number_text(value, ".2f") for value in perplexity), "")


def _kernels(found: KernelReport, quantized: int) -> str:
    share = (
        "" if found.mac_share is None else f", {percent_text(found.mac_share)} of the sites' MACs"
    )
    ops = ", ".join(f"{count} {op}" for op, count in found.by_op.items())
    if not found.counted:
        return f"{counted(quantized, 'site')} quantized; what really runs was not counted."
    parts = []
    if found.planned or not (found.planned_blocks or found.planned_folded or found.planned_half):
        parts.append(
            f"{found.integer} of {found.planned} planned sites run in integer kernels{share}"
        )
    if found.planned_blocks:
        parts.append(f"{found.blocks} of {found.planned_blocks} run on weights in blocks")
    if found.planned_folded:
        counts = f"{found.folded} of {found.planned_folded}"
        parts.append(f"{counts} weights become float when the model is loaded")
    if found.planned_half:
        parts.append(f"{found.planned_half} nodes compute in 16 bits")
    text = "; ".join(parts)
    return f"{text} ({ops})." if ops else f"{text}."


def _tried(trials: Sequence[Trial]) -> Table:
    shown = table(
        "measured for the choice, on calibration samples",
        [""],
        ["SQNR", "same top class", "times float's speed", "size"],
    )
    for trial in trials:
        agreement = DASH if trial.agreement is None else percent_text(trial.agreement)
        ratio = number_text(trial.ratio, ".2f")
        shown.add_row(
            line(trial.name), db_text(trial.sqnr_db), agreement, ratio, bytes_text(trial.bytes)
        )
    return shown


def _verified_on(found: Verification) -> str:
    samples = found.fidelity.samples
    if not found.fidelity.compared:
        return "Not verified: outputs were not compared."
    if found.made_up:
        return f"Compared on {counted(samples, 'made-up input')} only: no data was given."
    if found.fidelity.independent:
        return f"Verified on {counted(samples, 'sample')} that calibration did not see."
    return f"Not independently verified: calibration saw the samples compared on ({samples})."
