"""What quantizing costs as graphs grow: random graphs, a long chain, a wide layer.

Run from the repository root::

    python -m tests.benchmarks.graph_scaling [--nodes N...] [--chain N] [--wide N] [--rounds N]
        [--json FILE]

Each graph has a process of its own, after a small one that loads the compiled kernels, and starts
from a cold statistics cache. Rounds go through all graphs; medians count, of the seconds and of the
exponents. Counted is the whole call of ``quantize`` without timing, on five
calibration samples, with the recipe's defaults for random graphs and min-max elsewhere.

- *random*: the generator's graphs (:mod:`tests.whole_graph.generate`), seed 0, of 250 to 4,000
  nodes. The exponent is the slope of log seconds over log nodes, fitted by least squares.
- *chain*: MatMul, Relu, Add of the input, Tanh, again and again.
- *wide*: parallel MatMuls of one input, summed; the nodes are twice as many.

Chain and wide have an exponent too: from a quarter and a half of their nodes. *onnxruntime* is the
time that loading the float model took ONNX Runtime itself, which no tool can go below.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tests.benchmarks.common import (
    FailedError,
    in_own_process,
    megabytes,
    number,
    parser,
    show,
    write_json,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

NODES: Final = (250, 500, 1000, 2000, 4000)
CHAIN: Final = 10_000
WIDE: Final = 2_000

_WIDTH: Final = 8


@dataclass(frozen=True, slots=True)
class Measured:
    """What one graph took.

    Attributes:
        kind: ``random``, ``chain`` or ``wide``.
        nodes: Nodes of the graph.
        sites: Sites that were quantized.
        seconds: Of the whole call, in each round.
        load_seconds: Of loading the float model in ONNX Runtime, in each round.
        peak_rss_bytes: The most memory its process held.
        failed: Why there is nothing else.
    """

    kind: str
    nodes: int
    sites: int = 0
    seconds: tuple[float, ...] = ()
    load_seconds: tuple[float, ...] = ()
    peak_rss_bytes: int = 0
    failed: str = ""


def chain(nodes: int) -> onnx.ModelProto:
    """A chain of at least ``nodes`` nodes."""
    from onnx import helper

    rng = np.random.default_rng(0)
    made, weights, x = [], {}, "x"
    for index in range(-(-nodes // 4)):
        weights[f"w{index}"] = rng.normal(size=(_WIDTH, _WIDTH)) / np.sqrt(_WIDTH)
        for op, second in (("MatMul", f"w{index}"), ("Relu", ""), ("Add", "x"), ("Tanh", "")):
            out = f"{op}{index}"
            inputs = [x, second] if second else [x]
            made.append(helper.make_node(op, inputs, [out], name=f"/{out}"))
            x = out
    return _model(made, weights, x)


def wide(width: int) -> onnx.ModelProto:
    """``width`` MatMuls and Relus side by side, summed."""
    from onnx import helper

    rng = np.random.default_rng(0)
    weights = {f"w{i}": rng.normal(size=(_WIDTH, _WIDTH)) / np.sqrt(_WIDTH) for i in range(width)}
    made = [
        node
        for i in range(width)
        for node in (
            helper.make_node("MatMul", ["x", f"w{i}"], [f"m{i}"], name=f"/m{i}"),
            helper.make_node("Relu", [f"m{i}"], [f"r{i}"], name=f"/r{i}"),
        )
    ]
    made.append(helper.make_node("Sum", [f"r{i}" for i in range(width)], ["y"], name="/sum"))
    return _model(made, weights, "y")


def _model(
    nodes: Sequence[onnx.NodeProto], weights: dict[str, Any], output: str
) -> onnx.ModelProto:
    from onnx import TensorProto, helper, numpy_helper

    def info(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", _WIDTH])

    tensors = [
        numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()
    ]
    graph = helper.make_graph(nodes, "scaling", [info("x")], [info(output)], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def quantize_task(kind: str, size: int) -> dict[str, Any]:
    """Quantize one graph in this process."""
    import onnx

    from onnxq.runtime.session import SessionSettings, open_session
    from tests.whole_graph.generate import generate

    rng = np.random.default_rng(1)
    rows: list[dict[str, Any]] = [
        {"x": rng.normal(size=(3, _WIDTH)).astype(np.float32)} for _ in range(5)
    ]
    if kind == "random":
        made = generate(0, size)
        model, rows = made.proto, list(made.calibration)
    else:
        model = chain(size) if kind == "chain" else wide(size)
    with tempfile.TemporaryDirectory(prefix="onnxq-scaling-") as folder:
        path = Path(folder) / "float.onnx"
        onnx.save(chain(8), path)
        small = [{"x": np.ones((1, _WIDTH), np.float32)}] * 5
        _quantize(path, small, "auto")
        onnx.save(model, path)
        start = time.perf_counter()
        open_session(path, SessionSettings(spinning=False))
        load_seconds = time.perf_counter() - start
        start = time.perf_counter()
        sites = _quantize(path, rows, "auto" if kind == "random" else "minmax")
        seconds = time.perf_counter() - start
    nodes = len(model.graph.node)
    return {"nodes": nodes, "sites": sites, "seconds": seconds, "load_seconds": load_seconds}


def _quantize(path: Path, rows: list[dict[str, Any]], method: str) -> int:
    from onnxq.pipeline import RunOptions, quantize
    from onnxq.recipe import Recipe

    recipe = Recipe.model_validate({"scheme": "int8", "calibration": {"method": method}})
    output = path.with_name("quantized.onnx")
    result = quantize(path, rows, output, recipe=recipe, options=RunOptions(timing=None))
    return sum(site.decision != "float" for site in result.plan.sites)


def measure(kind: str, size: int, folder: Path) -> Measured:
    """Quantize one graph in a process of its own, once."""
    cache = Path(tempfile.mkdtemp(dir=folder))
    try:
        found = in_own_process("graph_scaling:quantize_task", {"kind": kind, "size": size}, cache)
    except FailedError as error:
        return Measured(kind, size, failed=str(error))
    seconds, load_seconds = found.pop("seconds"), found.pop("load_seconds")
    return Measured(kind, **found, seconds=(seconds,), load_seconds=(load_seconds,))


def together(rounds: Sequence[Measured]) -> Measured:
    """One graph in all rounds; the first failure counts."""
    failed = next((one for one in rounds if one.failed), None)
    return failed or replace(
        rounds[0],
        seconds=tuple(second for one in rounds for second in one.seconds),
        load_seconds=tuple(second for one in rounds for second in one.load_seconds),
        peak_rss_bytes=max(one.peak_rss_bytes for one in rounds),
    )


def exponents(nodes: Sequence[int], seconds: Sequence[Sequence[float]]) -> list[float]:
    """The slope of log seconds over log nodes in each round.

    Args:
        nodes: Of each graph.
        seconds: Of each graph in each round.
    """
    if len(nodes) < 2:
        return [float("nan")]
    rounds = zip(*seconds, strict=True)
    return [float(np.polyfit(np.log(nodes), np.log(each), 1)[0]) for each in rounds]


def median(values: Sequence[float]) -> float:
    """NaN without values."""
    return float(np.median(values)) if values else float("nan")


def spread(values: Sequence[float]) -> str:
    """Median, least and greatest."""
    if len(values) < 2:
        return number(median(values))
    return f"{number(median(values))} ({number(min(values))} to {number(max(values))})"


def report(measured: Sequence[Measured]) -> dict[str, list[float]]:
    """Print the table and give each kind's exponents."""
    rows = [
        [
            f"{one.kind}, {one.nodes} nodes",
            one.failed or str(one.sites),
            spread(one.seconds),
            number(1000 * median(one.seconds) / one.nodes),
            number(median(one.load_seconds)),
            megabytes(one.peak_rss_bytes),
        ]
        for one in measured
    ]
    kinds = dict.fromkeys(one.kind for one in measured)
    found, notes = {}, []
    for kind in kinds:
        good = [one for one in measured if one.kind == kind and not one.failed]
        nodes = [one.nodes for one in good]
        found[kind] = exponents(nodes, [one.seconds for one in good])
        loading = exponents(nodes, [one.load_seconds for one in good])
        notes.append(
            f"{kind}: seconds grow as nodes to the power of {spread(found[kind])}, "
            f"those of loading in ONNX Runtime of {spread(loading)}"
        )
    columns = ["graph", "sites quantized", "s", "ms a node", "onnxruntime loads it, s", "MB"]
    show("Quantizing, static INT8", columns, rows, notes)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and give the exit status: 1 if a graph failed."""
    made = parser(__doc__)
    made.add_argument("--nodes", type=int, nargs="*", default=NODES, help="sizes of random graphs")
    made.add_argument("--chain", type=int, default=CHAIN, help="nodes of the chain; 0 for none")
    made.add_argument("--wide", type=int, default=WIDE, help="parallel nodes; 0 for none")
    made.add_argument("--rounds", type=int, default=3, help="how often each graph is quantized")
    wanted = made.parse_args(arguments)
    sizes = [("random", size) for size in wanted.nodes]
    for kind, size in (("chain", wanted.chain), ("wide", wanted.wide)):
        sizes += [(kind, size // part) for part in (4, 2, 1) if size]
    rounds: dict[tuple[str, int], list[Measured]] = {size: [] for size in sizes}
    with tempfile.TemporaryDirectory(prefix="onnxq-scaling-") as folder:
        for _ in range(wanted.rounds):
            for (kind, size), found_so_far in rounds.items():
                found_so_far.append(measure(kind, size, Path(folder)))
                print(f"{kind} {size}: {found_so_far[-1].failed or 'done'}", file=sys.stderr)
    measured = [together(each) for each in rounds.values()]
    found = report(measured)
    write_json(wanted.json, "graph_scaling", {"graphs": measured, "exponents": found})
    return 1 if any(one.failed for one in measured) else 0


if __name__ == "__main__":
    sys.exit(main())
