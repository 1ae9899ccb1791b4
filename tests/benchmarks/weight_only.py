"""Weights of few bits: what AWQ, GPTQ and their stack are worth, beside the peer's rounding.

Run from the repository root::

    python -m tests.benchmarks.weight_only [kl] [speed] [seeds] [tasks] [--json FILE]

kl      SmolLM2-135M, INT4 asymmetric, blocks of 128 and 64, calibrated on 32 windows of 256 tokens
        of one half of the SOTU speeches: KL to float in nats per token, on 12 windows of the other
        half and on 12 of BBC news, and the ratio to the peer's. First with the output projection
        and the table that it is tied to in float in all, then with everything quantized in all.
        Its shipped weights lie on a 4-bit grid of block 32, so that no smaller block is judged.
        All compute with float32 activations (accuracy level 1).
speed   The same model, all 211 weights and the table: size, memory of a session, latency for 1
        token and for 64 beside float, by block size and accuracy level, each model alone in its
        process, processes in alternation; seconds and peak memory of AWQ.
seeds   MiniLM, INT4, blocks of 128 and 64: SQNR on unseen texts of AWQ and of rounding to the
        nearest for ten choices of 64 calibration texts.
tasks   MiniLM, PP-OCRv6 and EfficientNet-Lite0: SQNR on the evaluation samples, what the model is
        for (``models/score.py``) and size, of float, of INT8 weights (folded, a scale each output
        channel), of INT4 in blocks of 32 and, where products have more input channels, of 128, and
        of the peer's INT4 in blocks of 128, with embedding tables in float and in 4 bits (those of
        onnxq have 8). The form of INT4 is the default's; products in blocks take float32
        activations (accuracy level 1), as the peer's do. The peer leaves convolutions float.

The peer is onnxruntime's MatMulNBitsQuantizer. Each quantizer runs in a process of its own.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.score import Metric, score
from onnxq.data import open_data
from onnxq.graph.io import load
from onnxq.graph.structure import signature
from onnxq.runtime.session import SessionSettings, open_session
from onnxq.runtime.timing import Contender, TimingSettings, measure
from onnxq.verify.fidelity import compare_outputs
from tests.benchmarks.common import (
    THREADS,
    built,
    fidelity,
    first_samples,
    in_own_process,
    megabytes,
    number,
    parser,
    show,
    spread,
    times,
    write_json,
)
from tests.benchmarks.weight_only_tasks import LANGUAGE_HEAD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxq.runtime.timing import Ratio
    from tests.benchmarks.common import Workload

BLOCKS = (128, 64)
ALGORITHMS = ("rtn", "mse", "hqq", "awq", "gptq", "awq+gptq")
WINDOWS = 12
CALIBRATION = 32
SEEDS = 10
TASK_MODELS: Mapping[str, tuple[bool, ...]] = {
    "minilm": (False, True),
    "ppocr_v6": (False,),
    "efficientnet_lite0": (False,),
}
"""Whether the peer is to quantize tables too, to the same bits: both ways where there are some."""
TASK_ROWS: Mapping[str, dict[str, Any]] = {
    "int8-weights": {"scheme": "int8-weights", "weights": {"form": "folded"}},
    **{
        f"int4, block {size}, {algorithm}": {
            "weights": {"algorithm": algorithm, "block_size": size, "accuracy_level": 1}
        }
        for size, algorithms in (
            (128, ("awq", "awq+gptq")),
            (32, ("rtn", "awq", "gptq", "awq+gptq")),
        )
        for algorithm in algorithms
    },
}
_PEER = "peer, nearest"
_GRID = "its weights lie on a 4-bit grid of block 32: blocks of 128 and 64 only are judged"


@dataclass(frozen=True)
class Row:
    """One quantized model.

    Attributes:
        name: What the table calls it.
        kl: KL to float by text, nats per token.
        perplexity: Its perplexity by text.
        seconds: What quantizing took.
        peak_rss_bytes: The most memory that quantizing held.
        file_bytes: Size of the file.
        detail: What was chosen, where something was.
    """

    name: str
    kl: Mapping[str, float]
    perplexity: Mapping[str, float]
    seconds: float
    peak_rss_bytes: int
    file_bytes: int
    detail: str


def language(folder: Path) -> tuple[Workload, dict[str, Path]]:
    """SmolLM2 with its calibration windows, and the folders of windows to judge on."""
    work = built("smollm2", CALIBRATION, folder)
    texts = {
        "SOTU": first_samples(work.evaluation, WINDOWS, folder / "sotu"),
        "BBC": first_samples(work.evaluation.with_name("evaluation_bbc"), WINDOWS, folder / "bbc"),
    }
    return work, texts


def judged(work: Workload, texts: Mapping[str, Path], path: Path, found: dict[str, Any]) -> Row:
    """KL and perplexity of a quantized model on each text."""
    settings = SessionSettings(spinning=False)
    reference, result = open_session(work.model, settings), open_session(path, settings)
    wanted = signature(load(work.model))
    kl: dict[str, float] = {}
    perplexity: dict[str, float] = {}
    for name, folder in texts.items():
        data = open_data(folder, wanted)
        said = compare_outputs(reference, result, data, independent=True).language
        if said is None or said.kl_nats is None or said.quantized_perplexity is None:
            sys.exit(f"{path}: no KL was measured")
        kl[name], perplexity[name] = said.kl_nats, said.quantized_perplexity
    return Row(
        name=found["name"],
        kl=kl,
        perplexity=perplexity,
        seconds=found["seconds"],
        peak_rss_bytes=found["peak_rss_bytes"],
        file_bytes=path.stat().st_size,
        detail=found.get("chosen") or "",
    )


def divergence(
    work: Workload, texts: Mapping[str, Path], block: int, folder: Path, *, everything: bool
) -> list[Row]:
    """The peer and every algorithm at one block size."""
    rows = []
    source, path = work.model, folder / "peer.onnx"
    if everything:
        source = folder / "plain.onnx"
        in_own_process("weight_only_tasks:normalized", {"model": work.model, "output": source})
    asked: dict[str, Any] = {"model": source, "output": path, "block_size": block}
    asked["lookups"] = everything
    found = in_own_process("weight_only_tasks:peer", asked)
    rows.append(judged(work, texts, path, {**found, "name": _PEER}))
    for algorithm in ("rtn", "awq", "awq+gptq") if everything else ALGORITHMS:
        path = folder / "onnxq.onnx"
        weights = {"algorithm": algorithm, "block_size": block, "accuracy_level": 1}
        arguments = {
            "model": work.model,
            "output": path,
            "data": work.calibration,
            "evaluation": texts["SOTU"],
            "weights": {**weights, "symmetric": False},
            "exclude": () if everything else LANGUAGE_HEAD,
        }
        found = in_own_process("weight_only_tasks:onnxq", arguments, folder / "cache")
        rows.append(judged(work, texts, path, {**found, "name": f"onnxq {algorithm}"}))
    return rows


def show_divergence(rows: list[Row], block: int, *, everything: bool) -> None:
    """Print the table of one block size."""
    what = "everything quantized" if everything else "output projection and table float"
    base = rows[0].kl
    lines = []
    for row in rows:
        ratios = {name: row.kl[name] / base[name] for name in base}
        lines.append(
            (
                row.name,
                *(f"{row.kl[name]:.3f}" for name in base),
                *(number(ratios[name], 3) for name in base),
                number(float(np.mean(list(ratios.values()))), 3),
                *(f"{row.perplexity[name]:.1f}" for name in base),
                megabytes(row.file_bytes),
                f"{row.seconds:.0f}",
                megabytes(row.peak_rss_bytes),
            )
        )
    show(
        f"smollm2, INT4 asymmetric, block {block}, {what}",
        (
            "",
            *(f"KL {name}" for name in base),
            *(f"of peer, {name}" for name in base),
            "of peer, mean",
            *(f"perplexity {name}" for name in base),
            "MB",
            "s",
            "peak MB",
        ),
        lines,
        (_GRID,),
    )


def speed(work: Workload, texts: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """Everything quantized by AWQ: size, memory, latency."""
    paths: dict[str, Path] = {"float": work.model}
    awq: dict[str, Any] = {}
    for block, level in ((128, 4), (64, 4), (32, 4), (128, 1)):
        name = f"block {block}, level {level}"
        paths[name] = folder / f"{block}.{level}.onnx"
        weights = {"algorithm": "awq", "block_size": block, "accuracy_level": level}
        arguments = {
            "model": work.model,
            "output": paths[name],
            "data": work.calibration,
            "evaluation": texts["SOTU"],
            "weights": weights,
        }
        awq[name] = in_own_process("weight_only_tasks:onnxq", arguments, folder / "cache")
    found: dict[str, Any] = {"awq": awq, "latency": {}, "memory": {}, "bytes": {}}
    sample = next(iter(open_data(texts["SOTU"], signature(load(work.model)))))
    timing = TimingSettings(rounds=5, runs=50, threads=THREADS)
    for tokens in (1, 64):
        feeds = {name: array[:, :tokens] for name, array in sample.feeds.items()}
        contenders = [Contender(name, path, "cpu") for name, path in paths.items()]
        measured = measure(contenders, [feeds], timing, lambda done, total: None)
        found["latency"][tokens] = {n: measured.ratio("float", n) for n in paths if n != "float"}
    np.savez(folder / "one.npz", **feeds)  # type: ignore[arg-type]
    for name, path in paths.items():
        arguments = {"model": path, "feeds": folder / "one.npz"}
        memory = in_own_process("weight_only_tasks:session_memory", arguments)
        found["memory"][name] = memory["session_bytes"]
        found["bytes"][name] = path.stat().st_size
    return found


def show_speed(found: Mapping[str, Any]) -> None:
    """Print the table of :func:`speed`."""
    lines = []
    for name, size in found["bytes"].items():
        one: Ratio | None = found["latency"][1].get(name)
        many: Ratio | None = found["latency"][64].get(name)
        made = found["awq"].get(name, {})
        lines.append(
            (
                name,
                megabytes(size),
                megabytes(found["memory"][name]),
                times(one),
                times(many),
                str(made.get("blocks", "-")),
                number(made.get("calibration_seconds"), 0),
                number(made.get("seconds"), 0),
                megabytes(made.get("peak_rss_bytes")),
            )
        )
    show(
        "smollm2, INT4 by AWQ, all 211 weights and the table",
        (
            "",
            "MB",
            "session MB",
            "x faster, 1 token",
            "x faster, 64 tokens",
            "in blocks",
            "AWQ s",
            "all s",
            "peak MB",
        ),
        lines,
        (_GRID, "AWQ s: statistics of 32 windows and the search; all s: with the comparison"),
    )


def seeds(folder: Path) -> dict[int, dict[str, Any]]:
    """SQNR of MiniLM for ten choices of calibration texts."""
    work = built("minilm", None, folder)
    found: dict[int, dict[str, Any]] = {}
    for block in BLOCKS:

        def quantized(algorithm: str, seed: int, *, size: int = block) -> float:
            weights = {"algorithm": algorithm, "block_size": size, "accuracy_level": 1}
            arguments = {
                "model": work.model,
                "output": folder / "minilm.onnx",
                "data": work.calibration,
                "evaluation": work.evaluation,
                "weights": {**weights, "symmetric": False},
                "seed": seed,
                "samples": 64,
            }
            answer = in_own_process("weight_only_tasks:onnxq", arguments, folder / "cache")
            return float(answer["sqnr_db"])

        nearest = quantized("rtn", 0)
        found[block] = {"rtn": nearest, "awq": [quantized("awq", seed) for seed in range(SEEDS)]}
    return found


def show_seeds(found: Mapping[int, Mapping[str, Any]]) -> None:
    """Print the table of :func:`seeds`."""
    lines = [
        (
            f"block {block}",
            number(row["rtn"]),
            times(spread(row["awq"])),
            number(min(row["awq"]) - row["rtn"]),
        )
        for block, row in found.items()
    ]
    columns = ("", "nearest dB", "AWQ dB, ten seeds", "least margin dB")
    show("minilm, INT4 asymmetric, unseen texts", columns, lines)


@dataclass(frozen=True)
class TaskRow:
    """A model at its task.

    Attributes:
        name: What the table calls it.
        sqnr_db: SQNR to float on the evaluation samples; None of float itself.
        metrics: What :func:`models.score.score` says of it.
        file_bytes: Size of the file.
    """

    name: str
    sqnr_db: float | None
    metrics: tuple[Metric, ...]
    file_bytes: int


def at_task(work: Workload, folder: Path) -> list[TaskRow]:
    """Float, each of `TASK_ROWS` and the peer, quantized, compared with float and scored."""
    rows = [TaskRow("float", None, score(work.name, work.model), work.model.stat().st_size)]
    path = folder / f"{work.name}.onnx"
    source: dict[str, Any] = {"model": work.model, "output": path}
    data = {"data": work.calibration, "evaluation": work.evaluation}
    asked = {name: ("onnxq", {**source, **data, **own}) for name, own in TASK_ROWS.items()}
    for lookups in TASK_MODELS[work.name]:
        name = f"peer, int4, block 128, tables {'too' if lookups else 'float'}"
        asked[name] = ("peer", {**source, "block_size": 128, "lookups": lookups})
    for name, (function, arguments) in asked.items():
        in_own_process(f"weight_only_tasks:{function}", arguments, folder / "cache")
        sqnr_db = fidelity(work, path).sqnr_db
        rows.append(TaskRow(name, sqnr_db, score(work.name, path), path.stat().st_size))
    return rows


def show_tasks(found: Mapping[str, list[TaskRow]]) -> None:
    """Print a table for each model."""
    for name, rows in found.items():
        columns = ("", "SQNR dB", *(metric.name for metric in rows[0].metrics), "MB")
        lines = [
            (
                row.name,
                number(row.sqnr_db, 1),
                *(number(metric.value, metric.digits) for metric in row.metrics),
                number(row.file_bytes / 1e6, 1),
            )
            for row in rows
        ]
        show(f"{name}, weights of 8 and of 4 bits", columns, lines)


def main() -> int:
    """Read the command line, measure and print."""
    made = parser(__doc__)
    parts = ("kl", "speed", "seeds", "tasks")
    made.add_argument("parts", nargs="*", choices=[*parts, []], metavar="PART", default=[])
    options = made.parse_args()
    wanted = options.parts or parts
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="onnxq-weight-only-") as text:
        folder = Path(text)
        if "kl" in wanted or "speed" in wanted:
            work, texts = language(folder)
        if "kl" in wanted:
            figures["kl"] = []
            for everything in (False, True):
                for block in BLOCKS:
                    rows = divergence(work, texts, block, folder, everything=everything)
                    show_divergence(rows, block, everything=everything)
                    figures["kl"].append({"block": block, "everything": everything, "rows": rows})
        if "speed" in wanted:
            figures["speed"] = speed(work, texts, folder)
            show_speed(figures["speed"])
        if "seeds" in wanted:
            figures["seeds"] = seeds(folder)
            show_seeds(figures["seeds"])
        if "tasks" in wanted:
            works = [built(name, None, folder) for name in TASK_MODELS]
            figures["tasks"] = {work.name: at_task(work, folder) for work in works}
            show_tasks(figures["tasks"])
    write_json(options.json, "weight_only", figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
