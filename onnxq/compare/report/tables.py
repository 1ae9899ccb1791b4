"""The tables of a report, one function each; every figure has one beside it."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

from onnxq.compare.report.cells import Cell, name_cell, table
from onnxq.compare.report.graph_map import KINDS
from onnxq.wording import (
    DASH,
    bytes_text,
    db_text,
    ms_text,
    number_text,
    percent_text,
    perplexity_text,
    times_text,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxq.compare.compare import ComparedRun, Comparison
    from onnxq.compare.report.cells import Table
    from onnxq.compare.report.graph_map import GraphMap
    from onnxq.compare.report.layers import LayerError
    from onnxq.compare.report.provenance import Provenance
    from onnxq.compare.report.skipped import Skipped
    from onnxq.compare.report.spreads import LayerSpread, Spread
    from onnxq.compare.session_search import SessionSearch

Row = list["Cell | str"]

_NOTHING: Final = 1e-30
"""Magnitudes below stand in the histogram's bin of zero."""
_ITS_SITES: Final = 6
_SUFFIX: Final = "ExecutionProvider"
_MODEL: Final = 36
_MOST_GROUPS: Final = 100


def runs(found: Comparison) -> Table:
    """Every model on every provider: size, speed, closeness, kernels."""
    names = ["run", "model", "provider"]
    numbers = ["size", "median", "times faster", "SQNR", "max error", "integer kernels"]
    extra = {
        "same top class": [
            None if run.fidelity is None else run.fidelity.top1_agreement for run in found.runs
        ],
        "accuracy": [run.accuracy for run in found.runs],
    }
    shown = {key: values for key, values in extra.items() if any(v is not None for v in values)}
    perplexity = any(run.perplexity is not None for run in found.runs)
    rows: list[Row] = []
    for at, run in enumerate(found.runs):
        cells: Row = [*_run_cells(at, run), *_numbers(run)]
        cells += [percent_text(values[at]) for values in shown.values()]
        if perplexity:
            cells += [perplexity_text(run.perplexity), number_text(_kl(run), ".4g")]
        rows.append(cells)
    numbers += [*shown, *(["perplexity", "KL, nats a token"] if perplexity else [])]
    return table("Models and providers", names, numbers, rows)


def latency(found: Comparison) -> Table:
    """Times of every run; memory and energy where they were measured."""
    numbers = ["load", "first run", "median", "p90", "p99", "runs a second", "peak memory"]
    timed = [(at, run, run.latency) for at, run in enumerate(found.runs) if run.latency is not None]
    device = any(result.device_bytes is not None for _, _, result in timed)
    energy = any(result.joules is not None for _, _, result in timed)
    rows = []
    for at, run, result in timed:
        cells: Row = [
            *_run_cells(at, run),
            ms_text(1000 * result.load_seconds),
            *(
                ms_text(value)
                for value in (result.first_ms, result.median_ms, result.p90_ms, result.p99_ms)
            ),
            f"{1000 / result.median_ms:,.1f}",
            bytes_text(result.peak_rss_bytes),
        ]
        if device:
            cells.append(DASH if result.device_bytes is None else bytes_text(result.device_bytes))
        if energy:
            cells.append(number_text(result.joules, ".3g"))
        rows.append(cells)
    numbers += ["device memory"] * device + ["joules a run"] * energy
    return table("Latency", ["run", "model", "provider"], numbers, rows)


def throughput(found: Comparison) -> Table:
    """Rows a second by batch size and number of threads."""
    numbers = {(run.model, run.provider): at for at, run in enumerate(found.runs)}
    rows: list[Row] = []
    for entry in found.throughput:
        at = numbers[entry.model, entry.provider]
        rates = (f"{rate:,.4g}" for rate in (entry.per_second, entry.low, entry.high))
        cells = [str(entry.batch), str(entry.threads), ms_text(entry.median_ms), *rates]
        rows.append([*_run_cells(at, found.runs[at]), *cells])
    columns = ["batch", "threads", "median", "rows a second", "slowest round", "fastest round"]
    return table("Throughput", ["run", "model", "provider"], columns, rows)


def session(search: SessionSearch) -> Table:
    """The settings of a session that were tried, in order."""
    rows: list[Row] = []
    for tried in search.tried:
        faster = times_text(tried.faster.median, tried.faster.low, tried.faster.high)
        taken = "yes" if tried.taken else "no"
        rows.append([tried.tuning.changes(), taken, ms_text(tried.median_ms), faster])
    columns = ["median", "times faster than the best before"]
    return table("Session settings that were tried", ["settings", "taken"], columns, rows)


def layers(errors: Sequence[LayerError], run: int, most: int) -> Table:
    """Layers with the error that they add.

    Args:
        errors: The layers, worst first.
        run: Whose they are, counted from 0.
        most: How many are shown.
    """
    rows: list[Row] = []
    top = max((error.step for error in errors if not error.rescaled), default=0.0) or 1.0
    for number, error in enumerate(errors[:most], start=1):
        layer = error.layer
        step = "other scales" if error.rescaled else f"{100 * error.step:+.3f} %"
        bar = None if error.rescaled else max(error.step, 0.0) / top
        rows.append(
            [
                Cell(str(number), run=run),
                name_cell(layer.node or layer.tensor),
                name_cell(layer.op),
                str(layer.place) if layer.place else DASH,
                db_text(error.before_db),
                db_text(error.sqnr_db),
                Cell(step, bar=bar),
            ]
        )
    names = ["", "layer", "operator"]
    numbers = ["place", "inputs", "output", "error share added"]
    return table("Layers by the error that they add", names, numbers, rows, total=len(errors))


