"""From the evidence to one HTML page."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from onnxq.compare.report import figures, tables
from onnxq.compare.report.cells import name_cell, shortened
from onnxq.compare.report.graph_map import KINDS, cells
from onnxq.compare.report.verdict import (
    best_run,
    headline,
    run_name,
    sentence,
    size_ratio,
    speed,
    warnings,
)
from onnxq.wording import (
    bytes_text,
    db_text,
    ms_text,
    percent_text,
    perplexity_text,
    printable,
)

if TYPE_CHECKING:
    from onnxq.compare.compare import ComparedRun, Comparison
    from onnxq.compare.report.cells import Cell, Table
    from onnxq.compare.report.evidence import Evidence, ModelEvidence
    from onnxq.compare.report.graph_map import GraphMap
    from onnxq.compare.report.layers import LayerError

MARKED: Final = 6
"""Steps of each model that the figure of layers numbers."""
_OPEN_ROWS: Final = 12


@dataclass(frozen=True, slots=True)
class Card:
    """A run at a glance: what it is called, and its numbers with what they are."""

    run: int
    name: str
    provider: str
    numbers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class LayerView:
    """The layers of one model: in words, the worst of them, and all."""

    run: int
    name: str
    words: str
    worst: Table | None
    every: Table | None


@dataclass(frozen=True, slots=True)
class SpreadView:
    """Distributions of one layer: its figure and its table, and why a part is missing."""

    run: int
    title: Cell
    words: str
    figure: str
    table: Table


@dataclass(frozen=True, slots=True)
class MapView:
    """The executed graph of one run."""

    run: int
    name: str
    words: str
    figure: str
    operators: Table
    nodes: Table


@dataclass(frozen=True, slots=True)
class SkippedView:
    """What one model leaves float."""

    run: int
    name: str
    words: str
    table: Table | None


def render(found: Evidence) -> str:
    """The page as text.

    Args:
        found: What it shows.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("onnxq.compare.report", "page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("report.html.j2").render(**_view(found))


def _view(found: Evidence) -> dict[str, object]:
    comparison = found.comparison
    timed = [
        (at, run.latency)
        for at, run in enumerate(comparison.runs)
        if run.latency is not None and run.latency.quantiles_ms
    ]
    measured = [(model.run, model.layers) for model in found.models if model.layers is not None]
    return {
        "headline": headline(found),
        "others": [
            (at, sentence(found, at))
            for at in range(1, len(comparison.runs))
            if at != best_run(found)
        ],
        "warnings": warnings(found),
        "cards": [_card(found, at, run) for at, run in enumerate(comparison.runs)],
        "measured": _measured(found),
        "reference": comparison.reference_text,
        "runs": tables.runs(comparison),
        "timing": comparison.timing,
        "latency_figure": figures.latency(timed) if timed else "",
        "latency": tables.latency(comparison),
        "throughput": tables.throughput(comparison) if comparison.throughput else None,
        "session": _session(comparison),
        "layers_figure": figures.layers(measured, MARKED) if measured else "",
        "layers": [_layers(found, model) for model in found.models],
        "spreads": [view for model in found.models for view in _spreads(model)],
        "kinds": KINDS,
        "maps": _maps(found),
        "kinds_table": tables.kinds(comparison, found.maps),
        "skipped": [_skipped(found, model) for model in found.models if model.skipped is not None],
        "command": printable(found.provenance.command),
        "provenance": [
            tables.models(found.provenance),
            tables.versions(found.provenance),
            tables.machine(found.provenance),
        ],
        "limits": found.limits,
        "onnxq": found.provenance.onnxq,
    }


def _session(found: Comparison) -> dict[str, object] | None:
    search = found.session
    if search is None:
        return None
    return {
        "table": tables.session(search),
        "model": search.model.name,
        "provider": search.provider,
        "verdict": search.verdict,
    }


def _measured(found: Evidence) -> str:
    comparison, machine = found.comparison, found.provenance.machine
    tokens = "" if comparison.tokens is None else f" of {comparison.tokens:,} tokens"
    plural = "" if comparison.samples == 1 else "s"
    return f"{comparison.samples:,} sample{plural}{tokens}, {machine.cpu}, {machine.cores} cores"


def _card(found: Evidence, at: int, run: ComparedRun) -> Card:
    comparison = found.comparison
    numbers = []
    if run.latency is not None:
        times = speed(comparison, run)
        median = ms_text(run.latency.median_ms)
        numbers.append(
            (median, "median") if times is None else (f"{times:.2f}×", f"as fast, {median}")
        )
    size = bytes_text(run.file_bytes)
    smaller = size_ratio(comparison, run)
    if not at:
        numbers.append((size, "size"))
    elif smaller >= 1:
        numbers.append((f"{smaller:.2f}×", f"smaller, {size}"))
    else:
        numbers.append((f"{1 / smaller:.2f}×", f"larger, {size}"))
    if run.fidelity is not None:
        numbers.append((db_text(run.fidelity.sqnr_db), "SQNR"))
    if run.accuracy is not None:
        numbers.append((percent_text(run.accuracy), "accuracy"))
    elif run.perplexity is not None:
        numbers.append((perplexity_text(run.perplexity), "perplexity"))
    if run.kernels is not None and at:
        few = run.kernels.integer == 0 and run.kernels.nbits > 0
        count = run.kernels.nbits if few else run.kernels.integer
        numbers.append((str(count), "kernels of few bits" if few else "integer kernels"))
    return Card(at, shortened(printable(run.model.name), 40), run.provider, tuple(numbers))


def _layers(found: Evidence, model: ModelEvidence) -> LayerView:
    name = run_name(found.comparison, found.comparison.runs[model.run])
    if model.layers is None:
        return LayerView(model.run, name, f"Not measured: {model.why_no_layers}.", None, None)
    errors = model.layers.worst_first
    most = found.limits.rows // len(found.models)
    worst = [e for e in errors if e.step > 0 and not e.rescaled][:_OPEN_ROWS]
    return LayerView(
        model.run,
        name,
        _of_layers(model),
        tables.layers(worst, model.run, len(worst)) if worst else None,
        tables.layers(errors, model.run, most) if len(errors) > len(worst) else None,
    )


def _of_layers(model: ModelEvidence) -> str:
    layers = model.layers
    if layers is None:
        return ""
    low, high = layers.samples
    samples = f"{low}" if low == high else f"{low} to {high}"
    alike = f"{len(layers.layers)} tensors of {layers.graph_nodes} nodes bear one name in both"
    texts = [f"{alike} models and were compared on {samples} samples"]
    worst = next((error for error in layers.worst_first if not error.rescaled), None)
    if worst is None or worst.sqnr_db == math.inf:
        texts.append("they are equal")
    else:
        texts.append(_largest(worst))
    equal = sum(error.sqnr_db == math.inf for error in layers.layers)
    if 0 < equal < len(layers.layers):
        texts.append(f"{equal} are equal")
    scaled = sum(error.rescaled for error in layers.layers)
    if scaled:
        texts.append(
            f"{scaled} are stored at other scales (channel scaling), which is no error of theirs"
        )
    if layers.other_shape:
        texts.append(f"{layers.other_shape} have another shape and were left out")
    return f"{'; '.join(texts)}."


def _largest(worst: LayerError) -> str:
    name = shortened(printable(worst.layer.node or worst.layer.tensor))
    where = f"at {db_text(worst.sqnr_db)}"
    if math.isnan(worst.sqnr_db):
        where = "NaN or Inf"
    before = "exact" if worst.before_db == math.inf else f"at {db_text(worst.before_db)}"
    step = f"the largest step is {name} ({worst.layer.op})"
    return f"{step}: its inputs are {before}, its output is {where}"


def _spreads(model: ModelEvidence) -> list[SpreadView]:
    views = []
    for number, found in enumerate(model.spreads, start=1):
        if found.weight is None and found.output is None:
            continue
        layer = found.layer
        words = f"{layer.layer.op}, output at {db_text(layer.sqnr_db)}"
        why = f"; no weight is drawn: {found.why_no_weight}" if found.weight is None else ""
        views.append(
            SpreadView(
                model.run,
                name_cell(layer.layer.node or layer.layer.tensor),
                f"{words}{why}",
                figures.spread(f"spread-{model.run}-{number}", model.run, found),
                tables.spread(found),
            )
        )
    return views


def _maps(found: Evidence) -> list[MapView]:
    many = len(found.maps)
    drawn = [cells(graph.nodes, found.limits.cells // many) for graph in found.maps]
    length = figures.row_length(max(len(here) for here, _ in drawn))
    return [
        MapView(
            at,
            run_name(found.comparison, run),
            _of_map(run, graph, each),
            figures.graph_map(f"map-{at}", here, length) if here else "",
            tables.operators(graph),
            tables.nodes(graph, found.limits.rows // many),
        )
        for at, (run, graph, (here, each)) in enumerate(
            zip(found.comparison.runs, found.maps, drawn, strict=True)
        )
    ]


def _of_map(run: ComparedRun, graph: GraphMap, each: int) -> str:
    counts = ", ".join(f"{count} {kind}" for kind, count in graph.counts.items())
    words = f"{len(graph.nodes):,} nodes: {counts or 'none that can be read'}"
    if each > 1:
        words += f"; a cell stands for {each} nodes and has the colour of most of them"
    elsewhere = [node for node in graph.nodes if node.reason]
    if elsewhere:
        words += (
            f"; {len(elsewhere)} run on another provider than {run.provider}, "
            f"{shortened(printable(elsewhere[0].name))} because: {elsewhere[0].reason}"
        )
    return words


def _skipped(found: Evidence, model: ModelEvidence) -> SkippedView:
    name = run_name(found.comparison, found.comparison.runs[model.run])
    skipped = model.skipped
    if skipped is None or not skipped.sites:
        return SkippedView(model.run, name, "Every site is quantized.", None)
    scheme = f" Reasons are those of the scheme {skipped.scheme}." if skipped.scheme else ""
    words = f"{len(skipped.sites)} of {skipped.all_sites} sites stay float.{scheme}"
    return SkippedView(model.run, name, words, tables.skipped(skipped))
