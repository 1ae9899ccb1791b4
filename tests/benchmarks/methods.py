"""Each calibration method of onnxq beside ``auto``: the whole model's accuracy.

Run from the repository root::

    python -m tests.benchmarks.methods [NAME...] [--samples N] [--json FILE]

NAME is a model of ``models/`` (default: minilm efficientnet_lite0). onnxq quantizes it once with
each method, on the same calibration samples, and compares each result with the float model on the
evaluation samples. Nothing is timed.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

from onnxq.recipe import CalibrationMethod
from tests.benchmarks.common import (
    Workload,
    built,
    fidelity,
    in_own_process,
    number,
    parser,
    show,
    write_json,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

METHODS: Final[tuple[CalibrationMethod, ...]] = get_args(CalibrationMethod)


@dataclass(frozen=True, slots=True)
class Result:
    """How good one method's model is: SQNR in decibels, and agreement where there are scores."""

    method: CalibrationMethod
    sqnr_db: float | None
    top1_agreement: float | None


def compare(
    work: Workload, methods: Sequence[CalibrationMethod], folder: Path
) -> tuple[Result, ...]:
    """Quantize with each method and compare with float; statistics are collected once."""
    results = []
    for method in methods:
        output = folder / f"{method}.onnx"
        arguments = {
            "model": work.model,
            "output": output,
            "data": work.calibration,
            "evaluation": work.evaluation,
            "method": method,
        }
        in_own_process("onnxq_tasks:quantize", arguments, folder / "cache")
        found = fidelity(work, output)
        results.append(Result(method, found.sqnr_db, found.top1_agreement))
    return tuple(results)


def main() -> int:
    """Read the command line, measure and print."""
    made = parser(__doc__)
    made.add_argument("names", nargs="*", metavar="NAME", default=["minilm", "efficientnet_lite0"])
    made.add_argument("--samples", type=int, metavar="N", help="calibration samples; default: all")
    options = made.parse_args()
    found = {}
    for name in options.names:
        with tempfile.TemporaryDirectory(prefix="onnxq-methods-") as folder:
            work = built(name, options.samples, Path(folder))
            found[name] = compare(work, METHODS, Path(folder))
        rows = [(r.method, number(r.sqnr_db), number(r.top1_agreement, 4)) for r in found[name]]
        show(name, ("method", "SQNR dB", "top-1"), rows)
    write_json(options.json, "methods", {"models": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
