"""float16 and bfloat16 in each form: what they cost and keep, and the peer's float16 beside them.

Run from the repository root::

    python -m tests.benchmarks.half [NAME...] [--samples N] [--rounds N] [--json FILE]

NAME is a model of ``models/`` (default: minilm and efficientnet_lite0). Forms: *weights* are stored
in 16 bits and cast to float32 when the model is loaded; *compute* is a graph of 16 bits, for which
N calibration samples show what would overflow; *peer* is ``onnxruntime.transformers.float16`` with
inputs and outputs kept.

Each model is alone in its process, with two threads, on the evaluation samples, processes in
alternation. Columns: size beside float's; SQNR on the evaluation samples; Casts that are really
executed; the median of a run in milliseconds; times float's speed (median of the rounds, least to
greatest); megabytes of the process. The targets' default form follows from this table.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

from onnxq.graph.io import file_bytes
from onnxq.pipeline import RunOptions, quantize
from onnxq.recipe import Recipe
from onnxq.runtime.kernels import executed
from onnxq.runtime.timing import Contender
from tests.benchmarks.common import fidelity, number, timed, times, timing_tables

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.runtime.timing import Ratio, TimingSettings
    from tests.benchmarks.common import Workload

COLUMNS: Final = ("form", "x smaller", "SQNR dB", "Casts", "ms", "x float's speed", "MB")
FORMS: Final = (("float16", "weights"), ("float16", "compute"), ("bfloat16", "weights"))
DEFAULTS: Final = ("minilm", "efficientnet_lite0")


@dataclass(frozen=True, slots=True)
class Result:
    """One form of one model.

    Attributes:
        form: Type and form, ``float`` or ``peer``.
        smaller: How many times smaller the file is.
        sqnr_db: On the evaluation samples.
        casts: Cast nodes that are executed.
        median_ms: Median of a run.
        faster: Times float's speed.
        peak_rss_bytes: The most memory of the process.
    """

    form: str
    smaller: float
    sqnr_db: float | None
    casts: int
    median_ms: float
    faster: Ratio
    peak_rss_bytes: int


def compare(work: Workload, timing: TimingSettings, folder: Path) -> tuple[Result, ...]:
    """Write each form into ``folder`` and time all of them against float."""
    paths = {"float": work.model, "peer": folder / "peer.onnx"}
    onnx.save(convert_float_to_float16(onnx.load(work.model), keep_io_types=True), paths["peer"])
    for scheme, form in FORMS:
        name = f"{scheme} {form}"
        recipe = Recipe.model_validate({"scheme": scheme, "half": {"form": form}})
        options = RunOptions(eval_data=work.evaluation, timing=None)
        paths[name] = folder / f"{scheme}-{form}.onnx"
        quantize(work.model, work.calibration, paths[name], recipe=recipe, options=options)
    contenders = [Contender(name, path) for name, path in paths.items()]
    measured = timed(work, contenders, timing)
    return tuple(
        Result(
            form=name,
            smaller=file_bytes(work.model) / file_bytes(path),
            sqnr_db=fidelity(work, path).sqnr_db,
            casts=sum(node.op == "Cast" for node in executed(path)),
            median_ms=measured.results[name].median_ms,
            faster=measured.ratio("float", name),
            peak_rss_bytes=measured.results[name].peak_rss_bytes,
        )
        for name, path in paths.items()
    )


def row(found: Result) -> tuple[str, ...]:
    """The figures for people."""
    return (
        found.form,
        number(found.smaller),
        number(found.sqnr_db),
        str(found.casts),
        number(found.median_ms),
        times(found.faster),
        number(found.peak_rss_bytes / 1e6),
    )


def main() -> int:
    """Read the command line, measure and print."""
    timing_tables("half", __doc__, compare, COLUMNS, row, names=DEFAULTS, samples=32)
    return 0


if __name__ == "__main__":
    sys.exit(main())
