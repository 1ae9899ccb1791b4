"""What the benchmarks share: models and samples, processes of their own, tables and JSON."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from models.build import CACHE
from onnxq.data import open_data
from onnxq.graph.io import load
from onnxq.graph.structure import signature
from onnxq.runtime.machine import inspect_machine, versions
from onnxq.runtime.session import SessionSettings, open_session
from onnxq.runtime.timing import Ratio, TimingSettings, measure
from onnxq.verify.fidelity import Fidelity, compare_outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from onnxq.data import DataSource
    from onnxq.runtime.timing import Contender, Timing

ROOT: Final = Path(__file__).parents[2]
THREADS: Final = 2

_PLAIN_WIDTH: Final = 240
_TIMED_SAMPLES: Final = 64

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Workload:
    """A float model, folders of ``.npz`` to calibrate and to evaluate on."""

    name: str
    model: Path
    calibration: Path
    evaluation: Path

    def evaluation_data(self) -> DataSource:
        """The evaluation samples."""
        return open_data(self.evaluation, signature(load(self.model)))


def fidelity(work: Workload, quantized: Path) -> Fidelity:
    """How close a quantized model's outputs are to float's on the evaluation samples.

    Raises:
        ModelError: It does not load or run.
    """
    settings = SessionSettings(spinning=False)
    return compare_outputs(
        open_session(work.model, settings),
        open_session(quantized, settings),
        work.evaluation_data(),
        independent=True,
    )


class FailedError(Exception):
    """A task ended without a result; the message is the reason in one line."""


def built(name: str, samples: int | None, folder: Path) -> Workload:
    """A model of ``models/`` with the first ``samples`` of its calibration samples, or all.

    Args:
        name: The model's folder in ``models/``.
        samples: How many calibration samples.
        folder: A private folder, to which a part of the samples is copied, so that all who
            calibrate see the same.

    Raises:
        SystemExit: The model is not built, or has no folders of samples.
    """
    cache = CACHE / name
    paths = (cache / "model.onnx", cache / "calibration", cache / "evaluation")
    for path in paths:
        if not path.exists():
            sys.exit(f"{path.relative_to(ROOT)} is missing: python -m models.build {name}")
    model, calibration, evaluation = paths
    if samples is not None:
        calibration = first_samples(calibration, samples, folder / name / "calibration")
    return Workload(name, model, calibration, evaluation)


def first_samples(source: Path, count: int, folder: Path) -> Path:
    """Copy the first ``count`` samples of ``source`` to ``folder`` and return it."""
    paths = sorted(source.glob("*.npz"))
    if len(paths) < count:
        sys.exit(f"{source} has {len(paths)} samples, {count} were asked for")
    folder.mkdir(parents=True)
    for path in paths[:count]:
        shutil.copy(path, folder)
    return folder


def write_samples(array: Path, name: str, count: int, folder: Path) -> Path:
    """Write the first ``count`` rows of a ``.npy`` as samples of the input ``name``."""
    folder.mkdir(parents=True)
    rows = np.load(array, mmap_mode="r")
    for index in range(count):
        np.savez(folder / f"{index:04d}.npz", **{name: rows[index : index + 1]})
    return folder


def in_own_process(
    task: str, arguments: Mapping[str, Any], cache: Path | None = None
) -> dict[str, Any]:
    """Run ``module:function`` of this folder in a fresh process, whatever it prints unseen.

    Args:
        task: The function, which takes and returns what JSON can hold.
        arguments: Its arguments by name.
        cache: Folder of onnxq's cached statistics, instead of the user's: an empty one is a cold
            start.

    Returns:
        What the function returns, and ``peak_rss_bytes``.

    Raises:
        FailedError: It raised an exception, or its process died.
    """
    environment = dict(os.environ)
    if cache is not None:
        environment["XDG_CACHE_HOME"] = str(cache)
    with tempfile.TemporaryDirectory(prefix="onnxq-benchmark-") as folder:
        spec, answer = Path(folder) / "spec.json", Path(folder) / "answer.json"
        texts = {"task": f"{__package__}.{task}", "arguments": arguments, "answer": str(answer)}
        spec.write_text(json.dumps(texts, default=str), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", f"{__package__}.worker", str(spec)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if not answer.is_file():
            raise FailedError(_died(done))
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in found:
        raise FailedError(found["error"])
    return found


def _died(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        reason = signal.strsignal(-done.returncode) or f"signal {-done.returncode}"
        return f"its process was ended: {reason}"
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    return f"its process failed with status {done.returncode}: {last}"


def spread(values: Sequence[float]) -> Ratio:
    """Median, least and greatest."""
    return Ratio(statistics.median(values), min(values), max(values))


def times(ratio: Ratio | None, digits: int = 2) -> str:
    """A ratio for people: its median and its spread."""
    if ratio is None:
        return "-"
    low, high = f"{ratio.low:.{digits}f}", f"{ratio.high:.{digits}f}"
    return f"{ratio.median:.{digits}f} ({low} to {high})"


def number(value: float | None, digits: int = 2) -> str:
    """A number for people, a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def megabytes(value: float | None) -> str:
    """Bytes for people, in MB of 10^6 bytes."""
    return "-" if value is None else f"{value / 1e6:.0f}"


