"""What ``inspect`` prints: the structure, the sites, why some stay float."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from onnxq.cli.console import DASH, bytes_text, count_text, db_text, line, table
from onnxq.cli.show_blocks import held_out
from onnxq.cli.show_quantize import counted, left_float

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType
    from rich.table import Table

    from onnxq.graph.structure import Summary, ValueSummary
    from onnxq.pipeline import InspectedSite, Inspection


def views(found: Inspection) -> Iterator[RenderableType]:
    """Everything; with measured sites the worst comes first."""
    if found.quantized_form is not None:
        yield line(f"Quantized already: {found.quantized_form}.", style="bold")
    yield from _structure(found.summary)
    for text in found.obstacles:
        yield line(f"obstacle: {text}", style="yellow")
    for part in found.bundle:
        reads, makes = ", ".join(part.inputs), ", ".join(part.outputs)
        yield line(f"{part.name}: {reads} -> {makes} ({counted(part.nodes, 'node')})")
    for key, text in found.provenance.items():
        yield line(f"{key}: {_readable(text)}")
    yield ""
    sites = list(found.sites)
    measured = any(site.sqnr_db is not None for site in sites)
    if measured:
        sites.sort(key=lambda site: float("inf") if site.sqnr_db is None else site.sqnr_db)
    if sites:
        yield _sites(sites, measured=measured)
        yield from _legend(measured=measured)
    else:
        yield line("The model has no site that could be quantized.")
    yield from held_out(sites)
    yield from left_float(
        [(site.name, site.op, site.reason) for site in sites if site.decision == "float"], None
    )
    for note in found.notes:
        yield line(f"note: {note}", style="yellow")


def _structure(summary: Summary) -> Iterator[RenderableType]:
    ops = ", ".join(f"{count} {op}" for op, count in summary.ops.items())
    opsets = ", ".join(f"{domain or 'onnx'} {n}" for domain, n in summary.opsets.items())
    rows = [
        ("inputs", _values(summary.inputs)),
        ("outputs", _values(summary.outputs)),
        ("nodes", f"{summary.nodes}: {ops}"),
        (
            "weights",
            f"{count_text(summary.parameters)} elements, {bytes_text(summary.weight_bytes)}",
        ),
        ("opset", f"{opsets}; IR version {summary.ir_version}"),
        ("made by", summary.producer or DASH),
    ]
    for name, text in rows:
        yield line(f"{name}: {text}")


def _readable(text: str) -> str:
    """An object of JSON as a list of its entries; any other text as it is."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return (_words(found) or DASH) if isinstance(found, dict) else text


def _words(value: object) -> str:
    """``key value, key value``; what is nested in brackets."""
    if isinstance(value, dict):
        inner = ((key, _words(entry), isinstance(entry, dict)) for key, entry in value.items())
        return ", ".join(f"{k} ({text})" if deep else f"{k} {text}" for k, text, deep in inner)
    if isinstance(value, list):
        return f"[{'; '.join(map(_words, value))}]"
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)


def _values(values: Sequence[ValueSummary]) -> str:
    return ", ".join(f"{value.name} {value.type_text}{_dims(value)}" for value in values)


def _dims(value: ValueSummary) -> str:
    if value.shape is None:
        return ""
    return f"[{', '.join('?' if dim is None else str(dim) for dim in value.shape)}]"


def _sites(sites: Sequence[InspectedSite], *, measured: bool) -> Table:
    numbers = ["weight", "MACs", "spread", "weight\ndB", *(["site\ndB"] if measured else [])]
    shown = table(f"{len(sites)} sites", ["site"], ["operator", *numbers, "becomes"])
    for site in sites:
        weight = site.weight
        cells = [
            DASH if weight is None else "x".join(map(str, weight.shape)),
            count_text(site.macs),
            DASH if weight is None else f"{weight.channel_spread:.1f}",
            DASH if weight is None else db_text(weight.sqnr_db).removesuffix(" dB"),
            *([db_text(site.sqnr_db).removesuffix(" dB")] if measured else []),
            site.decision,
        ]
        shown.add_row(line(site.name), line(site.op), *cells)
    return shown


def _legend(*, measured: bool) -> Iterator[RenderableType]:
    of = "of the first sample" if measured else "where fixed shapes tell"
    yield line(f"MACs: products that are summed up in one run, {of}.")
    yield line("spread: the largest over the median of the channels' peaks in the weight.")
    yield line("weight dB: SQNR of the weight rounded to int8 for each channel.")
    if measured:
        yield line("site dB: SQNR of the site's output when it alone is quantized.")
