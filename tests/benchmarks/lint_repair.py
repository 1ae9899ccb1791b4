"""What ``onnxq lint --fix`` makes of models that the peer quantized: the same numbers, faster.

Run from the repository root::

    python -m tests.benchmarks.lint_repair [NAME...] [--samples N] [--rounds N] [--json FILE]

NAME is a model of ``models/`` (default: efficientnet_lite0 and minilm). The peer is
``quantize_static`` of onnxruntime.quantization with int8 weights per channel and all else its
default; it calibrates on N samples, which does not matter for the time. Its model is linted for the
CPU and repaired. Float, the peer's model and the repaired one are timed on the evaluation samples,
each alone in its process, with two threads, processes in alternation. Columns: rules repaired; SQNR
of the repaired model's outputs, as it is written, against the peer's (``equal``: the same bits);
nodes that run in integer kernels, before and after; how many times as fast as float, before and
after (median of the rounds, least to greatest).
"""

from __future__ import annotations

import math
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from onnxq.lint import lint
from onnxq.runtime.kernels import count_kernels
from onnxq.runtime.timing import Contender, TimingSettings
from tests.benchmarks.common import (
    THREADS,
    built,
    in_own_process,
    number,
    parser,
    show,
    timed,
    times,
    write_json,
)

if TYPE_CHECKING:
    from onnxq.runtime.timing import Ratio
    from tests.benchmarks.common import Workload

COLUMNS: Final = (
    "model", "repaired", "dB", "integer before", "after", "x float before", "x float after",
)  # fmt: skip
NAMES: Final = ("efficientnet_lite0", "minilm")


@dataclass(frozen=True, slots=True)
class Result:
    """One model before and after.

    Attributes:
        name: The model.
        rules: What was repaired: rules and nodes.
        sqnr_db: Of the repaired model's outputs against the peer's.
        integer: Nodes in integer kernels before and after.
        faster: How many times as fast as float, before and after.
    """

    name: str
    rules: dict[str, int]
    sqnr_db: float | None
    integer: tuple[int, int]
    faster: tuple[Ratio, Ratio]


def compare(work: Workload, timing: TimingSettings, folder: Path) -> Result:
    """Quantize by the peer, repair, and time float and both models against each other."""
    before, after = folder / f"{work.name}.peer.onnx", folder / f"{work.name}.repaired.onnx"
    arguments = {
        "model": str(work.model),
        "data": str(work.calibration),
        "output": str(before),
    }
    in_own_process("peer_tasks:quantize_by_default", arguments)
    result = lint(before, fix_to=after)
    contenders = [
        Contender("float", work.model),
        Contender("before", before),
        Contender("after", after),
    ]
    found = timed(work, contenders, timing)
    return Result(
        work.name,
        {fixed.rule: len(fixed.nodes) for fixed in result.fixed},
        result.sqnr_db,
        (count_kernels(before).integer, count_kernels(after).integer),
        (found.ratio("float", "before"), found.ratio("float", "after")),
    )


def row(result: Result) -> tuple[str, ...]:
    """The figures for people."""
    equal = result.sqnr_db is not None and math.isinf(result.sqnr_db)
    return (
        result.name,
        ", ".join(f"{rule} ({nodes})" for rule, nodes in result.rules.items()) or "nothing",
        "equal" if equal else number(result.sqnr_db, 1),
        *map(str, result.integer),
        *map(times, result.faster),
    )


def main() -> int:
    """Read the command line, measure and print."""
    made = parser(__doc__)
    made.add_argument("names", nargs="*", metavar="NAME", default=NAMES, help="default: both")
    made.add_argument("--samples", type=int, metavar="N", default=8, help="default: 8")
    made.add_argument("--rounds", type=int, metavar="N", default=3, help="default: 3")
    options = made.parse_args()
    timing = TimingSettings(rounds=options.rounds, threads=THREADS)
    results = []
    with tempfile.TemporaryDirectory(prefix="onnxq-lint-") as folder:
        for name in options.names:
            work = built(name, options.samples, Path(folder))
            results.append(compare(work, timing, Path(folder)))
    show("Models of the peer, repaired", COLUMNS, [row(result) for result in results])
    write_json(options.json, "lint_repair", {"timing": timing, "models": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
