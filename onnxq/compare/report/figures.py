"""The report's figures. Runs are called by their number; their names stand in the tables."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from onnxq.compare.report.drawing import INK, MUTED, SURFACE, draw, grid, kind_colour, series

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from onnxq.compare.report.layers import LayerErrors
    from onnxq.compare.report.placement import PlacedNode
    from onnxq.compare.report.spreads import LayerSpread, Pair

WIDTH: Final = 9.2
_LATENCY_BINS: Final = 70
_LEAST_ROW: Final = 60
_MOST_ROWS: Final = 24


@dataclass(frozen=True, slots=True)
class TimedRuns:
    """The timed runs of one model on one provider.

    Attributes:
        run: Which run of the comparison, counted from 0.
        milliseconds: Of every timed run.
        median: Their median.
        p90: Their 90th percentile.
        p99: Their 99th.
    """

    run: int
    milliseconds: NDArray[np.float64]
    median: float
    p90: float
    p99: float


def latency(runs: Sequence[TimedRuns]) -> str:
    """Histograms of the runs' times below each other, with median, 90th and 99th percentile."""
    end = 1.04 * max(found.p99 for found in runs)
    start = 0.96 * min(float(found.milliseconds.min()) for found in runs)
    edges = np.linspace(start, end, _LATENCY_BINS + 1)

    def paint(axes: list[Axes]) -> None:
        for found, one in zip(runs, axes, strict=True):
            colour = series(found.run)
            inside = np.minimum(found.milliseconds, end)
            share = np.histogram(inside, edges)[0] / found.milliseconds.size
            one.stairs(share, edges, fill=True, color=colour, alpha=0.35)
            one.stairs(share, edges, color=colour, linewidth=1.1)
            top = float(share.max()) * 1.28
            for value, style, name in (
                (found.median, "-", "median"),
                (found.p90, "--", "p90"),
                (found.p99, ":", "p99"),
            ):
                one.plot([value, value], [0, top * 0.84], color=INK, linestyle=style, linewidth=1)
                if found is runs[0]:
                    one.text(value, top * 0.87, name, ha="center", fontsize=7.5, color=MUTED)
            one.set_ylim(0, top)
            one.set_yticks([])
            one.spines["left"].set_visible(False)
            label = f"run {found.run + 1}"
            one.set_ylabel(label, rotation=0, ha="right", va="center", color=INK)
            grid(one, "x")
        axes[-1].set_xlim(start, end)
        axes[-1].set_xlabel("milliseconds")

    return draw("latency", (WIDTH, 0.5 + 0.85 * len(runs)), paint, rows=len(runs))


def layers(found: Sequence[tuple[int, LayerErrors]], marked: int) -> str:
    """SQNR of every layer along the graph, a line for each model; the largest steps are numbered.

    Args:
        found: Of each model its run, counted from 0, and its layers.
        marked: How many steps of each model are numbered.
    """

    def paint(axes: list[Axes]) -> None:
        (one,) = axes
        top = _ceiling([errors for _, errors in found])
        for run, errors in found:
            kept = [error for error in errors.layers if not error.rescaled]
            places = [error.layer.place for error in kept]
            heights = [float(np.clip(error.sqnr_db, -10, top)) for error in kept]
            colour = series(run)
            one.plot(places, heights, color=colour, linewidth=1.2, alpha=0.85)
            one.plot(places, heights, ".", color=colour, markersize=4)
            worst = [error for error in errors.worst_first if not error.rescaled and error.step > 0]
            for number, error in enumerate(worst[:marked], start=1):
                at = (error.layer.place, float(np.clip(error.sqnr_db, -10, top)))
                one.plot(*at, "o", color=SURFACE, markeredgecolor=colour, markersize=12)
                one.annotate(str(number), at, ha="center", va="center", fontsize=7.5, color=INK)
        one.set_ylabel("SQNR of the output, dB")
        one.set_xlabel("place in the graph of the first model")
        grid(one)

    return draw("layers", (WIDTH, 3.3), paint)


def spread(name: str, run: int, found: LayerSpread) -> str:
    """Weight and output of one layer, before as an area and after as a line; counts logarithmic."""
    pairs = [(title, pair) for title, pair in _titled(found) if pair is not None]

    def paint(axes: list[Axes]) -> None:
        for (title, pair), one in zip(pairs, axes, strict=True):
            one.stairs(pair.before.counts, pair.edges, fill=True, color=MUTED, alpha=0.3)
            one.stairs(pair.after.counts, pair.edges, color=series(run), linewidth=1.1)
            one.set_yscale("symlog", linthresh=1)
            one.set_ylim(0, 2 * float(max(pair.before.counts.max(), pair.after.counts.max())))
            one.yaxis.set_major_locator(_decades(one.get_ylim()[1]))
            one.minorticks_off()
            one.set_title(title, fontsize=9, color=INK, loc="left")
            grid(one)

    return draw(name, (WIDTH / 2 * len(pairs), 1.75), paint, columns=len(pairs))


def placement(name: str, nodes: Sequence[PlacedNode]) -> str:
    """The executed graph as a ribbon, node by node in order, wrapped like text."""
    length = max(_LEAST_ROW, -(-len(nodes) // _MOST_ROWS))
    rows = [nodes[start : start + length] for start in range(0, len(nodes), length)]
    # A gap between single nodes shows only while it is no hairline.
    gap = 0.12 if length <= 2 * _LEAST_ROW else 0.0

    def paint(axes: list[Axes]) -> None:
        (one,) = axes
        for row, part in enumerate(rows):
            start = 0
            for kind, group in groupby(part, key=lambda node: node.kind):
                count = len(list(group))
                spans = [(start + i, 1 - gap) for i in range(count)] if gap else [(start, count)]
                one.broken_barh(spans, (row + 0.12, 0.76), color=kind_colour(kind), linewidth=0)
                start += count
        one.set_xlim(0, length)
        one.set_ylim(len(rows), 0)
        one.set_yticks([row + 0.5 for row in range(len(rows))])
        one.set_yticklabels([f"{row * length + 1}" for row in range(len(rows))])
        one.tick_params(length=0)
        one.set_xticks([])
        for spine in one.spines.values():
            spine.set_visible(False)

    return draw(name, (WIDTH, 0.18 + 0.24 * len(rows)), paint)


def _titled(found: LayerSpread) -> tuple[tuple[str, Pair | None], ...]:
    return (("weight", found.weight), ("output", found.output))


def _ceiling(found: Sequence[LayerErrors]) -> float:
    """A little above the highest SQNR that says something; exact layers are drawn there."""
    values = [e.sqnr_db for errors in found for e in errors.layers if e.sqnr_db < 80]
    return max(values, default=40.0) + 5


def _decades(top: float) -> Any:
    from matplotlib.ticker import FixedLocator

    powers = range(1 + max(1, int(np.log10(max(top, 10)))))
    step = 1 + len(powers) // 5
    return FixedLocator([0, *(10.0**power for power in powers[::step])])
