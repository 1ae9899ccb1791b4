"""What a plan is made for, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxq.algorithms.build_plan import assemble
from onnxq.algorithms.keep_apart import find_kept_apart

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxq.algorithms.build_plan import PlanLabels
    from onnxq.algorithms.scheme_choice import Trial
    from onnxq.algorithms.selection import Selection
    from onnxq.data import DataSource
    from onnxq.plan import Decision, Plan
    from onnxq.runtime.timing import TimingSettings
    from onnxq.stages.calibrate import CalibrationRun
    from onnxq.stages.prepare import Prepared
    from onnxq.verify.verification import Report


@dataclass(frozen=True, slots=True)
class Task:
    """What a plan is made for.

    Attributes:
        prepared: The model, its types known as far as data tells.
        data: Calibration samples; None where there is no data.
        samples: What results are compared on before one is chosen: the calibration samples, or
            made-up ones; None where the model cannot be run.
        macs: Multiply-accumulates of each site in a real run, by name.
        independent: Whether data was kept from calibration.
        min_sqnr: Least SQNR in decibels that the user asks for.
        timing: How results are timed; None leaves speed out.
        report: Told of progress.
    """

    prepared: Prepared
    data: DataSource | None
    samples: DataSource | None
    macs: Mapping[str, int]
    independent: bool
    min_sqnr: float | None
    timing: TimingSettings | None
    report: Report

    def labels(self, scheme: str) -> PlanLabels:
        """What a plan of this scheme says of itself."""
        return self.prepared.labels(scheme, independent=self.independent)


@dataclass(frozen=True, slots=True)
class Decided:
    """A plan, and how it came about.

    Attributes:
        plan: What was decided; of scheme ``float`` where nothing is quantized.
        selection: What is quantized, and why the rest is not.
        run: How calibration went; None where nothing was calibrated.
        worst: The sites that cost most accuracy, as far as that is known.
        reason: Why this scheme, in a sentence.
        trials: What was measured for the choice.
    """

    plan: Plan
    selection: Selection
    run: CalibrationRun | None = None
    worst: tuple[str, ...] = ()
    reason: str = "asked for"
    trials: tuple[Trial, ...] = ()


def decided(
    task: Task,
    prepared: Prepared,
    selection: Selection,
    scheme: Decision,
    fields: Mapping[str, Any],
) -> Decided:
    """A plan of these fields; where nothing is selected, one that leaves the model float.

    Args:
        task: What the plan is made for.
        prepared: The model as the plan's algorithms saw it.
        selection: What is quantized.
        scheme: The scheme of what is quantized.
        fields: The entries of the plan and ``arrays``.
    """
    if not selection.chosen:
        return Decided(assemble(task.labels("float"), selection, scheme, {}), selection)
    apart = find_kept_apart(prepared.model, selection, prepared.target)
    everything = {"kept_apart": apart, **fields}
    return Decided(assemble(task.labels(scheme), selection, scheme, everything), selection)
