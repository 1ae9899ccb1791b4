"""Quantize random graphs and the onnx backend tests in every scheme, and say what became of each.

Run from the repository root::

    python -m tests.whole_graph.run [--graphs N] [--seed S] [--schemes NAME...] [--no-backend]
        [--large] [--method METHOD] [--target NAME] [--workers N] [--json FILE]

Each model is held to the property that :mod:`tests.whole_graph.check` defines. Printed are, for
each scheme, how many models were quantized, left unchanged (nothing in them can be quantized) or
refused; sites quantized by operator; sites left float and refusals, by reason; and every failure
with its seed or the name of its test. ``--graphs 1 --seed S --no-backend`` repeats one graph. Exit
status 1 if anything failed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from onnxq.recipe import CalibrationMethod
from onnxq.runtime.machine import versions
from tests.benchmarks.common import show
from tests.whole_graph.check import SCHEMES
from tests.whole_graph.pool import Job, run_all
from tests.whole_graph.subjects import backend_groups

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.whole_graph.check import Outcome

_REASONS_SHOWN = 30


@dataclass(slots=True)
class Tally:
    """What became of all models in one scheme.

    Attributes:
        kinds: Models by what happened.
        warned: Models of which a warning says that accuracy is low.
        quantized: Sites that were quantized, by operator.
        skipped: Sites that were not, by reason.
        refused: Models that were refused, by reason.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    warned: int = 0
    quantized: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> None:
        """Count one outcome."""
        self.kinds[outcome.kind] += 1
        self.warned += outcome.warned
        self.quantized.update(outcome.quantized)
        self.skipped.update(outcome.skipped)
        if outcome.kind == "refused":
            self.refused[outcome.reason] += 1

    def as_json(self) -> dict[str, Any]:
        """For a file of results."""
        return {
            "models": dict(self.kinds),
            "low_accuracy_warnings": self.warned,
            "quantized_sites": dict(self.quantized.most_common()),
            "skipped_sites": dict(self.skipped.most_common()),
            "refusals": dict(self.refused.most_common()),
        }


def random_jobs(
    seed: int,
    count: int,
    schemes: Sequence[str],
    method: CalibrationMethod,
    target: str = "cpu",
) -> list[Job]:
    """Jobs for the random graphs of ``count`` seeds."""
    return [Job("random", str(seed + n), tuple(schemes), method, target) for n in range(count)]


def backend_jobs(
    schemes: Sequence[str], method: CalibrationMethod, target: str = "cpu", *, large: bool
) -> list[Job]:
    """Jobs for the backend tests of the onnx package."""
    groups = backend_groups(large=large)
    return [Job("backend", group, tuple(schemes), method, target) for group in groups]


def count(outcomes: Iterable[Outcome]) -> tuple[dict[str, Tally], list[Outcome]]:
    """A tally for each scheme, and the failures."""
    tallies: dict[str, Tally] = {}
    failures = []
    for outcome in outcomes:
        tallies.setdefault(outcome.scheme, Tally()).add(outcome)
        if outcome.kind == "failed":
            failures.append(outcome)
            print(f"FAILED {outcome.name} [{outcome.scheme}]: {outcome.reason}", file=sys.stderr)
    return tallies, failures


def report(tallies: dict[str, Tally]) -> None:
    """Print the tables."""
    kinds = ("quantized", "unchanged", "refused", "failed")
    rows = [
        [scheme, *(str(tally.kinds[kind]) for kind in kinds), str(tally.warned),
         str(tally.quantized.total()), str(tally.skipped.total())]
        for scheme, tally in tallies.items()
    ]  # fmt: skip
    columns = ["scheme", *kinds, "low accuracy, warned", "sites quantized", "sites float"]
    show("Models", columns, rows)
    for title, kind in (
        ("Sites quantized, by operator", "quantized"),
        ("Sites left float, by reason", "skipped"),
        ("Models refused, by reason", "refused"),
    ):
        counts = {scheme: getattr(tally, kind) for scheme, tally in tallies.items()}
        total = sum(counts.values(), Counter[str]())
        shown = [key for key, _ in total.most_common(_REASONS_SHOWN)]
        rows = [[key, *(str(counts[scheme][key]) for scheme in tallies)] for key in shown]
        rest = [f"and {len(total) - len(shown)} more"] if len(total) > len(shown) else []
        if rows:
            show(f"\n{title}", ["", *tallies], rows, rest)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, and give the exit status."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--graphs", type=int, default=500, metavar="N", help="how many random graphs")
    made.add_argument("--seed", type=int, default=0, metavar="S", help="the first one's seed")
    made.add_argument("--schemes", nargs="+", default=SCHEMES, choices=SCHEMES, metavar="NAME")
    made.add_argument("--no-backend", action="store_true", help="random graphs alone")
    made.add_argument("--large", action="store_true", help="the whole networks of onnx too")
    made.add_argument("--method", default="minmax", choices=get_args(CalibrationMethod))
    made.add_argument("--target", default="cpu", choices=["cpu", "cuda", "tensorrt"])
    made.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the counts to FILE")
    wanted = made.parse_args(arguments)
    how = (wanted.schemes, wanted.method, wanted.target)
    jobs = [] if wanted.no_backend else backend_jobs(*how, large=wanted.large)
    jobs += random_jobs(wanted.seed, wanted.graphs, *how)
    start = time.perf_counter()
    tallies, failures = count(run_all(jobs, wanted.workers))
    seconds = time.perf_counter() - start
    report(tallies)
    print(f"\n{seconds:.0f} s, {len(failures)} failures")
    if wanted.json is not None:
        document = {
            "schema_version": 1,
            "graphs": wanted.graphs,
            "seed": wanted.seed,
            "backend": not wanted.no_backend,
            "target": wanted.target,
            "versions": dict(versions()),
            "schemes": {scheme: tally.as_json() for scheme, tally in tallies.items()},
            "failures": [[o.name, o.scheme, o.reason] for o in failures],
        }
        wanted.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
