"""Figures as SVG that takes its colours and its font from the page around it.

matplotlib draws; no text of a model's gets into a figure, so that no name can break one. Colours
are drawn as placeholders and then named by CSS variables, so that one figure serves light, dark and
print. Text stays text.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK: Final = "#0a0a01"
MUTED: Final = "#0a0a02"
GRID: Final = "#0a0a03"
SURFACE: Final = "#0a0a04"
_SERIES: Final = 8
_VARIABLES: Final = {INK: "ink", MUTED: "muted", GRID: "grid", SURFACE: "surface"}
_KIND_COLOURS: Final = {
    "integer": "#0a0b01",
    "few bits": "#0a0b02",
    "float": "#0a0b03",
    "conversion": "#0a0b04",
    "movement": "#0a0b05",
    "copy": "#0a0b06",
}
_COLOUR: Final = re.compile(r"#0a0[a-c][0-9a-f]{2}")
_SIZE: Final = re.compile(r'(<svg [^>]*?)\swidth="[^"]*"', re.DOTALL)
_HEIGHT: Final = re.compile(r'(<svg [^>]*?)\sheight="[^"]*"', re.DOTALL)
_GROUP_IDS: Final = re.compile(r'<g id="[^"]*"')
_LONG_NUMBER: Final = re.compile(r"(?<![\w.])(-?\d+\.\d\d)\d+")
_METADATA: Final = re.compile(r"<metadata>.*?</metadata>\s*", re.DOTALL)
_SETTINGS: Final[Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "text.color": INK,
    "font.size": 9,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}


def series(run: int) -> str:
    """The colour of a run, counted from 0; the page's ``--s0`` and so on."""
    return f"#0a0c{run % _SERIES:02x}"


def kind_colour(kind: str) -> str:
    """The colour of a kind of kernel; the page's ``--k-KIND``."""
    return _KIND_COLOURS[kind]


def draw(
    name: str, size: tuple[float, float], paint: Any, *, rows: int = 1, columns: int = 1
) -> str:
    """One figure.

    Args:
        name: An identifier of letters, digits and dashes; unique on the page.
        size: Width and height in inches; the page scales it to the width that there is.
        paint: Called with the axes, row by row.
        rows: Rows of axes, which share the x axis.
        columns: Columns of axes.

    Returns:
        An ``svg`` element without a size, metadata or outside references; it is hidden from screen
        readers, because a caption and a table stand beside it.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({**_SETTINGS, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, sharex="col" if rows > 1 else False)
        paint(list(axes.flat))
        return _embedded(figure)


def grid(axes: Axes, axis: str = "y") -> None:
    """Light lines along one axis, and no ticks on it."""
    axes.grid(visible=True, axis=axis)  # type: ignore[arg-type]
    axes.tick_params(axis=axis, length=0)  # type: ignore[arg-type]


def _embedded(figure: Figure) -> str:
    stream = io.StringIO()
    empty = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(stream, format="svg", metadata=empty)
    text = stream.getvalue()
    # What stands before belongs to a file, and names a definition on the network.
    text = text[text.index("<svg") :]
    # Groups are called alike in every figure, and nothing refers to them.
    text = _GROUP_IDS.sub("<g", _METADATA.sub("", text))
    text = _HEIGHT.sub(r"\1", _SIZE.sub(r"\1", text, count=1), count=1)
    text = text.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)
    text = _LONG_NUMBER.sub(r"\1", text)
    return _COLOUR.sub(_variable, text)


def _variable(found: re.Match[str]) -> str:
    colour = found.group()
    if colour in _VARIABLES:
        return f"var(--{_VARIABLES[colour]})"
    for kind, own in _KIND_COLOURS.items():
        if own == colour:
            return f"var(--k-{kind.replace(' ', '-')})"
    return f"var(--s{int(colour[-2:], 16)})"
