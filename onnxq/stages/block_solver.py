"""Solve every group of weights in blocks: stream what chunks of them need, quantize, keep, go on.

What is held at a time: the Gram matrices of one chunk, what was found so far (scales, and packed
integers where an algorithm chose them), one weight and a few matrices of its size.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from onnxq.algorithms.block_group import solve_group
from onnxq.algorithms.block_order import chunks, chunks_in_sequence
from onnxq.algorithms.guard import LEAST_SITE_DB, why_ruined
from onnxq.calibration.cache import load_cached, store
from onnxq.calibration.collect import collect
from onnxq.calibration.requests import Moments
from onnxq.calibration.stats import SiteError, Stats
from onnxq.numerics.metrics import sqnr_db
from onnxq.stages.block_prefix import Prefix
from onnxq.stages.checkpoints import Checkpoints, described

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnxq.algorithms.block_candidates import BlockResult
    from onnxq.algorithms.block_group import GroupResult
    from onnxq.algorithms.block_plan import BlockGroup, BlockPlanner
    from onnxq.data import DataSource
    from onnxq.numerics.blockwise import Matrix
    from onnxq.stages.task import Task

HELD_OUT: Final = "held-out: "
"""How statistics call errors on held-out tokens: this, the algorithm, the integers, the block, and
``sequential`` where they were measured behind the quantized prefix."""

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
        errors: Of each site that was quantized on statistics what is known of its errors.
        labels: How its error under what was chosen is called there.
        checkpoints: What another run could go on from; None without data.
        too_few: The groups of which fewer tokens were seen than they have input channels, with how
            many: they are quantized by their weights alone, because anything would fit so few.
    """

    groups: Mapping[BlockGroup, GroupResult]
    weights: Mapping[str, BlockResult]
    ruined: Mapping[str, float]
    reused: bool
    errors: Mapping[str, SiteError]
    labels: Mapping[str, str]
    checkpoints: Checkpoints | None
    too_few: Mapping[BlockGroup, int]

    @property
    def summary(self) -> str:
        """How often each algorithm was best, for people."""
        counts = Counter(result.label.split(",")[0] for result in self.weights.values())
        return ", ".join(f"{label} ({count})" for label, count in sorted(counts.items()))

    def forget(self) -> None:
        """Leave nothing to go on from: the run is complete."""
        if self.checkpoints is not None:
            self.checkpoints.clear()


_NOTHING: Final = Solved(
    groups={},
    weights={},
    ruined={},
    reused=True,
    errors={},
    labels={},
    checkpoints=None,
    too_few={},
)


def solve(task: Task, planner: BlockPlanner) -> Solved:
    """Quantize every group of a planner; those with an activation on the data, if there is any."""
    alone = {group: planner.by_weight_alone(group) for group in planner.groups if not group.tensor}
    solved = _NOTHING if task.data is None else _Solver(task, task.data, planner, alone).run()
    weights: dict[str, BlockResult] = {}
    for result in solved.groups.values():
        weights |= {n: w for n, w in result.weights.items() if n not in weights}
    for group in planner.groups:
        ruined = any(site.name in solved.ruined for site in group.sites)
        if group not in solved.groups and not ruined:
            results = alone[group] if group in alone else planner.by_weight_alone(group)
            weights |= {n: w for n, w in results.items() if n not in weights}
    return replace(solved, weights=weights)


def why_left(sqnr: float, bits: int) -> str:
    """Why a site that keeps so many decibels stays float; NaN if none were measured."""
    if math.isnan(sqnr):
        return (
            "NaN, infinite or huge values were seen in what it reads, so that its error is unknown"
        )
    return why_ruined(sqnr, LEAST_DB[bits])


