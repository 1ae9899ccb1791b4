"""Looks at one model file: every rule of the target, and what ONNX Runtime makes of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxq.errors import ProviderError
from onnxq.graph.edit import all_nodes, clone
from onnxq.graph.io import save
from onnxq.graph.names import UniqueNamesPass
from onnxq.graph.quantized import find_already_quantized
from onnxq.graph.shapes import infer_shapes
from onnxq.graph.structure import signature
from onnxq.lint import checks, fixes
from onnxq.lint.agreement import AS_WRITTEN, OPTIMIZED, Form, agreement
from onnxq.lint.catalogue import SEVERITIES, rules_for
from onnxq.lint.finding import Finding
from onnxq.lint.view import View
from onnxq.runtime.apart import load_apart
from onnxq.runtime.machine import inspect_machine
from onnxq.runtime.providers import available, resolve
from onnxq.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import onnx_ir as ir

    from onnxq.lint.catalogue import Rule
    from onnxq.lint.finding import Seen
    from onnxq.runtime.apart import Loaded
    from onnxq.verify.verification import Report

_STEPS = 3
_LOADS = ("does-not-load",)
_MEASURED = (
    "covered-product",
    "quantizer-not-alone",
    "not-in-integers",
    "weight-dequantized-each-run",
)
_COMPARED = ("optimizing-changes-results",)


@dataclass(frozen=True, slots=True)
class Skipped:
    """Rules that were not checked, and why."""

    rules: tuple[str, ...]
    reason: str


def examine(
    path: Path, model: ir.Model, target: str, report: Report
) -> tuple[tuple[Finding, ...], tuple[Skipped, ...]]:
    """Check every rule of a target.

    Args:
        path: The model's file.
        model: The same, as :func:`onnxq.graph.io.load` reads it; left as it is.
        target: ``cpu``, ``cuda`` or ``tensorrt``.
        report: Told of progress.

    Returns:
        What was found, the worst first, and what was not checked.
    """
    named = clone(model)
    before = [node.name for node in all_nodes(named)]
    UniqueNamesPass()(named)
    nodes = list(all_nodes(named))
    renamed = {n.name or "" for n, name in zip(nodes, before, strict=True) if n.name != name}
    with Scratch() as folder:
        if renamed:
            # Only so can what is executed be told by its names.
            path = folder / "named.onnx"
            save(named, path)
        return _check(path, named, target, frozenset(renamed), report)


def _check(
    path: Path, named: ir.Model, target: str, renamed: frozenset[str], report: Report
) -> tuple[tuple[Finding, ...], tuple[Skipped, ...]]:
    skipped: list[Skipped] = []
    report("lint", 0, _STEPS)
    loaded = _load(path, target, skipped)
    report("lint", 1, _STEPS)
    drift = _drift(path, named, target, loaded, skipped)
    report("lint", 2, _STEPS)
    infer_shapes(named)
    view = View(named, target, inspect_machine(), renamed, loaded, drift)
    found = tuple(findings(view))
    report("lint", _STEPS, _STEPS)
    return found, tuple(skipped)


def findings(view: View) -> Iterator[Finding]:
    """What the rules of a view's target find, the worst first, then in the order of the rules."""
    seen = {rule.id: tuple(checks.registered()[rule.id](view)) for rule in rules_for(view.target)}
    explained = {
        place.node
        for rule in rules_for(view.target)
        if not rule.unless_explained and rule.severity != "note"
        for place in seen[rule.id]
    }
    for severity in SEVERITIES:
        for rule in rules_for(view.target):
            if rule.severity == severity:
                yield from _of_rule(rule, seen[rule.id], explained)


def _of_rule(rule: Rule, seen: Sequence[Seen], explained: set[str]) -> Iterator[Finding]:
    for place in seen:
        if rule.unless_explained and place.node in explained:
            continue
        yield Finding(
            rule=rule.id,
            severity=rule.severity,
            node=place.node,
            op=place.op,
            message=place.message,
            why=rule.why,
            evidence=rule.evidence,
            verified=rule.verified,
            remedy=rule.remedy,
            fixable=place.fixable and rule.id in fixes.registered(),
        )


def _load(path: Path, target: str, skipped: list[Skipped]) -> Loaded | None:
    """What ONNX Runtime makes of the model, in a process of its own."""
    measured = tuple(rule.id for rule in rules_for(target) if rule.id in (*_LOADS, *_MEASURED))
    provider = resolve(target)
    if provider not in available():
        skipped.append(Skipped(measured, f"this ONNX Runtime has no {provider}"))
        return None
    try:
        loaded = load_apart(path, target)
    except ProviderError as error:
        skipped.append(Skipped(measured, error.message))
        return None
    others = tuple(rule for rule in measured if rule in _MEASURED)
    if loaded.refusal and others:
        skipped.append(Skipped(others, "the model does not load"))
    return loaded


def _drift(
    path: Path, model: ir.Model, target: str, loaded: Loaded | None, skipped: list[Skipped]
) -> float | None:
    """SQNR of the optimized model against itself as it is written, for a quantized model."""
    if not any(rule.id in _COMPARED for rule in rules_for(target)):
        return None
    if loaded is None or loaded.refusal:
        skipped.append(Skipped(_COMPARED, "the model does not load"))
        return None
    if find_already_quantized(model) is None:
        return None
    found = agreement(Form(path, AS_WRITTEN), Form(path, OPTIMIZED), signature(model), 1)
    if found.sqnr_db is None:
        skipped.append(Skipped(_COMPARED, found.why_none))
    return found.sqnr_db
