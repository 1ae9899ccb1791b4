"""The room's public function: lint a model, and repair what is safe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnxq.errors import BoundMissedError, InternalError, UsageError
from onnxq.graph.edit import clone
from onnxq.graph.external import external_files
from onnxq.graph.io import check_output, load, publish, save, staging
from onnxq.graph.native import NativeError, check_file
from onnxq.graph.structure import signature
from onnxq.lint import fixes
from onnxq.lint.agreement import AS_WRITTEN, Form, agreement
from onnxq.lint.examine import Skipped, examine
from onnxq.runtime.providers import SHORT

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxq.lint.finding import Finding
    from onnxq.verify.verification import Report

__all__ = ["Fixed", "LintResult", "Skipped", "lint"]

_LEAST_SQNR_DB = 20
"""What a repaired model must keep to: removing a pair removes its rounding, no more."""

_SAMPLES = 4

_LOADS = "does-not-load"

_FIRST = "unnamed-node"
"""Names come first: other fixes find nodes by them."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """What was repaired.

    Attributes:
        rule: The rule.
        nodes: The nodes; empty where it is a matter of the whole model.
    """

    rule: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LintResult:
    """What ``lint`` found, and did.

    Attributes:
        model: The model's file.
        target: What it is to run on.
        findings: The broken rules, the worst first; after a repair those that are left.
        skipped: What was not checked, and why.
        fixed: What was repaired.
        output: The file that was written; None without a repair.
        sqnr_db: Of the repaired model's outputs on made-up inputs, against those of the model as it
            was; infinite where they are equal, None where they were not compared.
        why_not_compared: Why they were not; empty if they were, or nothing was repaired.
    """

    model: Path
    target: str
    findings: tuple[Finding, ...]
    skipped: tuple[Skipped, ...]
    fixed: tuple[Fixed, ...] = ()
    output: Path | None = None
    sqnr_db: float | None = None
    why_not_compared: str = ""

    @property
    def counting(self) -> tuple[Finding, ...]:
        """The errors and warnings; notes do not count."""
        return tuple(finding for finding in self.findings if finding.severity != "note")


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
        fix_to: Repair what is safe, and write the result to this file. It is replaced only by a
            model that was loaded and compared with the one it was made from.
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
    found, _ = examine(source, loaded, target, report)
    return _repair(source, loaded, target, found, output, report)


def _repair(
    source: Path,
    loaded: ir.Model,
    target: str,
    found: tuple[Finding, ...],
    output: Path,
    report: Report,
) -> LintResult:
    repaired = clone(loaded)
    fixed = tuple(_apply(repaired, found))
    with staging(output) as staged:
        save(repaired, staged)
        _check_valid(staged, source)
        before, after = Form(source, AS_WRITTEN), Form(staged, AS_WRITTEN)
        agreed = agreement(before, after, signature(loaded), _SAMPLES)
        if agreed.sqnr_db is not None and agreed.sqnr_db < _LEAST_SQNR_DB:
            text = f"repaired, its outputs agree to {agreed.sqnr_db:.1f} dB alone"
            code, remedy = "lint.fix_changes", "repair by hand; nothing was written"
            raise BoundMissedError(code, text, where=str(source), remedy=remedy)
        left, skipped = examine(staged, load(staged), target, report)
        if _LOADS in _rules(left) - _rules(found):
            code, text = "lint.fix_breaks", "repaired, the model no longer loads"
            raise InternalError(code, text, where=str(source))
        publish(staged, output)
    return LintResult(source, target, left, skipped, fixed, output, agreed.sqnr_db, agreed.why_none)


def _check_valid(staged: Path, source: Path) -> None:
    """Refuse a result that breaks the specification, unless the model did so before."""
    try:
        check_file(staged)
    except NativeError as error:
        try:
            check_file(source)
        except NativeError:
            return
        code, text = "lint.fix_invalid", f"repaired, it is no valid ONNX model: {str(error)[:200]}"
        raise InternalError(code, text, where=str(source)) from error


def _rules(found: tuple[Finding, ...]) -> set[str]:
    return {finding.rule for finding in found}


def _apply(model: ir.Model, found: tuple[Finding, ...]) -> list[Fixed]:
    """Repair in place, rule by rule."""
    by_rule: dict[str, list[str]] = {}
    for finding in found:
        if finding.fixable:
            by_rule.setdefault(finding.rule, []).append(finding.node)
    fixes.registered()[_FIRST](model, frozenset())
    for rule, nodes in by_rule.items():
        fixes.registered()[rule](model, frozenset(nodes))
    return [Fixed(rule, tuple(filter(None, nodes))) for rule, nodes in by_rule.items()]
