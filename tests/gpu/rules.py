"""What a GPU says of lint's rules: ``python -m tests.gpu.rules -o FILE`` (results/rules).

Each rule of CUDA and TensorRT alone has two models (``tests/lint/cases.py``), one that breaks it
and one that does not. Both are placed and run on the provider: where the nodes ran and why, how
many copies, how far the outputs are from the CPU's, or why the model does not load or run. A rule
is ``told_apart`` where the provider treats the two differently, worse the one that breaks it; its
``verified`` in ``lint/rules.toml`` may then be set to this date. The others are about speed,
accuracy or documentation, which so small a model does not show. The file is written anew after
each rule.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx

from onnxq.data.made_up import made_up
from onnxq.errors import OnnxqError
from onnxq.graph.io import load
from onnxq.graph.structure import signature
from onnxq.lint import load_rules
from onnxq.runtime import providers
from onnxq.runtime.machine import versions
from onnxq.runtime.placement import placement
from onnxq.runtime.session import SessionSettings, open_session
from onnxq.scratch import Scratch
from tests.gpu.run import gpu, why_missing
from tests.lint.cases import CASES

_WRONG = 0.3
"""The share of the greatest output that rounding, of TF32 or to 8 bits, never takes."""


def seen(model: Path, provider: str) -> dict[str, Any]:
    """Where a model's nodes run, and what it gives there."""
    try:
        placed = placement(model, provider)
        sample = next(iter(made_up(signature(load(model)))))
        found = open_session(model, SessionSettings(provider=provider)).run(sample.feeds)
        as_written = SessionSettings(optimization="none")
        wanted = open_session(model, as_written).run(sample.feeds)
    except OnnxqError as error:
        return {"error": str(error)[:400]}
    pairs = [(a, b) for a, b in zip(found, wanted, strict=True) if a.shape == b.shape]
    differences = [float(np.abs(a.astype(np.float64) - b).max(initial=0)) for a, b in pairs]
    greatest = max((float(np.abs(b).max(initial=0)) for _, b in pairs), default=0.0)
    return {
        "by_provider": dict(placed.by_provider),
        "copies": placed.copies,
        "fallen_back": [asdict(node) for node in placed.fallen_back],
        "max_difference": max(differences, default=None),
        "wrong": max(differences, default=0.0) > _WRONG * greatest,
    }


def told_apart(broken: dict[str, Any], fine: dict[str, Any]) -> bool:
    """Whether the provider treats the model that breaks the rule worse."""
    if "error" in broken or "error" in fine:
        return "error" in broken and "error" not in fine
    if broken["wrong"] != fine["wrong"]:
        return bool(broken["wrong"])
    return (len(broken["fallen_back"]), broken["copies"]) > (
        len(fine["fallen_back"]),
        fine["copies"],
    )


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
def main(output: Path) -> None:
    """Look at every rule whose provider is here, and write one JSON file."""
    output.parent.mkdir(parents=True, exist_ok=True)
    wanted = [rule for rule in load_rules().values() if "cpu" not in rule.targets]
    targets = sorted({rule.targets[0] for rule in wanted})
    document: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "gpu": gpu(),
        "versions": {**versions(), "onnxruntime": providers.runtime_version()},
        "missing": {name: why for name in targets if (why := why_missing(name))},
        "rules": {},
    }
    for rule in wanted:
        target = rule.targets[0]
        if target in document["missing"]:
            continue
        with Scratch() as folder:
            models = {"broken": CASES[rule.id].broken, "fine": CASES[rule.id].fine}
            found = {}
            for name, model in models.items():
                onnx.save(model, folder / f"{name}.onnx")
                found[name] = seen(folder / f"{name}.onnx", target)
        told = told_apart(found["broken"], found["fine"])
        document["rules"][rule.id] = {"provider": target, "told_apart": told, **found}
        output.write_text(json.dumps(document, indent=1, default=str) + "\n", encoding="utf-8")
        click.echo(f"{rule.id}: {'told apart' if told else 'not told apart'}", err=True)
    output.write_text(json.dumps(document, indent=1, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
