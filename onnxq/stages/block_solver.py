"""Solve every group of weights in blocks: stream what chunks of them need, quantize, keep, go on.

What is held at a time: the Gram matrices of one chunk, what was found so far (scales, and packed
integers where an algorithm chose them), one weight and a few matrices of its size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from onnxq.algorithms.block_group import solve_group
from onnxq.algorithms.guard import LEAST_SITE_DB
from onnxq.calibration.cache import load_cached, store
from onnxq.calibration.collect import collect
from onnxq.calibration.requests import Moments
from onnxq.calibration.stats import SiteError, Stats
from onnxq.numerics.metrics import sqnr_db
from onnxq.stages.checkpoints import Checkpoints

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from onnxq.algorithms.block_candidates import BlockResult
    from onnxq.algorithms.block_group import GroupResult
    from onnxq.algorithms.block_plan import BlockGroup, BlockPlanner
    from onnxq.data import DataSource
    from onnxq.stages.task import Task

LEAST_DB: Final = {2: 0.0, 4: 0.0, 8: LEAST_SITE_DB}
"""A site that keeps less than this stays float. Few bits keep little in single products of models
that are usable all the same; below 0 dB the weight is better left out."""


@dataclass(frozen=True, slots=True)
class Solved:
    """What became of every group.

    Attributes:
        groups: Of each group that was quantized on statistics.
        weights: Of each weight, by name.
        ruined: SQNR in decibels of the sites that quantizing would ruin.
        reused: Whether everything was known from an interrupted run.
        summary: What was chosen, for people.
    """

    groups: Mapping[BlockGroup, GroupResult]
    weights: Mapping[str, BlockResult]
    ruined: Mapping[str, float]
    reused: bool
    summary: str


def solve(task: Task, planner: BlockPlanner) -> Solved:
    """Quantize every group of a planner; those with an activation on the data, if there is any."""
    weights: dict[str, BlockResult] = {}
    found: dict[BlockGroup, GroupResult] = {}
    ruined: dict[str, float] = {}
    reused = True
    if task.data is not None:
        solver = _Solver(task, task.data, planner)
        found, ruined = solver.run()
        reused = not solver.collected
        for result in found.values():
            weights |= {n: w for n, w in result.weights.items() if n not in weights}
    for group in planner.groups:
        if group not in found and not any(site.name in ruined for site in group.sites):
            alone = planner.by_weight_alone(group)
            weights |= {n: w for n, w in alone.items() if n not in weights}
    return Solved(found, weights, ruined, reused, _summary(weights))


def forget(model_digest: str, data: DataSource) -> None:
    """Leave nothing of a run that is complete for another to go on from."""
    Checkpoints(model_digest, data.digest()).clear()


class _Solver:
    """Quantizes the groups of a planner on data."""

    def __init__(self, task: Task, data: DataSource, planner: BlockPlanner) -> None:
        self._task, self._data, self._planner = task, data, planner
        self._budget = task.prepared.recipe.calibration.memory_budget
        digest, data_digest = task.prepared.digest, data.digest()
        self._checkpoints = Checkpoints(digest, data_digest)
        self._known = load_cached(digest, data_digest)
        self.collected = False

    def run(self) -> tuple[dict[BlockGroup, GroupResult], dict[str, float]]:
        """What was found for each group, and the sites that would be ruined.

        Groups that no token reached are not found: their weights are all that is known of them.
        """
        groups = [group for group in self._planner.groups if group.tensor]
        found: dict[BlockGroup, GroupResult] = {}
        ruined: dict[str, float] = {}
        for group in groups:
            result = self._checkpoints.load(group, self._planner.specs)
            if result is not None:
                found[group] = result
        self._report(len(found), len(groups))
        for chunk in self._chunks([group for group in groups if group not in found]):
            stats = self._collected(chunk)
            for group in chunk:
                moments = stats.tensors.pop(group.tensor).moments
                if moments is None or not (moments.tokens or moments.left_out):
                    continue
                if moments.left_out:
                    ruined |= dict.fromkeys((site.name for site in group.sites), math.nan)
                    continue
                found[group] = solve_group(self._planner.task(group), moments)
                self._checkpoints.save(group, self._planner.specs, found[group])
                self._report(len(found), len(groups))
        for group, result in found.items():
            ruined |= self._judged(group, result)
        store(self._known)
        return found, ruined

    def _chunks(self, groups: Sequence[BlockGroup]) -> Iterator[list[BlockGroup]]:
        """Groups whose statistics fit into the budget together; one at least."""
        chunk: list[BlockGroup] = []
        room = self._budget
        for group in groups:
            if chunk and group.moment_bytes > room:
                yield chunk
                chunk, room = [], self._budget
            chunk.append(group)
            room -= group.moment_bytes
        if chunk:
            yield chunk

    def _collected(self, chunk: Sequence[BlockGroup]) -> Stats:
        self.collected = True
        requests = [Moments(group.tensor) for group in chunk]
        return collect(
            self._task.prepared.model,
            requests,
            self._data,
            Stats(self._known.model_digest, self._known.data_digest),
            budget=self._budget,
            progress=lambda done, total: self._task.report("observe activations", done, total),
        )

    def _judged(self, group: BlockGroup, result: GroupResult) -> dict[str, float]:
        """Keep each site's errors among the statistics; those that would be ruined."""
        ruined = {}
        for site in group.sites:
            name, spec = site.weight or "", self._planner.specs[site.name]
            signal, noises = result.signals[name], result.noises[name]
            kept = self._known.sites.setdefault(site.name, SiteError())
            labels = {held_out_label(label, spec.block_size): e for label, e in noises.items()}
            # Relative to the signal on the same tokens: other candidates were measured on others.
            scale = kept.signal / signal if signal > 0 and kept.signal > 0 else 1.0
            kept.signal = kept.signal or signal
            kept.noise |= {label: error * scale for label, error in labels.items()}
            sqnr = sqnr_db(signal, noises[result.weights[name].label])
            if not sqnr >= LEAST_DB[spec.bits]:
                ruined[site.name] = sqnr
        return ruined

    def _report(self, done: int, total: int) -> None:
        self._task.report("quantize weights", done, total)


def held_out_label(label: str, block_size: int) -> str:
    """How statistics name an error on held-out tokens."""
    return f"held-out: {label}, block {block_size}"


def _summary(weights: Mapping[str, BlockResult]) -> str:
    """How often each algorithm was best."""
    counts: dict[str, int] = {}
    for result in weights.values():
        label = result.label.split(",")[0]
        counts[label] = counts.get(label, 0) + 1
    return ", ".join(f"{label} ({count})" for label, count in sorted(counts.items()))
