"""How far a report goes: in what it runs, and in what it shows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReportLimits:
    """Bounds of a report; what they leave out is said in it.

    Attributes:
        samples: Samples that errors of layers and distributions are measured on.
        seconds: How long measuring the layers of one model may take, opening models not counted;
            every layer gets at least one sample.
        memory: Bytes of probed tensors, of both models together, held at a time.
        layers: Layers whose error is measured, those with weights first.
        models: Models whose layers are measured, beside the reference.
        spreads: Layers of each model whose distributions are drawn, worst first.
        rows: Rows of the tables of nodes, all runs together, and of those of layers.
        cells: Cells of the maps of graphs, all runs together.
    """

    samples: int = 8
    seconds: float = 60.0
    memory: int = 512 << 20
    layers: int = 400
    models: int = 6
    spreads: int = 4
    rows: int = 2000
    cells: int = 12000
