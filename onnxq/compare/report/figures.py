"""The report's figures. Runs are called by their number; their names stand in the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from onnxq.compare.report.drawing import INK, MUTED, SURFACE, draw, grid, kind_colour, series

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.path import Path

    from onnxq.compare.report.graph_map import MapCell
    from onnxq.compare.report.layers import LayerError, LayerErrors
    from onnxq.compare.report.spreads import LayerSpread
    from onnxq.runtime.timing import LatencyResult

WIDTH: Final = 9.2
_PANEL: Final = 2.75
_LATENCY_BINS: Final = 70
_SLOW: Final = 2.5
"""Runs beyond so many medians are shown at the right end, so that a few do not squeeze the rest."""
_FLOOR_DB: Final = -10.0
_LEAST_ROW: Final = 24
_ROW: Final = 60
_MOST_ROWS: Final = 24


def latency(runs: Sequence[tuple[int, LatencyResult]]) -> str:
    """How the timed runs are spread, a row for each run with its median, p90 and p99.

    Args:
        runs: Which run of the comparison, counted from 0, and its quantiles. What is far slower
            than its run's median is counted at the right end.
    """
    end = 1.03 * max(min(found.p99_ms, _SLOW * found.median_ms) for _, found in runs)
    start = 0.97 * min(found.quantiles_ms[0] for _, found in runs)
    edges = np.linspace(start, end, _LATENCY_BINS + 1)

    def paint(axes: list[Axes]) -> None:
        for (run, found), one in zip(runs, axes, strict=True):
            shares = np.linspace(0, 1, len(found.quantiles_ms))
            below = np.interp(edges, found.quantiles_ms, shares)
            below[-1] = 1.0
            counts = np.diff(below)
            colour = series(run)
            one.stairs(counts, edges, fill=True, color=colour, alpha=0.35)
            one.stairs(counts, edges, color=colour, linewidth=1.1)
            top = float(counts.max()) * 1.28
            for value, style in ((found.median_ms, "-"), (found.p90_ms, "--"), (found.p99_ms, ":")):
                one.plot([value, value], [0, top], color=INK, linestyle=style, linewidth=1)
            one.set_ylim(0, top)
            one.set_yticks([])
            one.spines["left"].set_visible(False)
            one.set_ylabel(f"run {run + 1}", rotation=0, ha="right", va="center", color=INK)
            grid(one, "x")
        axes[-1].set_xlim(start, end)
        axes[-1].set_xlabel("milliseconds; solid: median, dashed: p90, dotted: p99")

    return draw("latency", (WIDTH, 0.5 + 0.62 * len(runs)), paint, rows=len(runs))


def layers(found: Sequence[tuple[int, LayerErrors]], marked: int) -> str:
    """SQNR of every layer along the graph, a row for each model; the largest steps are numbered.

    Args:
        found: Of each model its run, counted from 0, and its layers.
        marked: How many steps of each model are numbered.
    """
    top = _ceiling([errors for _, errors in found])

    def height(error: LayerError) -> float:
        return float(np.clip(error.sqnr_db, _FLOOR_DB, top))

    def paint(axes: list[Axes]) -> None:
        for (run, errors), one in zip(found, axes, strict=True):
            kept = [error for error in errors.layers if not error.rescaled]
            places, colour = [error.layer.place for error in kept], series(run)
            one.plot(places, [height(error) for error in kept], color=colour, linewidth=1.1)
            one.plot(places, [height(error) for error in kept], ".", color=colour, markersize=3.5)
            worst = [error for error in errors.worst_first if not error.rescaled and error.step > 0]
            for number, error in reversed(list(enumerate(worst[:marked], start=1))):
                at = (error.layer.place, height(error))
                one.plot(*at, "o", color=SURFACE, markeredgecolor=colour, markersize=11.5)
                one.annotate(str(number), at, ha="center", va="center", fontsize=7.5, color=INK)
            one.margins(x=0.015, y=0.14)
            one.set_title(f"run {run + 1}", fontsize=9, color=INK, loc="left")
            one.set_ylabel("SQNR, dB")
            grid(one)
        axes[-1].set_xlabel("place in the graph of the first model")

    return draw("layers", (WIDTH, 0.5 + 1.75 * len(found)), paint, rows=len(found))


def spread(name: str, run: int, found: LayerSpread) -> str:
    """Weight and output of one layer, before as an area and after as a line; counts logarithmic."""
    titled = (("weight", found.weight), ("output", found.output))
    pairs = [(title, pair) for title, pair in titled if pair is not None]

    def paint(axes: list[Axes]) -> None:
        for (title, pair), one in zip(pairs, axes, strict=True):
            top = 3 * float(max(pair.before.counts.max(), pair.after.counts.max()))
            one.stairs(pair.before.counts, pair.edges, fill=True, color=MUTED, alpha=0.3)
            one.stairs(pair.after.counts, pair.edges, color=series(run), linewidth=1.1)
            one.set_yscale("symlog", linthresh=1)
            one.set_ylim(0, top)
            one.set_yticks(*_decades(top))
            one.minorticks_off()
            one.locator_params(axis="x", nbins=5)
            one.spines["left"].set_visible(False)
            one.set_title(title, fontsize=9, color=INK, loc="left")
            grid(one)

    return draw(name, (_PANEL * len(pairs), 1.7), paint, columns=len(pairs))


def row_length(longest: int) -> int:
    """Cells in a row of :func:`graph_map`, where the longest graph of the page has so many."""
    return max(_LEAST_ROW, min(longest, _ROW), -(-longest // _MOST_ROWS))


def graph_map(name: str, cells: Sequence[MapCell], length: int) -> str:
    """The executed graph as a ribbon, cell by cell in order, wrapped like text.

    Args:
        name: As for :func:`draw`.
        cells: The cells.
        length: Cells in a row.
    """
    from matplotlib.patches import PathPatch

    rows = -(-len(cells) // length)
    # A gap between cells shows only while it is no hairline.
    width = 0.88 if length <= 2 * _ROW else 1.0
    boxes: dict[str, list[tuple[float, float, float, float]]] = {}
    for place, cell in enumerate(cells):
        row, column = divmod(place, length)
        boxes.setdefault(kind_colour(cell.kind), []).append((column, row + 0.12, width, 0.76))
        if cell.away:
            boxes.setdefault(INK, []).append((column, row + 0.91, 1.0, 0.09))

    def paint(axes: list[Axes]) -> None:
        (one,) = axes
        for colour, here in boxes.items():
            one.add_patch(PathPatch(_outline(here), facecolor=colour, linewidth=0))
        one.set_xlim(0, length)
        one.set_ylim(rows, 0)
        one.set_yticks([row + 0.5 for row in range(rows)])
        one.set_yticklabels([f"{cells[row * length].first:>5}" for row in range(rows)])
        one.tick_params(length=0)
        one.set_xticks([])
        for spine in one.spines.values():
            spine.set_visible(False)

    return draw(name, (WIDTH, 0.18 + 0.24 * rows), paint)


def _outline(boxes: Sequence[tuple[float, float, float, float]]) -> Path:
    """One path of many boxes, each its left, top, width and height."""
    from matplotlib.path import Path

    corners = [
        point
        for left, top, width, height in boxes
        for point in (
            (left, top),
            (left + width, top),
            (left + width, top + height),
            (left, top + height),
            (left, top),
        )
    ]
    codes = [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY] * len(boxes)
    return Path(corners, codes)


def _ceiling(found: Sequence[LayerErrors]) -> float:
    """A little above the highest SQNR that says something; exact layers are drawn there."""
    values = [e.sqnr_db for errors in found for e in errors.layers if e.sqnr_db < 80]
    return max(values, default=40.0) + 5


def _decades(top: float) -> tuple[list[float], list[str]]:
    """Zero and powers of ten up to ``top``, at most four of them, and their labels."""
    powers = range(int(np.log10(top)) + 1)
    step = 1 + (len(powers) - 1) // 4
    ticks = [10**power for power in powers[::step]]
    return [0.0, *(float(tick) for tick in ticks)], ["0", *(_short(tick) for tick in ticks)]


def _short(power: int) -> str:
    """A power of ten: ``100``, ``10k``, ``1M``."""
    for unit, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if power >= unit:
            return f"{power // unit}{letter}"
    return str(power)
