"""What ``compare --diverge`` prints: the runs, and of each that parts the node where it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.cli.console import DASH, line, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType
    from rich.table import Table

    from onnxq.compare.divergence import Agreement, Divergence, Fed

_MOST_NODES = 8


def views(found: Agreement) -> Iterator[RenderableType]:
    """A table of the runs, then a paragraph for each that differs."""
    yield _runs(found)
    yield line(
        f"Error: relative, the greatest of all outputs, up to the first sample beyond the "
        f"tolerance of {found.tolerance:g}."
    )
    for number, other in enumerate(found.others, start=2):
        if other.divergence is not None:
            yield ""
            yield from _divergence(other.divergence, number)
    for text in found.notes:
        yield line(f"warning: {text}", style="yellow")


def _runs(found: Agreement) -> Table:
    shown = table("", ["run", "model", "provider", "level", "output", "sample"], ["error"])
    sides = [(found.reference, None), *((other.side, other) for other in found.others)]
    for number, (side, other) in enumerate(sides, start=1):
        cells = [DASH, DASH, "reference"]
        if other is not None:
            error = f"{other.error:.3g}"
            cells = [other.output, other.sample, error if other.divergence else f"{error}, agrees"]
        names = (line(str(side.model)), line(side.settings.provider), line(side.level))
        shown.add_row(str(number), *names, line(cells[0]), line(cells[1]), cells[2])
    return shown


def _divergence(found: Divergence, number: int) -> Iterator[RenderableType]:
    yield line(_verdict(found, number), style="bold")
    if found.expected is not None and found.place:
        place = ", ".join(map(str, found.place))
        yield line(
            f"Greatest at {found.output}[{place}]: {found.expected:.6g} in run 1, "
            f"{found.found:.6g} in run {number}."
        )
    for text in found.differences:
        yield line(f"In the model of run {number}: {text}.")
    for run, ops in ((1, found.runs_as), (number, found.other_runs_as)):
        if ops:
            yield line(f"Run {run} executes: {_listed(ops)}.")
    if len(found.nodes) > 1:
        yield line(f"Nodes: {_listed(found.nodes)}.")
    yield from _before(found)
    if found.rescaled:
        yield line(
            f"Passed over: {_listed(found.rescaled)}, which run {number} holds at other scales, a "
            "factor for each channel that is divided out again behind it."
        )
    if found.fed:
        yield _fed(found)


def _verdict(found: Divergence, number: int) -> str:
    node = f"{found.node or found.output} ({found.op})"
    if found.kind == "node":
        return (
            f"Run {number} parts from run 1 at {node}: fed with the same values, {found.output} "
            f"differs by {found.own_error:.3g}."
        )
    if found.kind == "fusion":
        return (
            f"Run {number} parts from run 1 in front of {node}: {len(found.nodes)} nodes that end "
            f"there differ by {found.own_error:.3g} when they run together, and agree when each "
            f"runs alone: the difference is how they are fused{_into(found)}."
        )
    if found.kind == "accumulated":
        return (
            f"Run {number} parts from run 1 gradually: no node is beyond the tolerance by itself, "
            f"and at {node} their rounding adds up to {found.error:.3g}."
        )
    return (
        f"Run {number} agrees with run 1 as soon as {found.output} is computed without the other "
        "outputs: the difference is how nodes are fused that several outputs need."
    )


def _into(found: Divergence) -> str:
    return f" (into {', '.join(found.fused)})" if found.fused else ""


def _before(found: Divergence) -> Iterator[RenderableType]:
    done, of = found.walked
    name, error = found.greatest
    if found.later:
        yield line(
            f"The difference showed at {found.later} first; its origin is the node above, whose "
            "error falls below the tolerance in between."
        )
    elif done < of:
        yield line(
            f"Of the {of} values before it {done} were computed one by one, fed with run 1's "
            "values, and agree; the next does not run alone, or the time was up."
        )
    elif of:
        text = f"The {of} values before it agree when each is computed alone on run 1's values"
        if of == 1:
            text = "The value before it agrees when it is computed alone on run 1's values"
        if found.kind != "node" and error > 0:
            text += f"; of them {name} has the greatest error, {error:.3g}"
        yield line(f"{text}.")


def _fed(found: Divergence) -> Table:
    shown = table("Fed with", ["value", "type"], ["least", "greatest", "differs already by"])
    for value in found.fed:
        numbers = (f"{value.low:.4g}", f"{value.high:.4g}", f"{value.error:.3g}")
        shown.add_row(line(value.name), line(_type_of(value)), *numbers)
    return shown


def _type_of(value: Fed) -> str:
    return f"{value.dtype}[{', '.join(map(str, value.shape))}]"


def _listed(names: tuple[str, ...]) -> str:
    more = len(names) - _MOST_NODES
    shown = ", ".join(names[:_MOST_NODES])
    return f"{shown} and {more} more" if more > 0 else shown