def show(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
) -> None:
    """Print a table and notes below it; a Markdown table where the output is no terminal."""
    console = Console()
    plain = not console.is_terminal
    if plain:
        console = Console(width=_PLAIN_WIDTH, color_system=None)
    table = Table(box=box.MARKDOWN if plain else box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    console.print(title, markup=False, highlight=False)
    with console.capture() as captured:
        console.print(table)
    # Rich puts an empty line of spaces around a Markdown table.
    console.out(captured.get().strip() if plain else captured.get(), highlight=False)
    for note in notes:
        console.print(note, markup=False, highlight=False)


def parser(document: str | None) -> argparse.ArgumentParser:
    """A command line with the module's docstring as its help, and ``--json``."""
    text = (document or "").strip()
    made = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    return made


def timed(work: Workload, contenders: Sequence[Contender], settings: TimingSettings) -> Timing:
    """The contenders timed against each other on the evaluation samples."""
    feeds = [sample.feeds for sample in islice(work.evaluation_data(), _TIMED_SAMPLES)]
    return measure(contenders, feeds, settings)


def timing_tables(
    benchmark: str,
    document: str | None,
    compare: Callable[[Workload, TimingSettings, Path], Sequence[_Result]],
    columns: Sequence[str],
    row: Callable[[_Result], Sequence[str]],
    *,
    names: Sequence[str],
    samples: int,
) -> None:
    """Read the command line, compare what becomes of models of ``models/``, print a table of each.

    Args:
        benchmark: The benchmark's name.
        document: The command's help.
        compare: Writes models into a folder and times them.
        columns: The columns.
        row: One result for people.
        names: The models, where none is named.
        samples: How many calibration samples, where nothing else is said.
    """
    made = parser(document)
    made.add_argument("names", nargs="*", metavar="NAME", default=list(names))
    text = f"calibration samples; default: {samples}"
    made.add_argument("--samples", type=int, metavar="N", default=samples, help=text)
    made.add_argument("--rounds", type=int, metavar="N", default=5, help="default: 5")
    options = made.parse_args()
    timing = TimingSettings(rounds=options.rounds, threads=THREADS)
    found = {}
    for name in options.names:
        with tempfile.TemporaryDirectory(prefix=f"onnxq-{benchmark}-") as folder:
            work = built(name, options.samples, Path(folder))
            found[name] = compare(work, timing, Path(folder))
        show(name, columns, [row(result) for result in found[name]])
    write_json(options.json, benchmark, {"timing": timing, "models": found})


def write_json(path: Path | None, benchmark: str, figures: Mapping[str, Any]) -> None:
    """Write the figures with the machine and the versions they were taken on, if asked for."""
    if path is None:
        return
    machine = {**asdict(inspect_machine())}
    machine["isa"] = sorted(machine["isa"])
    document = {
        "schema_version": 1,
        "benchmark": benchmark,
        "machine": machine,
        "versions": dict(versions()),
        **figures,
    }
    path.write_text(json.dumps(document, indent=1, default=_plain) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else asdict(value)
