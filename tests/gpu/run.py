"""The GPU suite: ``python -m tests.gpu.run -o tests/gpu/results/NAME.json``.

Dev models × forms × execution providers: speed against float32 on the same provider, numbers
against float32 on the CPU, where each node ran and why, memory and energy of the GPU. Each model on
each provider is measured in a process of its own, and the file is written anew after each, so that
a crash or a time limit costs one entry.

Models that `make models` has not built, forms that cannot be made and providers that are not there
are entries with a reason. Without a GPU the CPU's column is measured alone (``--providers cpu``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from onnxq.errors import OnnxqError
from onnxq.runtime import providers
from onnxq.runtime.machine import inspect_machine, versions
from onnxq.runtime.probe import run_probe
from onnxq.scratch import Scratch
from tests.gpu.cases import CACHE, CASES, FORMS, ROOT, made

_ORDER = ("cuda", "tensorrt", "cpu")
"""What is scarce is measured first."""


def gpu() -> dict[str, str] | None:
    """Name, memory and driver of the first GPU; None without one."""
    fields = "name,memory.total,driver_version,compute_cap"
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    first = done.stdout.splitlines()[0].split(", ")
    return dict(zip(fields.split(","), first, strict=True))


def why_missing(provider: str) -> str:
    """Why a provider cannot be measured here; empty if it can."""
    try:
        full = providers.require(provider)
    except OnnxqError as error:
        return str(error)
    return providers.why_not_loaded(full)


def measured(
    case: str, provider: str, forms: dict[str, Path], rounds: int, limit: float
) -> dict[str, Any]:
    """What the process that measures one model on one provider answers."""
    spec = {
        "case": case,
        "provider": provider,
        "forms": {name: str(path) for name, path in forms.items()},
        "rounds": rounds,
    }
    with Scratch() as folder:
        path = folder / "spec.json"
        path.write_text(json.dumps(spec), encoding="utf-8")
        command = [sys.executable, "-m", "tests.gpu.measure", str(path)]
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=os.environ,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=limit,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {name: {"status": "failed", "reason": "out of time"} for name in forms}
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1][:400]
        return {name: {"status": "failed", "reason": last} for name in forms}
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def _names(_: click.Context, __: click.Parameter, value: str) -> list[str]:
    return [name.strip() for name in value.split(",") if name.strip()]


@click.command()
@click.option("--models", default=",".join(CASES), callback=_names, show_default=True)
@click.option("--forms", default=",".join(FORMS), callback=_names, show_default=True)
@click.option("--providers", "wanted", default="cpu,cuda,tensorrt", callback=_names)
@click.option("--rounds", default=3, show_default=True)
@click.option("--seconds", default=3600.0, help="Start nothing new after so long.")
@click.option("--probe/--no-probe", default=True, help="Also record what each provider fuses.")
@click.option("--work", type=click.Path(path_type=Path), default=CACHE / "gpu", help="For models.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
def main(
    models: list[str],
    forms: list[str],
    wanted: list[str],
    *,
    rounds: int,
    seconds: float,
    probe: bool,
    work: Path,
    output: Path,
) -> None:
    """Measure the matrix and write one JSON file."""
    start = time.monotonic()
    work.mkdir(parents=True, exist_ok=True)
    machine = inspect_machine()
    document: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "gpu": gpu(),
        "cpu": {"name": machine.cpu, "cores": machine.cores},
        "versions": {**versions(), "onnxruntime": providers.runtime_version()},
        "settings": {"rounds": rounds, "runs": 30, "threads": 2, "batch": 1},
        "missing": {name: why for name in wanted if (why := why_missing(name))},
        "forms": {},
        "results": [],
        "probe": {},
    }
    for name, why in document["missing"].items():
        click.echo(f"{name}: not measured: {why}", err=True)
    there = [name for name in _ORDER if name in wanted and name not in document["missing"]]
    deadline = start + seconds
    for model in models:
        paths = _forms(model, forms, work, document)
        for provider in there if paths else []:
            _measure(model, provider, paths, rounds, deadline, document)
            _write(document, output)
    _write(document, output)
    for provider in there:
        if probe and provider != "cpu" and time.monotonic() < deadline:
            document["probe"][provider] = _probed(provider)
            _write(document, output)


def _measure(
    model: str,
    provider: str,
    forms: dict[str, Path],
    rounds: int,
    deadline: float,
    document: dict[str, Any],
) -> None:
    """Measure one model on one provider and add an entry for each form."""
    began = time.monotonic()
    if began >= deadline:
        click.echo(f"{model} on {provider}: no time left", err=True)
        return
    found = measured(model, provider, forms, rounds, deadline - began)
    for form, entry in found.items():
        document["results"].append({"model": model, "form": form, "provider": provider, **entry})
    failed = [name for name, entry in found.items() if entry["status"] != "measured"]
    took = time.monotonic() - began
    click.echo(f"{model} on {provider}: {took:.0f} s; failed: {failed or 'none'}", err=True)


def _probed(provider: str) -> list[dict[str, Any]]:
    """What the provider makes of each form of the kernel probe."""
    return [
        {
            "form": each.form,
            "activation": each.activation,
            "integer": each.integer,
            "executed": list(each.executed_ops),
            "refused": each.refused,
        }
        for each in run_probe(provider)
    ]


def _forms(model: str, forms: list[str], work: Path, document: dict[str, Any]) -> dict[str, Path]:
    case = CASES[model]
    if not case.model.is_file():
        document["forms"][model] = {"reason": "it is not built: make models"}
        return {}
    made_of: dict[str, Path] = {}
    told = document["forms"].setdefault(model, {})
    for name in forms:
        began = time.monotonic()
        try:
            path = made(case, FORMS[name], work)
        except OnnxqError as error:
            told[name] = {"reason": str(error)[:400]}
            continue
        made_of[name] = path
        told[name] = {"bytes": path.stat().st_size, "seconds": round(time.monotonic() - began, 1)}
    click.echo(f"{model}: {', '.join(made_of)}", err=True)
    return made_of


def _write(document: dict[str, Any], output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
