"""``onnxq compare --diverge``: what it takes, and how it is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from onnxq.cli import json_output
from onnxq.cli.outcome import Outcome
from onnxq.cli.progress import bars
from onnxq.errors import BoundMissedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from onnxq.compare.divergence import CheckedSide
    from onnxq.data import Reading
    from onnxq.runtime.session import Optimization

LEVELS = ("none", "basic", "extended", "all")
"""``onnxq.runtime.session.Optimization``, not imported from there because ``--help`` is quick."""


@dataclass(frozen=True, kw_only=True)
class DivergeArguments:
    """What asks for a search for the first node that differs."""

    diverge: bool = False
    tolerance: float | None = None
    levels: tuple[Optimization, ...] = ()

    @property
    def search_asked(self) -> bool:
        """Whether one of the options is there."""
        return self.diverge or self.tolerance is not None or bool(self.levels)


def run(
    arguments: DivergeArguments,
    models: Sequence[Path],
    data: Reading | None,
    providers: Sequence[str],
) -> Outcome:
    """Search; a tolerance that was given is a bound, and missing it is exit status 1."""
    from onnxq.compare.divergence import TOLERANCE, diverge

    tolerance = TOLERANCE if arguments.tolerance is None else arguments.tolerance
    with bars() as report:
        found = diverge(
            models,
            data,
            providers=providers,
            levels=arguments.levels or ("all",),
            tolerance=tolerance,
            report=report,
        )
    from onnxq.cli.show_diverge import views

    missed = None
    if arguments.tolerance is not None and not found.agree:
        apart = [other for other in found.others if other.divergence is not None]
        worst = max(apart, key=lambda other: other.error)
        code, text = "compare.tolerance", f"outputs differ by more than {tolerance:g}"
        where = f"{worst.side.label}, output {worst.output!r}"
        missed = BoundMissedError(code, text, where=where)
    elif arguments.tolerance is not None:
        missed = next(filter(None, map(_unseen, found.others)), None)
    return Outcome(json_output.diverged(found, missed), lambda: views(found), missed)


def _unseen(other: CheckedSide) -> BoundMissedError | None:
    """A bound on what nothing was seen of is not kept."""
    if not other.unseen:
        return None
    code, text = (
        "compare.tolerance",
        "every element is NaN or Inf in both runs, nothing was compared",
    )
    where = f"{other.side.label}, output {other.unseen[0]!r}"
    return BoundMissedError(code, text, where=where, remedy="give samples on which it is finite")


def _levels(_: click.Context, __: click.Parameter, value: str | None) -> tuple[Any, ...]:
    names = tuple(name.strip() for name in (value or "").split(",") if name.strip())
    for name in names or [value or ""] * (value is not None):
        if name not in LEVELS:
            code, text = "usage.arguments", f"there is no optimization level {name!r}"
            raise UsageError(code, text, where="--levels", remedy=f"levels: {', '.join(LEVELS)}")
    return names


OPTIONS = (
    click.Option(
        ["--diverge"],
        is_flag=True,
        help="Instead of measuring: where outputs differ from the first run's, name the first node "
        "that makes the difference.",
    ),
    click.Option(
        ["--tolerance"],
        type=float,
        metavar="X",
        help="As --diverge, and the relative error (of norms) up to which outputs agree; exit "
        "status 1 if they do not.  [default: 0.001]",
    ),
    click.Option(
        ["--levels"],
        metavar="NAMES",
        callback=_levels,
        help="As --diverge, with a run at each of these optimization levels of ONNX Runtime, the "
        f"first of them the reference: {','.join(LEVELS)}.",
    ),
)
