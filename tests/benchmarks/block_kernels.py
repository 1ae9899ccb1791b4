"""What ONNX Runtime's kernels for weights in blocks take, beside float.

Run from the repository root::

    python -m tests.benchmarks.block_kernels [--shapes KxN,...] [--rows M,...] [--rounds N]
                                             [--json FILE]

One product of random numbers, K by N, for so many rows of activations: float MatMul, and
MatMulNBits of each width, accuracy level and block size; and one lookup of as many rows in a table
of 49,152 rows of K: int8 rows with a scale each (Gather, Cast, Mul), and GatherBlockQuantized of
each width. Each model is alone in its process, with two threads, processes in alternation.
Columns: median of a run in microseconds, and how many times faster than float (for lookups: than
int8 rows; median of the rounds, least to greatest). ``targets/cpu.toml`` says what follows.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from onnxq.plan import BLOCK_BITS
from onnxq.runtime.kernel_forms import product, product_in_blocks
from onnxq.runtime.kernel_speed import time_models
from onnxq.runtime.timing import TimingSettings
from tests.benchmarks.common import THREADS, number, parser, show, times, write_json

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from onnxq.runtime.timing import Ratio

COLUMNS: Final = ("kernel", "µs", "x faster")
SIZES: Final = (16, 32, 64, 128, 256)
LEVELS: Final = (4, 1)
TABLE: Final = 49_152

Constants = dict[str, "NDArray[Any]"]
Attributes = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """One kernel.

    Attributes:
        name: Its width, level and block size.
        microseconds: Median of a run.
        faster: How many times faster than the first one.
    """

    name: str
    microseconds: float
    faster: Ratio


def products(length: int, channels: int) -> dict[str, onnx.ModelProto]:
    """Float, then each width, level and size; asymmetric."""
    found = {"float": product(length, channels)}
    for bits in BLOCK_BITS:
        for level in LEVELS:
            for size in SIZES:
                name = f"{bits} bits, level {level}, block {size}"
                found[name] = product_in_blocks(length, channels, bits, size, level)
    return found


def lookups(length: int) -> dict[str, onnx.ModelProto]:
    """Rows of int8, then blocks of 64 of each width."""
    draw, size = np.random.default_rng(0), 64
    rows = {
        "q": draw.integers(-127, 128, (TABLE, length), np.int8),
        "s": draw.random((TABLE, 1), np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["q", "x"], ["r"]),
        helper.make_node("Gather", ["s", "x"], ["f"]),
        helper.make_node("Cast", ["r"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["c", "f"], ["y"]),
    ]
    found = {"int8 rows": _graph(nodes, rows, ("m",), TensorProto.INT64)}
    for bits in BLOCK_BITS:
        blocks = -(-length // size)
        constants = {
            "b": draw.integers(0, 256, (TABLE, blocks, size * bits // 8), np.uint8),
            "s": draw.random((TABLE, blocks, 1), np.float32),
        }
        attributes: Attributes = {
            "bits": bits,
            "block_size": size,
            "gather_axis": 0,
            "quantize_axis": 2,
        }
        inputs = ["b", "x", "s"]
        node = helper.make_node(
            "GatherBlockQuantized", inputs, ["y"], domain="com.microsoft", **attributes
        )
        found[f"{bits} bits, block {size}"] = _graph([node], constants, ("m",), TensorProto.INT64)
    return found


def compare(
    models: dict[str, onnx.ModelProto], feed: NDArray[Any], timing: TimingSettings
) -> tuple[Result, ...]:
    """Time models of one input ``x`` against the first of them."""
    taken = time_models(models, {"x": feed}, timing)
    return tuple(Result(name, ms * 1000, ratio) for name, (ms, ratio) in taken.items())


def row(found: Result) -> tuple[str, ...]:
    """The figures for people."""
    return found.name, number(found.microseconds, 0), times(found.faster)


def _graph(
    nodes: list[onnx.NodeProto], constants: Constants, shape: tuple[str | int, ...], kind: int
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "kernel",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    domains = {"": 17, "com.microsoft": 1}
    imports = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def main() -> int:
    """Read the command line, measure and print."""
    made = parser(__doc__)
    made.add_argument("--shapes", default="576x1536,2048x2048", help="K x N, more after commas")
    made.add_argument("--rows", default="1,64", help="rows of activations, more after commas")
    made.add_argument("--rounds", type=int, metavar="N", default=3, help="default: 3")
    options = made.parse_args()
    timing = TimingSettings(rounds=options.rounds, threads=THREADS)
    figures = {}
    for shape in options.shapes.split(","):
        length, channels = map(int, shape.split("x"))
        for rows in map(int, options.rows.split(",")):
            draw = np.random.default_rng(1)
            x = draw.standard_normal((rows, length), np.float32)
            title = f"{shape}, {rows} rows"
            figures[title] = compare(products(length, channels), x, timing)
            show(title, COLUMNS, [row(found) for found in figures[title]])
            title = f"lookup of {rows} rows of {length}"
            indices = draw.integers(0, TABLE, rows)
            figures[title] = compare(lookups(length), indices, timing)
            show(title, COLUMNS, [row(found) for found in figures[title]])
    write_json(options.json, "block_kernels", {"timing": timing, "kernels": figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