class _Solver:
    """Quantizes the groups of a planner on data."""

    def __init__(
        self,
        task: Task,
        data: DataSource,
        planner: BlockPlanner,
        alone: Mapping[BlockGroup, Mapping[str, BlockResult]],
    ) -> None:
        self._task, self._data, self._planner = task, data, planner
        recipe = task.prepared.recipe
        self._budget = recipe.calibration.memory_budget
        self._found: dict[BlockGroup, GroupResult] = {}
        self._ruined: dict[str, float] = {}
        groups = [group for group in planner.groups if group.tensor]
        self._chunks = [groups]
        self._prefix: Prefix | None = None
        self._first: list[BlockGroup] = []
        if recipe.weights.sequential:
            self._chunks = chunks_in_sequence(planner.model, groups, self._budget)
            self._prefix = Prefix(planner)
            observed = {site.weight for group in groups for site in group.sites}
            for group, results in alone.items():
                if not any(site.weight in observed for site in group.sites):
                    self._go_on_behind(group, results, None)
                    self._first.append(group)
        digest, data_digest = task.prepared.digest, data.digest()
        self.checkpoints = Checkpoints(digest, data_digest, self._before())
        self._known = load_cached(digest, data_digest)
        self.collected = False
        self.too_few: dict[BlockGroup, int] = {}
        self.errors: dict[str, SiteError] = {}
        self.labels: dict[str, str] = {}

    def run(self) -> Solved:
        """What was found for each group, and the sites that would be ruined; no weight by name.

        Groups that no token reached, or fewer than they have channels, are not found: they are
        quantized by their weights alone.
        """
        for chunk in self._chunks:
            for group in chunk:
                result = self.checkpoints.load(group, self._planner.specs)
                if result is not None:
                    self._found[group] = result
            self._report()
            missing = [group for group in chunk if group not in self._found]
            for part in chunks(missing, self._budget):
                self._solve(part)
            self._judge(chunk)
        store(self._known)
        # Of a weight in two groups the first result counts, wherever a run went on.
        order = [group for chunk in self._chunks for group in chunk if group in self._found]
        return Solved(
            groups={group: self._found[group] for group in order},
            weights={},
            ruined=self._ruined,
            reused=not self.collected,
            errors=self.errors,
            labels=self.labels,
            checkpoints=self.checkpoints,
            too_few=self.too_few,
        )

    def _solve(self, part: Sequence[BlockGroup]) -> None:
        """Observe the activations of some groups in one pass, and quantize the groups."""
        stats = self._collected(part)
        for group in part:
            moments = stats.tensors[group.tensor].moments.pop(group.window, None)
            if moments is None or not (moments.tokens or moments.left_out):
                continue
            if moments.left_out:
                self._ruined |= dict.fromkeys((site.name for site in group.sites), math.nan)
                continue
            if moments.tokens < group.length:
                self.too_few[group] = moments.tokens
                continue
            result = solve_group(self._planner.task(group), moments)
            self._found[group] = result
            self.checkpoints.save(group, self._planner.specs, result)
            self._report()

    def _judge(self, chunk: Sequence[BlockGroup]) -> None:
        """Find what would be ruined; what is behind is observed behind the rest, if it shall."""
        for group in chunk:
            result = self._found.get(group)
            if result is not None:
                self._ruined |= self._judged(group, result)
                self._go_on_behind(group, result.weights, result.factor)

    def _go_on_behind(
        self, group: BlockGroup, weights: Mapping[str, BlockResult], factor: Matrix | None
    ) -> None:
        if self._prefix is None:
            return
        for site in group.sites:
            if site.name not in self._ruined:
                self._prefix.put(site, weights[site.weight or ""], factor)

    def _before(self) -> str:
        """What is done to the model before the last group is observed; empty for nothing."""
        if self._prefix is None:
            return ""
        specs = self._planner.specs
        parts = (self._first, *self._chunks)
        return "\n".join("\0\0".join(described(g, specs) for g in part) for part in parts)

    def _collected(self, chunk: Sequence[BlockGroup]) -> Stats:
        self.collected = True
        requests = [Moments(group.tensor, group.window) for group in chunk]
        return collect(
            self._planner.model if self._prefix is None else self._prefix.model,
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
            kept = self.errors[site.name] = self._known.sites.setdefault(site.name, SiteError())
            where = f"block {spec.block_size}{'' if self._prefix is None else ', sequential'}"
            # Relative to the signal on the same tokens: other candidates were measured on others.
            scale = kept.signal / signal if signal > 0 and kept.signal > 0 else 1.0
            kept.signal = kept.signal or signal
            kept.noise |= {f"{HELD_OUT}{n}, {where}": e * scale for n, e in noises.items()}
            best = result.weights[name].label
            self.labels[site.name] = f"{HELD_OUT}{best}, {where}"
            sqnr = sqnr_db(signal, noises[best])
            if not sqnr >= LEAST_DB[spec.bits]:
                ruined[site.name] = sqnr
        return ruined

    def _report(self) -> None:
        total = sum(len(chunk) for chunk in self._chunks)
        self._task.report("quantize weights", len(self._found), total)
