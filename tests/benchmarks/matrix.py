"""Every model of models/ in every form on the CPU: table, JSON and report by one command each.

Each model is quantized as int8, int8-dynamic and int4 by ``onnxq quantize`` and compared with its
float form by ``onnxq compare --report``; both as command lines, as a user gives them. What compare
counts as integer kernels, reading the graph that ONNX Runtime optimized, is held against the
kernels that ran by ONNX Runtime's own profile of one run: the command fails where they differ.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import onnxruntime as ort

from models.build import CACHE
from onnxq.runtime.kernels import INTEGER_OPS, NBITS_OPS
from tests.benchmarks.common import (
    ROOT,
    Workload,
    built,
    number,
    parser,
    show,
    write_json,
)
from tests.benchmarks.fashion import DATA, MODEL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

SCHEMES: Final = ("int8", "int8-dynamic", "int4")
NAMES: Final = (
    "fashion_resnet",
    "minilm",
    "efficientnet_lite0",
    "magika",
    "ppocr_v6",
    "smollm2",
)
SAMPLES: Final = 32
COLUMNS: Final = (
    "form",
    "times float's speed",
    "SQNR",
    "same top-1",
    "accuracy",
    "perplexity",
    "MB",
    "integer kernels",
    "in blocks",
)


@dataclass(frozen=True, slots=True)
class Form:
    """One form of a model.

    Attributes:
        name: ``float``, or a scheme.
        run: What ``compare`` says of it.
        profiled: How often each counted operator ran in one run, by ONNX Runtime's profile.
        seconds: What quantizing took.
    """

    name: str
    run: Mapping[str, Any]
    profiled: Mapping[str, int]
    seconds: float

    @property
    def agrees(self) -> bool:
        """Whether what compare counted is what ran."""
        return dict(self.run["kernels"]["by_op"]) == dict(self.profiled)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One model.

    Attributes:
        forms: Its forms, float first.
        refused: Why a form could not be made, by scheme.
        report_bytes: The report's size.
        seconds: What comparing took, the report included.
    """

    forms: tuple[Form, ...]
    refused: Mapping[str, str]
    report_bytes: int
    seconds: float


def onnxq(*arguments: str | Path) -> dict[str, Any]:
    """The JSON that a command prints; its progress goes to this command's."""
    command = [sys.executable, "-m", "onnxq", *map(str, arguments), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT, check=False)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def profiled(model: Path, feeds: Mapping[str, np.ndarray], folder: Path) -> dict[str, int]:
    """How many nodes of each counted operator ran in one run, as ONNX Runtime profiles it."""
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    session.run(None, dict(feeds))
    profile = Path(session.end_profiling())
    events = json.loads(profile.read_text(encoding="utf-8"))
    profile.unlink()
    ran = {
        (event["name"], event["args"]["op_name"])
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    }
    counts = Counter(op for _, op in ran if op in INTEGER_OPS | NBITS_OPS)
    return dict(sorted(counts.items()))


def outcome(work: Workload, labels: Path | None, samples: int, folder: Path) -> Outcome:
    """Quantize one model in every scheme and compare all forms.

    Args:
        work: The model.
        labels: The right class of each evaluation sample.
        samples: How many samples to calibrate on.
        folder: Where models, JSON and the report are written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    models, refused, took = {"float": work.model}, {}, {"float": 0.0}
    given: list[str | Path] = ["--data", work.calibration, "--eval-data", work.evaluation]
    given += ["--samples", str(samples)]
    for scheme in SCHEMES:
        began, output = time.perf_counter(), folder / f"{work.name}.{scheme}.onnx"
        found = onnxq("quantize", work.model, "-o", output, "--scheme", scheme, *given)
        took[scheme] = time.perf_counter() - began
        if output.is_file():
            models[scheme] = output
        else:
            refused[scheme] = "; ".join(error["message"] for error in found["errors"])
    began, report = time.perf_counter(), folder / f"{work.name}.html"
    judged = () if labels is None else ("--labels", labels)
    data = ("--data", work.evaluation)
    document = onnxq("compare", *models.values(), *data, *judged, "--report", report)
    if document["errors"]:
        sys.exit("; ".join(error["message"] for error in document["errors"]))
    seconds = time.perf_counter() - began
    (folder / f"{work.name}.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    feeds = next(iter(work.evaluation_data())).feeds
    forms = tuple(
        Form(name, run, profiled(models[name], feeds, folder), took[name])
        for name, run in zip(models, document["runs"], strict=True)
    )
    return Outcome(forms, refused, report.stat().st_size, seconds)


def workload(name: str) -> tuple[Workload, Path | None]:
    """A model of ``models/`` and the labels of its evaluation samples, if they have any."""
    if name == MODEL.stem:
        return Workload(name, MODEL, DATA / "calibration.npy", DATA / "test.npy"), (
            DATA / "test_labels.npy"
        )
    labels = CACHE / name / "labels.npy"
    return built(name, None, CACHE), labels if labels.is_file() else None


def row(form: Form) -> tuple[str, ...]:
    """One form for people."""
    run = form.run
    latency, metrics, kernels = run["latency"], run["metrics"] or {}, run["kernels"]
    ratio = [latency[key] for key in ("ratio", "ratio_low", "ratio_high")]
    perplexity = (metrics.get("perplexity") or {}).get("quantized")
    differs = "" if form.agrees else f", profile: {dict(form.profiled)}"
    return (
        form.name,
        "1" if ratio[0] is None else "{:.2f} ({:.2f}-{:.2f})".format(*ratio),
        number(metrics.get("sqnr_db"), 1),
        number(metrics.get("top1_agreement"), 3),
        number(run["accuracy"], 4),
        number(perplexity, 2),
        number(run["size"]["bytes"] / 1e6, 1),
        f"{kernels['integer']}{differs}",
        str(kernels["nbits"]),
    )


def notes(found: Outcome) -> Sequence[str]:
    """What stands below a model's table."""
    minutes = ", ".join(f"{form.name} {form.seconds:.0f} s" for form in found.forms[1:])
    text = f"quantizing: {minutes}; comparing: {found.seconds:.0f} s; "
    refused = [f"{scheme}: {why}" for scheme, why in found.refused.items()]
    return [f"{text}report: {found.report_bytes / 1e6:.2f} MB", *refused]


def main() -> int:
    """Read the command line, run all and print the tables."""
    made = parser(__doc__)
    made.add_argument("names", nargs="*", metavar="NAME", default=list(NAMES))
    made.add_argument("--samples", type=int, default=SAMPLES, help="calibration samples")
    made.add_argument("-o", "--output", type=Path, metavar="DIR", help="keep models and reports")
    options = made.parse_args()
    outcomes = {}
    for name in options.names:
        work, labels = workload(name)
        with tempfile.TemporaryDirectory(prefix="onnxq-matrix-") as scratch:
            folder = options.output or Path(scratch)
            outcomes[name] = found = outcome(work, labels, options.samples, folder)
        show(name, COLUMNS, [row(form) for form in found.forms], notes(found))
    write_json(options.json, "matrix", {"models": outcomes})
    differing = [
        f"{name} {form.name}"
        for name, found in outcomes.items()
        for form in found.forms
        if not form.agrees
    ]
    if differing:
        print("counted otherwise than profiled: " + ", ".join(differing), file=sys.stderr)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
