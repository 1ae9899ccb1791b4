"""Measure plans against each other: accuracy on calibration samples, speed beside float."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from onnxq.algorithms.scheme_choice import Trial
from onnxq.data import limit
from onnxq.errors import ModelError
from onnxq.graph.io import file_bytes, save
from onnxq.passes.execute import execute
from onnxq.runtime.session import SessionSettings, open_session
from onnxq.runtime.timing import Contender, measure
from onnxq.scratch import Scratch
from onnxq.stages.with_past import timed_feeds
from onnxq.verify.fidelity import compare_outputs
from onnxq.verify.structure import level_for
from onnxq.verify.survival import check_survives

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from onnxq.data import DataSource
    from onnxq.plan import Plan
    from onnxq.stages.task import Task
    from onnxq.verify.fidelity import Fidelity

COMPARED_SAMPLES = 16
"""Calibration samples on which accuracy is compared."""

_FLOAT = "float"


def compete(task: Task, plans: Mapping[str, Plan], data: DataSource) -> tuple[Trial, ...]:
    """Write the model of each plan into a private folder and measure it; one may fail to run.

    Args:
        task: The model, and how results are timed; without timing speeds are left out.
        plans: The plans by name, which differ from ``float``.
        data: Samples that may be used for choosing.
    """
    prepared = task.prepared
    settings = SessionSettings(provider=prepared.provider, spinning=False)
    few = limit(data, COMPARED_SAMPLES, seed=prepared.recipe.seed)
    reference = open_session(prepared.source, settings)
    with Scratch() as folder:
        paths: dict[str, Path] = {}
        found: dict[str, Fidelity] = {}
        failed: dict[str, str] = {}
        for done, (name, plan) in enumerate(plans.items(), start=1):
            paths[name] = folder / f"{len(paths)}.onnx"
            model = execute(plan, prepared.model)
            save(model, paths[name])
            try:
                if prepared.provider == "cpu":
                    check_survives([(paths[name], model)])
                level = level_for(prepared.target.name, prepared.provider)
                result = open_session(paths[name], replace(settings, optimization=level))
                found[name] = compare_outputs(reference, result, few, independent=False)
            except ModelError as error:
                failed[name] = error.message
            task.report("compare schemes", done, len(plans))
        ratios = _ratios(task, {name: paths[name] for name in found}, few)
        return tuple(
            Trial(
                name=name,
                scheme=plan.scheme,
                sqnr_db=_sqnr_db(found.get(name)),
                agreement=found[name].top1_agreement if name in found else None,
                ratio=ratios.get(name),
                bytes=file_bytes(paths[name]),
                failed=failed.get(name, ""),
                folded=any(entry.folded for entry in plan.weights),
            )
            for name, plan in plans.items()
        )


def _sqnr_db(found: Fidelity | None) -> float | None:
    if found is None:
        return None
    return float("-inf") if found.not_finite else found.sqnr_db


def _ratios(task: Task, paths: Mapping[str, Path], data: DataSource) -> dict[str, float]:
    if task.timing is None or not paths:
        return {}
    # Enough to tell which is faster; the result itself is timed at length afterwards.
    brief = replace(task.timing, rounds=2, runs=10, warmup=3, seconds=0.2)
    provider = task.prepared.provider
    contenders = [Contender(_FLOAT, task.prepared.source, provider)]
    contenders += [Contender(name, path, provider) for name, path in paths.items()]
    feeds, _ = timed_feeds(data, task.prepared.source, provider)
    found = measure(
        contenders, feeds, brief, lambda done, total: task.report("time schemes", done, total)
    )
    return {name: found.ratio(_FLOAT, name).median for name in paths}
