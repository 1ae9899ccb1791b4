"""What the forms cost that ``onnxq lint --target cpu`` warns of, beside those that it asks for.

Run from the repository root::

    python -m tests.benchmarks.lint_rules [RULE...] [--rounds N] [--json FILE]

For each rule two small models that differ in the form alone. Each is alone in its process, with two
threads, processes in alternation. Columns: median of a run in microseconds of the form that the
rule finds and of the other; how many times as long the first takes (median of the rounds, least to
greatest). ``lint/rules.toml`` says what follows.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from onnx import numpy_helper
from onnx import parser as text_parser

from onnxq.runtime.timing import Contender, TimingSettings, measure
from tests.benchmarks.common import THREADS, number, parser, show, times, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from onnxq.runtime.timing import Ratio

COLUMNS: Final = ("rule", "found", "instead", "found µs", "instead µs", "times as long")

_RNG: Final = np.random.default_rng(0)
_F32: Final = np.float32


@dataclass(frozen=True, slots=True)
class Form:
    """A model: what it is called, its nodes as text, and its constants."""

    name: str
    text: str
    constants: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Duel:
    """The form that a rule finds, the other, and what both are fed."""

    found: Form
    instead: Form
    feed: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Result:
    """One rule's two forms.

    Attributes:
        rule: The rule.
        found: The form that it finds.
        instead: The other.
        found_us: Median of a run in microseconds.
        instead_us: The same of the other.
        longer: How many times as long the first takes.
    """

    rule: str
    found: str
    instead: str
    found_us: float
    instead_us: float
    longer: Ratio


def _conv(body: str) -> str:
    return f"g (float[1, 32, 28, 28] x) => (float[1, 32, 26, 26] y) {{ {body} }}"


def _rows(body: str, length: int = 512) -> str:
    return f"g (float[64, {length}] x) => (float[64, 512] y) {{ {body} }}"


_KERNEL: Final = _RNG.integers(-100, 100, (32, 32, 3, 3)).astype(np.int8)
_SQUARE: Final = _RNG.normal(size=(512, 512))
_TABLE: Final = _RNG.integers(-127, 128, (32_768, 384)).astype(np.int8)
_PAIRS: Final = MappingProxyType(
    {"s": _F32(0.03), "z": np.uint8(128), "s2": _F32(0.1), "z2": np.uint8(128)}
)
_QDQ: Final = _conv(
    "xq = QuantizeLinear(x, s, z) xd = DequantizeLinear(xq, s, z)"
    "wd = DequantizeLinear<axis = 0>(w, ws, wz) t = Conv(xd, wd)"
    "tq = QuantizeLinear(t, s2, z2) y = DequantizeLinear(tq, s2, z2)"
)
_SCALES: Final = np.full(32, 0.01, _F32)
_INT8_CONV: Final = Form(
    "int8 weights", _QDQ, {**_PAIRS, "w": _KERNEL, "ws": _SCALES, "wz": np.zeros(32, np.int8)}
)
_FLOAT_CONV: Final = Form("float", _conv("y = Conv(x, w)"), {"w": _KERNEL.astype(_F32)})
_WEIGHT: Final = {"w": _RNG.integers(-127, 128, (512, 512)).astype(np.int8), "s": _F32(0.01)}

DUELS: Final[Mapping[str, Duel]] = {
    "float64-product": Duel(
        Form(
            "float64",
            _rows("d = Cast<to = 11>(x) t = MatMul(d, w) y = Cast<to = 1>(t)"),
            {"w": _SQUARE},
        ),
        Form("float32", _rows("y = MatMul(x, w)"), {"w": _SQUARE.astype(_F32)}),
        _RNG.normal(size=(64, 512)).astype(_F32),
    ),
    "uint8-weights": Duel(
        Form(
            "uint8 weights",
            _QDQ,
            {
                **_PAIRS,
                "w": (_KERNEL.astype(np.int16) + 128).astype(np.uint8),
                "ws": _SCALES,
                "wz": np.full(32, 128, np.uint8),
            },
        ),
        _INT8_CONV,
        _RNG.normal(size=(1, 32, 28, 28)).astype(_F32),
    ),
    "dynamic-conv": Duel(
        Form(
            "ConvInteger",
            _conv(
                "q, f, o = DynamicQuantizeLinear(x) i = ConvInteger(q, w, o)"
                "t = Cast<to = 1>(i) y = Mul(t, f)"
            ),
            {"w": _KERNEL},
        ),
        _FLOAT_CONV,
        _RNG.normal(size=(1, 32, 28, 28)).astype(_F32),
    ),
    "idle-pair": Duel(
        Form(
            "Q, DQ, Tanh, Q, DQ",
            _rows(
                "xq = QuantizeLinear(x, s, z) xd = DequantizeLinear(xq, s, z) t = Tanh(xd)"
                "tq = QuantizeLinear(t, s, z) y = DequantizeLinear(tq, s, z)"
            ),
            {"s": _F32(0.03), "z": np.uint8(128)},
        ),
        Form("Tanh", _rows("y = Tanh(x)"), {}),
        _RNG.normal(size=(64, 512)).astype(_F32),
    ),
    "weight-dequantized-each-run": Duel(
        Form(
            "DequantizeLinear",
            _rows("d = DequantizeLinear(w, s) y = Gemm<transB = 1>(x, d)"),
            _WEIGHT,
        ),
        Form(
            "Cast and Mul, folded",
            _rows("c = Cast<to = 1>(w) d = Mul(c, s) y = Gemm<transB = 1>(x, d)"),
            _WEIGHT,
        ),
        _RNG.normal(size=(64, 512)).astype(_F32),
    ),
    "table-dequantized": Duel(
        Form(
            "DQ, Gather",
            "g (int64[64] x) => (float[64, 384] y) { d = DequantizeLinear(w, s) y = Gather(d, x) }",
            {"w": _TABLE, "s": _F32(0.01)},
        ),
        Form(
            "Gather, DQ",
            "g (int64[64] x) => (float[64, 384] y) { d = Gather(w, x) y = DequantizeLinear(d, s) }",
            {"w": _TABLE, "s": _F32(0.01)},
        ),
        _RNG.integers(0, 32_768, 64),
    ),
}


def compare(rule: str, timing: TimingSettings) -> Result:
    """Time a rule's two forms against each other."""
    duel = DUELS[rule]
    with tempfile.TemporaryDirectory(prefix="onnxq-lint-") as folder:
        contenders = []
        for name, form in (("found", duel.found), ("instead", duel.instead)):
            path = Path(folder) / f"{name}.onnx"
            onnx.save(_model(form), path)
            contenders.append(Contender(name, path))
        timed = measure(contenders, [{"x": duel.feed}], timing)
    return Result(
        rule,
        duel.found.name,
        duel.instead.name,
        timed.results["found"].median_ms * 1000,
        timed.results["instead"].median_ms * 1000,
        timed.ratio("found", "instead"),
    )


def row(result: Result) -> tuple[str, ...]:
    """The figures for people."""
    return (
        result.rule,
        result.found,
        result.instead,
        number(result.found_us, 0),
        number(result.instead_us, 0),
        times(result.longer),
    )


def _model(form: Form) -> onnx.ModelProto:
    model = text_parser.parse_model(f'<ir_version: 9, opset_import: ["" : 17]> {form.text}')
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(array), name) for name, array in form.constants.items()
    )
    return model


def main() -> int:
    """Read the command line, measure and print."""
    made = parser(__doc__)
    made.add_argument("rules", nargs="*", metavar="RULE", help="default: all")
    made.add_argument("--rounds", type=int, metavar="N", default=3, help="default: 3")
    options = made.parse_args()
    timing = TimingSettings(rounds=options.rounds, threads=THREADS)
    results = [compare(rule, timing) for rule in options.rules or DUELS]
    show("What lint warns of on the CPU", COLUMNS, [row(result) for result in results])
    write_json(options.json, "lint_rules", {"timing": timing, "rules": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
