"""The room's public function: lint a model, and repair what is safe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnxq.errors import UsageError
from onnxq.graph.external import external_files
from onnxq.graph.io import check_output, load
from onnxq.lint.examine import Skipped, examine
from onnxq.lint.repair import Fixed, repair
from onnxq.runtime.providers import SHORT

if TYPE_CHECKING:
    from onnxq.lint.finding import Finding
    from onnxq.verify.verification import Report

__all__ = ["Fixed", "LintResult", "Skipped", "lint"]

_NOTHING_HELPS = "nothing of what is wrong can be repaired"


@dataclass(frozen=True, slots=True)
class LintResult:
    """What ``lint`` found, and did.

    Attributes:
        model: The model's file.
        target: What it is to run on.
        findings: The broken rules, the worst first; after a repair those that are left.
        skipped: What was not checked, and why.
        fixed: What was repaired.
        output: The file that was written; None where no repair was asked for, or where none could
            be made and errors or warnings are left.
        sqnr_db: Of the repaired model's outputs on made-up inputs, against those of the model as it
            was; infinite where they are equal, None where they were not compared.
        why_not_compared: Why they were not; empty if they were, or nothing was written.
        why_not_written: Why a repair that was asked for wrote nothing; empty otherwise.
    """

    model: Path
    target: str
    findings: tuple[Finding, ...]
    skipped: tuple[Skipped, ...]
    fixed: tuple[Fixed, ...] = ()
    output: Path | None = None
    sqnr_db: float | None = None
    why_not_compared: str = ""
    why_not_written: str = ""

    @property
    def counting(self) -> tuple[Finding, ...]:
        """The errors and warnings; notes do not count."""
        return tuple(finding for finding in self.findings if finding.counts)


def _quiet(step: str, done: int, total: int) -> None:
    """Report nothing."""


def lint(
    model: str | Path,
    target: str = "cpu",
    *,
    fix_to: str | Path | None = None,
    report: Report = _quiet,
) -> LintResult:
    """Find what keeps a model from loading, fusing, being fast or being right on a target.

    Args:
        model: Any ONNX model, float or quantized.
        target: ``cpu``, ``cuda`` or ``tensorrt``.
        fix_to: Repair what is safe, and write the result to this file: a model that was loaded and
            compared with the one it was made from. Where nothing is wrong it is that model as it
            was; where something is and nothing can be repaired, nothing is written.
        report: Told of progress.

    Raises:
        ModelError: The model cannot be read.
        UsageError: There is no such target, or the result cannot be written there.
        BoundMissedError: A repair changes the outputs; nothing is written.
    """
    if target not in SHORT:
        code, text = "lint.target", f"there are no rules for a target called {target!r}"
        raise UsageError(code, text, remedy=f"targets: {', '.join(SHORT)}")
    source = Path(model)
    if fix_to is None:
        return LintResult(source, target, *examine(source, load(source), target, report))
    output = Path(fix_to)
    check_output(output, model=source)
    loaded = load(source)
    check_output(output, model=source, files=external_files(loaded))
    found = examine(source, loaded, target, report)
    done = repair(source, loaded, target, found, output, report)
    if done.agreed is None:
        return LintResult(source, target, done.left, done.skipped, why_not_written=_NOTHING_HELPS)
    return LintResult(
        model=source,
        target=target,
        findings=done.left,
        skipped=done.skipped,
        fixed=done.fixed,
        output=output,
        sqnr_db=done.agreed.sqnr_db,
        why_not_compared=done.agreed.why_none,
    )