def spread(found: LayerSpread) -> Table:
    """Distributions of one layer's weight and output in numbers."""
    rows: list[Row] = []
    for title, pair in (("weight", found.weight), ("output", found.output)):
        if pair is not None:
            rows += [_spread_row(f"{title}, before", pair.before)]
            rows += [_spread_row(f"{title}, after", pair.after)]
    numbers = ["values", "least", "0.1 %", "median", "99.9 %", "greatest", "mean", "deviation"]
    return table("Distributions", ["tensor"], numbers, rows)


def kinds(comparison: Comparison, maps: Sequence[GraphMap]) -> Table:
    """How many nodes of each run are of each kind."""
    used = [kind for kind in KINDS if any(kind in graph.counts for graph in maps)]
    rows = []
    for at, (run, graph) in enumerate(zip(comparison.runs, maps, strict=True)):
        counts = graph.counts
        elsewhere = sum(bool(node.reason) for node in graph.nodes)
        cells: Row = [*_run_cells(at, run), str(len(graph.nodes))]
        cells += [str(counts.get(kind, 0)) for kind in used]
        rows.append([*cells, str(elsewhere)])
    headers = ["nodes", *used, "on another provider"]
    return table("Kinds of kernels", ["run", "model", "provider"], headers, rows)


def operators(graph: GraphMap) -> Table:
    """Operators of one executed graph, the commonest first."""
    counts = Counter((node.op, node.kind, node.provider) for node in graph.nodes)
    rows: list[Row] = [
        [name_cell(op), Cell(kind, kind=kind), provider.removesuffix(_SUFFIX), str(count)]
        for (op, kind, provider), count in counts.most_common()
    ]
    return table("Operators", ["operator", "kind", "provider"], ["nodes"], rows, most=_MOST_GROUPS)


def nodes(graph: GraphMap, most: int) -> Table:
    """Every node of an executed graph, in order."""
    away = any(node.reason for node in graph.nodes)
    rows: list[Row] = [
        [
            str(number),
            name_cell(node.name),
            name_cell(node.op),
            Cell(node.kind, kind=node.kind),
            node.provider.removesuffix(_SUFFIX),
            *([name_cell(node.reason)] if away else []),
        ]
        for number, node in enumerate(graph.nodes[:most], start=1)
    ]
    headers = ["place", "node", "operator", "kind", "provider", *["why not where asked"] * away]
    return table("Nodes in order", headers, [], rows, total=len(graph.nodes))


def skipped(found: Skipped) -> Table:
    """Sites that stayed float, by reason."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for site in found.sites:
        groups[site.reason, site.op].append(site.name)
    rows: list[Row] = []
    for (reason, op), sites in sorted(groups.items(), key=lambda item: -len(item[1])):
        named = ", ".join(name_cell(name).text for name in sites[:_ITS_SITES])
        more = f" and {len(sites) - _ITS_SITES} more" if len(sites) > _ITS_SITES else ""
        rows.append([reason, name_cell(op), f"{named}{more}", str(len(sites))])
    return table(
        "Sites that stay float", ["why", "operator", "sites"], ["number"], rows, most=_MOST_GROUPS
    )


def models(found: Provenance) -> Table:
    """Models and data by digest."""
    rows: list[Row] = [
        [name_cell(str(path)), Cell(digest, code=True)] for path, digest in found.models.items()
    ]
    rows.append([name_cell(found.data), Cell(found.data_digest, code=True)])
    return table("Models and data", ["file", "digest"], [], rows)


def versions(found: Provenance) -> Table:
    """Versions of what decides a result."""
    known = {"onnxq": found.onnxq, "Python": found.machine.python, **found.versions}
    rows: list[Row] = [[name, version] for name, version in known.items()]
    return table("Versions", ["package", "version"], [], rows)


def machine(found: Provenance) -> Table:
    """The machine."""
    here = found.machine
    rows: list[Row] = [
        ["processor", here.cpu],
        ["instruction sets", ", ".join(sorted(here.isa)) or DASH],
        ["cores", str(here.cores)],
        ["memory", bytes_text(here.memory_total)],
        ["system", here.system],
    ]
    return table("Machine", ["part", "what"], [], rows)


def _run_cells(at: int, run: ComparedRun) -> Row:
    name = name_cell(run.model.name, full=str(run.model), most=_MODEL)
    return [Cell(str(at + 1), run=at), name, run.provider]


def _numbers(run: ComparedRun) -> list[str]:
    latency_, ratio, fidelity = run.latency, run.ratio, run.fidelity
    closeness = ["reference", DASH]
    if fidelity is not None:
        closeness = [db_text(fidelity.sqnr_db), number_text(fidelity.max_error, ".3g")]
    return [
        bytes_text(run.file_bytes),
        DASH if latency_ is None else ms_text(latency_.median_ms),
        _times(run) if ratio is None else times_text(ratio.median, ratio.low, ratio.high),
        *closeness,
        DASH if run.kernels is None else str(run.kernels.integer),
    ]


def _times(run: ComparedRun) -> str:
    return DASH if run.latency is None else "1"


def _kl(run: ComparedRun) -> float | None:
    language = None if run.fidelity is None else run.fidelity.language
    return None if language is None else language.kl_nats


def _spread_row(title: str, found: Spread) -> Row:
    low, middle, high = found.quantiles
    values = (found.low, low, middle, high, found.high, found.mean, found.deviation)
    return [title, f"{found.total:,}", *(_value(value) for value in values)]


def _value(value: float) -> str:
    if not math.isfinite(value):
        return DASH
    return "0" if abs(value) < _NOTHING else f"{value:.4g}"
