"""Gathers everything that a report shows and the comparison does not hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxq.compare.report.graph_map import map_graph
from onnxq.compare.report.layers import measure_layers
from onnxq.compare.report.matching import nearest
from onnxq.compare.report.provenance import provenance
from onnxq.compare.report.skipped import find_skipped
from onnxq.compare.report.spreads import measure_spreads, most_telling
from onnxq.data import limit, open_data
from onnxq.graph.edit import sort_nodes
from onnxq.graph.io import load
from onnxq.graph.normalize import normalize
from onnxq.graph.structure import signature
from onnxq.stages.with_past import with_past

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from onnxq.compare.compare import Comparison
    from onnxq.compare.report.graph_map import GraphMap
    from onnxq.compare.report.layers import LayerErrors
    from onnxq.compare.report.limits import ReportLimits
    from onnxq.compare.report.provenance import Provenance
    from onnxq.compare.report.skipped import Skipped
    from onnxq.compare.report.spreads import LayerSpread
    from onnxq.data import DataLike, DataSource
    from onnxq.verify.verification import Report


@dataclass(frozen=True, slots=True)
class ModelEvidence:
    """What was found of a model beside the reference.

    Attributes:
        model: Its file, as given.
        run: The first run of it, counted from 0.
        layers: The error of its layers; None if nothing is alike or it was beyond the bounds.
        why_no_layers: Why ``layers`` is None.
        spreads: Distributions of the layers that add most error.
        skipped: What it leaves float; None if it is not quantized.
    """

    model: Path
    run: int
    layers: LayerErrors | None
    why_no_layers: str
    spreads: tuple[LayerSpread, ...]
    skipped: Skipped | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a report shows.

    Attributes:
        comparison: What was measured of whole models.
        maps: The executed graph of each run.
        models: Every model beside the reference.
        provenance: How to measure it again.
        limits: The bounds that were kept to.
    """

    comparison: Comparison
    maps: tuple[GraphMap, ...]
    models: tuple[ModelEvidence, ...]
    provenance: Provenance
    limits: ReportLimits


def gather(
    comparison: Comparison, data: DataLike, limits: ReportLimits, command: str, report: Report
) -> Evidence:
    """Run what is needed to tell where the differences come from.

    Args:
        comparison: What was measured already.
        data: The data that it was measured on.
        limits: How far to go.
        command: The command line, if there was one.
        report: Told of progress.

    Raises:
        ModelError: A model that was compared does not load any more.
        DataError: A sample cannot be read any more.
    """
    paths = [run.model for run in comparison.runs]
    models = {path: _sorted(path) for path in dict.fromkeys(paths)}
    first = models[paths[0]]
    source = with_past(open_data(data, signature(first)), paths[0], "cpu")
    placements = []
    for done, run in enumerate(comparison.runs, start=1):
        placements.append(map_graph(run))
        report("placement", done, len(comparison.runs))
    few = limit(source, limits.samples)
    gatherer = _Gatherer(paths[0], first, normalize(first).model, few, limits)
    found = []
    for number, path in enumerate(list(models)[1:], start=1):
        at = paths.index(path)
        other = _Other(path, models[path], at, placements[at], number)
        found.append(gatherer.model(other, report))
    return Evidence(
        comparison,
        tuple(placements),
        tuple(found),
        provenance(list(models.items()), source, command),
        limits,
    )


@dataclass(frozen=True, slots=True)
class _Other:
    path: Path
    model: ir.Model
    run: int
    placement: GraphMap
    number: int


@dataclass(frozen=True, slots=True)
class _Gatherer:
    """Compares models with the reference, by its names as given or as quantizing froze them."""

    path: Path
    given: ir.Model
    normalized: ir.Model
    data: DataSource
    limits: ReportLimits

    def model(self, other: _Other, report: Report) -> ModelEvidence:
        layers, why = self._layers(other, report)
        spreads: tuple[LayerSpread, ...] = ()
        if layers is not None:
            chosen = most_telling(layers[0], layers[1], self.limits.spreads)
            spreads = measure_spreads(layers[0], other.model, chosen, self.data)
        return ModelEvidence(
            model=other.path,
            run=other.run,
            layers=None if layers is None else layers[1],
            why_no_layers=why,
            spreads=spreads,
            skipped=find_skipped(
                (self.path, self.normalized), other.model, other.placement.executed
            ),
        )

    def _layers(
        self, other: _Other, report: Report
    ) -> tuple[tuple[ir.Model, LayerErrors] | None, str]:
        if other.number > self.limits.models:
            return None, f"layers of the first {self.limits.models} models alone are measured"
        forms = (self.normalized, self.given)
        reference, matches = nearest(forms, other.model, self.limits.layers)
        if not matches:
            return None, "no tensor inside it has the name of one of the first model"
        step = f"layers of {other.path.name}"
        found = measure_layers(
            reference,
            other.model,
            matches,
            self.data,
            self.limits,
            lambda done, total: report(step, done, total),
        )
        if not found.layers:
            return None, "no tensor that bears one name in both could be compared"
        return (reference, found), ""


def _sorted(path: Path) -> ir.Model:
    model = load(path)
    sort_nodes(model, str(path))
    return model
