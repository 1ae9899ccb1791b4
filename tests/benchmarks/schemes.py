"""Every INT8 scheme of onnxq side by side, and the peer's dynamic quantization beside them.

Run from the repository root::

    python -m tests.benchmarks.schemes [NAME...] [--rounds N] [--runs N] [--json FILE]

NAME is a model of ``models/`` (default: minilm). Every model is quantized in a process of its own:
static, dynamic with data (which evens out channels) and without, weights alone with each block
size and folded at load, and the peer's dynamic quantization per channel. All are compared with the
float model on the same evaluation samples and timed in one run, each alone in its process, in
alternation; columns as in ``peers``, "onnxq x faster" being that of dynamic INT8 with data over the
row.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxq.runtime.timing import TimingSettings
from onnxq.targets import load_target
from tests.benchmarks.common import THREADS, Workload, built, parser, write_json
from tests.benchmarks.peer_tasks import Variant
from tests.benchmarks.peers import ONNXQ, Result, measured, quantized, report, timed, with_peer

if TYPE_CHECKING:
    from collections.abc import Mapping

_PEER = Variant("peer dynamic", "dynamic")


def settings(work: Workload) -> Mapping[str, dict[str, Any]]:
    """What onnxq is asked for, by the name of the row."""
    data = str(work.calibration)
    blocks = load_target("cpu").blocks
    sizes = () if blocks is None else sorted({*blocks.widths[8].block_sizes, 256})
    return {
        ONNXQ: {"scheme": "int8-dynamic", "data": data},
        "onnxq dynamic, no data": {"scheme": "int8-dynamic", "data": None},
        "onnxq static": {"scheme": "int8", "data": data},
        **{
            f"onnxq weights, block {size}": {
                "scheme": "int8-weights",
                "data": None,
                "block_size": size,
            }
            for size in sizes
        },
        "onnxq weights, folded": {"scheme": "int8-weights", "data": None, "form": "folded"},
    }


def compare(work: Workload, timing: TimingSettings, folder: Path) -> tuple[Result, ...]:
    """Quantize, compare and time."""
    paths: dict[str, Path] = {}
    results = []
    for name, asked in settings(work).items():
        paths[name] = folder / f"{len(paths)}.onnx"
        arguments = {
            "model": str(work.model),
            "output": str(paths[name]),
            "evaluation": str(work.evaluation),
            **asked,
        }
        results.append(quantized(name, "onnxq_tasks:quantize", arguments, folder / "cache"))
    paths[_PEER.name] = folder / "peer.onnx"
    results.append(with_peer(work, _PEER, paths[_PEER.name]))
    results = [measured(work, paths[result.name], result) for result in results]
    return timed(work, paths, results, timing)


def main() -> int:
    """Read the command line, measure and print; the status is 1 if anything of onnxq failed."""
    made = parser(__doc__)
    made.add_argument("names", nargs="*", metavar="NAME", default=["minilm"])
    made.add_argument("--samples", type=int, metavar="N", help="calibration samples; default: all")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--runs", type=int, default=50)
    options = made.parse_args()
    timing = TimingSettings(rounds=options.rounds, runs=options.runs, threads=THREADS)
    found: dict[str, tuple[Result, ...]] = {}
    for name in options.names:
        with tempfile.TemporaryDirectory(prefix="onnxq-schemes-") as text:
            work = built(name, options.samples, Path(text))
            found[name] = compare(work, timing, Path(text))
        report(work, found[name])
    write_json(options.json, "schemes", {"timing": timing, "models": found})
    ours = [r for results in found.values() for r in results if r.name != _PEER.name]
    return int(any(result.failed for result in ours))


if __name__ == "__main__":
    sys.exit(main())
