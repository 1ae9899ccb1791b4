"""What keeping operators apart is worth: a model as ONNX Runtime fuses it, and kept apart.

Run from the repository root::

    python -m tests.benchmarks.fusions [NAME...] [--samples N] [--rounds N] [--json FILE]

NAME is a model of ``models/`` (default: minilm). It is timed in float and in INT8, each in two
forms that differ in nothing but the operators of ``plan.kept_apart``: *fused*, where ONNX Runtime
makes SkipLayerNormalization of every residual Add and the LayerNormalization behind it, and
*apart*, where the Add is written as a Sum. Both are written from the same normalized model, INT8
from one plan; N calibration samples give it its ranges, which do not matter for the time.

Each model is alone in its process, with two threads, on the evaluation samples, processes in
alternation. Columns: SkipLayerNormalization nodes that are really executed; the median of a run in
milliseconds; how many times faster the form kept apart is (median of the rounds, least to
greatest).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from onnxq.algorithms.keep_apart import SKIP_NORM, find_kept_apart
from onnxq.algorithms.selection import Selection
from onnxq.graph.io import load, save
from onnxq.passes.execute import execute
from onnxq.passes.keep_apart import KeepApart
from onnxq.pipeline import RunOptions, quantize
from onnxq.recipe import CalibrationSettings, Recipe
from onnxq.runtime.kernels import executed
from onnxq.runtime.timing import Contender
from onnxq.stages.prepare import normalized_for
from onnxq.targets import load_target
from tests.benchmarks.common import number, timed, times, timing_tables

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from onnxq.plan import Plan
    from onnxq.runtime.timing import Ratio, TimingSettings
    from tests.benchmarks.common import Workload

COLUMNS: Final = ("model", "fused nodes", "apart nodes", "fused ms", "apart ms", "x faster apart")

_NOTHING: Final = Selection((), (), {}, frozenset())


@dataclass(frozen=True, slots=True)
class Result:
    """One model in both forms.

    Attributes:
        form: ``float`` or ``int8``.
        fused_nodes: SkipLayerNormalization nodes executed where they may be made.
        apart_nodes: The same where they are kept apart.
        fused_ms: Median of a run, fused.
        apart_ms: Median of a run, kept apart.
        faster: How many times faster it is kept apart.
    """

    form: str
    fused_nodes: int
    apart_nodes: int
    fused_ms: float
    apart_ms: float
    faster: Ratio


def compare(work: Workload, timing: TimingSettings, folder: Path) -> tuple[Result, ...]:
    """Write the four models into ``folder`` and time them against each other."""
    plan = _plan(work, folder)
    target = load_target(plan.target)
    normalized = normalized_for(load(work.model), target, plan.minimum_opset, plan.scheme).model
    entries = find_kept_apart(normalized, _NOTHING, target)
    floating = KeepApart(plan.model_copy(update={"kept_apart": entries}))
    models: dict[str, ir.Model] = {
        "float fused": normalized,
        "float apart": floating(normalized.clone()).model,
        "int8 fused": execute(plan.model_copy(update={"kept_apart": ()}), normalized),
        "int8 apart": execute(plan, normalized),
    }
    contenders = [Contender(name, folder / f"{name}.onnx") for name in models]
    for contender in contenders:
        save(models[contender.name], contender.model)
    measured = timed(work, contenders, timing)
    nodes = {contender.name: _fused(contender.model) for contender in contenders}
    return tuple(
        Result(
            form,
            nodes[f"{form} fused"],
            nodes[f"{form} apart"],
            measured.results[f"{form} fused"].median_ms,
            measured.results[f"{form} apart"].median_ms,
            measured.ratio(f"{form} fused", f"{form} apart"),
        )
        for form in ("float", "int8")
    )


def row(found: Result) -> tuple[str, ...]:
    """The figures for people."""
    return (
        found.form,
        str(found.fused_nodes),
        str(found.apart_nodes),
        number(found.fused_ms),
        number(found.apart_ms),
        times(found.faster),
    )


def _plan(work: Workload, folder: Path) -> Plan:
    recipe = Recipe(calibration=CalibrationSettings(method="minmax"))
    options = RunOptions(eval_data=work.evaluation, timing=None)
    output = folder / "quantized.onnx"
    return quantize(work.model, work.calibration, output, recipe=recipe, options=options).plan


def _fused(path: Path) -> int:
    return sum(node.op == SKIP_NORM for node in executed(path))


def main() -> int:
    """Read the command line, measure and print."""
    timing_tables("fusions", __doc__, compare, COLUMNS, row, names=["minilm"], samples=16)
    return 0


if __name__ == "__main__":
    sys.exit(main())
