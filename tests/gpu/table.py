"""Print the README's table of the GPU from ``results/*.json``: ``python -m tests.gpu.table``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import click

RESULTS: Final = Path(__file__).parent / "results"


_HEADERS: Final = (
    "model, on",
    "form",
    "SQNR to float32 on the CPU",
    "one at a time: ms, times float32's speed",
    "in a batch: ms, times float32's speed",
    "batch, joules a run",
    "GPU memory",
    "nodes on the CPU",
)


def rows(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """Every measured entry of the result files, with its machine, versions and date."""
    found = []
    for path in sorted(folder.glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        about = {key: document[key] for key in ("date", "gpu", "versions", "settings")}
        found += [
            {**about, **entry} for entry in document["results"] if entry["status"] == "measured"
        ]
    return found


def _ratio(values: list[float | None]) -> str:
    median, low, high = values
    if median is None or low is None or high is None:
        return "1"
    return f"{median:.2f} ({low:.2f}–{high:.2f})" if low < high else f"{median:.2f}"


def markdown(entries: list[dict[str, Any]]) -> str:
    """The table, a line for each entry on a GPU."""
    lines = [f"| {' | '.join(_HEADERS)} |", f"|{'---|' * len(_HEADERS)}"]
    for entry in entries:
        if entry["provider"] == "cpu":
            continue
        latency, placed, batch = entry["latency"], entry["placement"], entry.get("batch") or {}
        ratio = _ratio([latency[key] for key in ("ratio", "ratio_low", "ratio_high")])
        batched = ""
        if "ratio" in batch:
            batched = f"{batch['median_ms']:.2f}, {_ratio(batch['ratio'])}"
        joules = "" if batch.get("joules") is None else f"{batch['joules']:.2f}"
        memory = latency["device_bytes"]
        lines.append(
            f"| {entry['model']}, {entry['provider']} | {entry['form']} | "
            f"{entry['metrics']['sqnr_db']:.1f} dB | {latency['median_ms']:.2f}, {ratio} | "
            f"{batched} | {joules} | {'' if memory is None else f'{memory / 1e6:.0f} MB'} | "
            f"{placed['fallen_back']} of {sum(placed['by_provider'].values())} |"
        )
    return "\n".join(lines)


@click.command()
def main() -> None:
    """Print what was measured, and on what."""
    entries = rows()
    for about in {
        f"{e['gpu'] and e['gpu']['name']}, driver {e['gpu'] and e['gpu']['driver_version']}, "
        f"ONNX Runtime {e['versions']['onnxruntime']}, {e['date']}"
        for e in entries
    }:
        click.echo(about)
    click.echo(markdown(entries))


if __name__ == "__main__":
    main()
