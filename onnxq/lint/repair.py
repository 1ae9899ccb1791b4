"""Repairs what is safe, until nothing more is found that can be, and proves that it is the same.

As ``ruff check --fix`` does, one repair may bring another to light: rounds end where nothing can be
repaired, or where a round changes nothing of what is found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from onnxq.errors import BoundMissedError, InternalError
from onnxq.graph.edit import clone
from onnxq.graph.io import load, publish, save, staging
from onnxq.graph.native import NativeError, check_file
from onnxq.graph.structure import signature
from onnxq.lint import fixes
from onnxq.lint.agreement import AS_WRITTEN, Form, agreement
from onnxq.lint.examine import examine

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import onnx_ir as ir

    from onnxq.lint.agreement import Agreement
    from onnxq.lint.examine import Skipped
    from onnxq.lint.finding import Finding
    from onnxq.verify.verification import Report

_LEAST_SQNR_DB: Final = 20
"""What a repaired model must keep to: removing a pair removes its rounding, no more."""

_SAMPLES: Final = 4
_ROUNDS: Final = 10
_LOADS: Final = "does-not-load"

_FIRST: Final = "unnamed-node"
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
class Repaired:
    """What came of a repair.

    Attributes:
        left: What is found afterwards.
        skipped: What was not checked then.
        fixed: What was repaired, and is found no more.
        agreed: How close its outputs are to the model's; None if nothing was written.
    """

    left: tuple[Finding, ...]
    skipped: tuple[Skipped, ...]
    fixed: tuple[Fixed, ...]
    agreed: Agreement | None


def repair(
    source: Path,
    loaded: ir.Model,
    target: str,
    found: tuple[tuple[Finding, ...], tuple[Skipped, ...]],
    output: Path,
    report: Report,
) -> Repaired:
    """Repair a model, and write it unless it is as bad as it was.

    Args:
        source: The model's file.
        loaded: The same; left as it is.
        target: What it is to run on.
        found: What was found, and what was not checked.
        output: The file to write.
        report: Told of progress.

    Raises:
        BoundMissedError: A repair changes the outputs; nothing is written.
    """
    before, _ = found
    repaired = clone(loaded)
    with staging(output) as staged:
        save(repaired, staged)
        left, skipped = found
        for _ in range(_ROUNDS):
            if not _apply(repaired, left):
                break
            save(repaired, staged)
            _check_valid(staged, source)
            known, (left, skipped) = left, examine(staged, load(staged), target, report)
            if _places(left) == _places(known):
                break
        fixed = _fixed(before, left)
        if not fixed and any(finding.counts for finding in left):
            return Repaired(left, skipped, (), None)
        agreed = _agreement(source, loaded, staged)
        if _LOADS in _rules(left) - _rules(before):
            code, text = "lint.fix_breaks", "repaired, the model no longer loads"
            raise InternalError(code, text, where=str(source))
        publish(staged, output)
    return Repaired(left, skipped, fixed, agreed)


def _apply(model: ir.Model, found: Sequence[Finding]) -> bool:
    """Repair in place, rule by rule; False if nothing can be."""
    by_rule: dict[str, list[str]] = {}
    for finding in found:
        if finding.fixable:
            by_rule.setdefault(finding.rule, []).append(finding.node)
    if not by_rule:
        return False
    fixes.registered()[_FIRST](model, frozenset())
    for rule, nodes in by_rule.items():
        fixes.registered()[rule](model, frozenset(nodes))
    return True


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


def _agreement(source: Path, loaded: ir.Model, staged: Path) -> Agreement:
    before, after = Form(source, AS_WRITTEN), Form(staged, AS_WRITTEN)
    agreed = agreement(before, after, signature(loaded), _SAMPLES)
    if agreed.sqnr_db is not None and agreed.sqnr_db < _LEAST_SQNR_DB:
        text = f"repaired, its outputs agree to {agreed.sqnr_db:.1f} dB alone"
        code, remedy = "lint.fix_changes", "repair by hand; nothing was written"
        raise BoundMissedError(code, text, where=str(source), remedy=remedy)
    return agreed


def _fixed(before: Sequence[Finding], left: Sequence[Finding]) -> tuple[Fixed, ...]:
    """What could be repaired and is found no more."""
    by_rule: dict[str, list[str]] = {}
    for finding in before:
        if finding.fixable and (finding.rule, finding.node) not in _places(left):
            by_rule.setdefault(finding.rule, []).append(finding.node)
    return tuple(Fixed(rule, tuple(filter(None, nodes))) for rule, nodes in by_rule.items())


def _places(found: Sequence[Finding]) -> set[tuple[str, str]]:
    return {(finding.rule, finding.node) for finding in found}


def _rules(found: Sequence[Finding]) -> set[str]:
    return {finding.rule for finding in found}
