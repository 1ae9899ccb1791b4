"""Every rule has a check, evidence, a model that breaks it and one that does not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from onnxq.errors import InternalError
from onnxq.lint import checks, fixes, lint, load_rules
from onnxq.lint.catalogue import rules_for
from onnxq.lint.checks.registry import check
from onnxq.lint.examine import findings
from tests.lint.cases import CASES
from tests.lint.models import view_of, write
from tests.whole_graph.subjects import random_subject

if TYPE_CHECKING:
    import onnx

    from tests.lint.cases import Case

ROOT = Path(__file__).parents[2]
RULES = load_rules()
THREADS = (
    "microsoft/onnxruntime/issues/6004",
    "microsoft/onnxruntime/issues/14642",
    "microsoft/onnxruntime/issues/12229",
    "microsoft/onnxruntime/issues/24807",
    "microsoft/onnxruntime/issues/15888",
    "microsoft/onnxruntime/issues/12558",
    "microsoft/onnxruntime/issues/19694",
    "microsoft/onnxruntime/pull/25278",
    "NVIDIA/TensorRT/issues/2774",
    "NVIDIA/TensorRT/issues/4698",
    "NVIDIA/TensorRT/issues/2380",
)
"""What users complain of that a rule must be about."""


def test_each_rule_has_a_check_and_each_check_a_rule() -> None:
    assert set(checks.registered()) == set(RULES)
    assert len(RULES) >= 28


def test_each_rule_has_two_models() -> None:
    assert set(CASES) == set(RULES)


def found(model: onnx.ModelProto, rule: str, case: Case, folder: Path) -> set[str]:
    """The rules that a model breaks, on the first target of the rule."""
    target = RULES[rule].targets[0]
    if case.loads:
        result = lint(write(model, folder / "model.onnx"), target)
        return {finding.rule for finding in result.findings}
    return {finding.rule for finding in findings(view_of(model, target, vnni=case.vnni))}


@pytest.mark.parametrize("rule", CASES)
def test_a_model_that_breaks_it(rule: str, tmp_path: Path) -> None:
    assert rule in found(CASES[rule].broken, rule, CASES[rule], tmp_path)


@pytest.mark.parametrize("rule", CASES)
def test_a_model_that_does_not(rule: str, tmp_path: Path) -> None:
    assert rule not in found(CASES[rule].fine, rule, CASES[rule], tmp_path)


@pytest.mark.parametrize("rule", RULES)
def test_what_backs_a_rule_is_there(rule: str) -> None:
    evidence = RULES[rule].evidence
    assert evidence
    for text in evidence:
        if text.startswith("https://"):
            continue
        if text.startswith("onnxq "):
            assert text == "onnxq doctor --probe"
            continue
        module = re.fullmatch(r"python -m ([\w.]+)", text)
        path = f"{module[1].replace('.', '/')}.py" if module else text
        assert (ROOT / path).is_file(), text


@pytest.mark.parametrize("rule", RULES)
def test_what_no_gpu_has_confirmed_is_unverified(rule: str) -> None:
    on_gpu_alone = "cpu" not in RULES[rule].targets
    assert (RULES[rule].verified == "cpu measurement") != on_gpu_alone


@pytest.mark.parametrize("thread", THREADS)
def test_the_threads_that_users_wrote_are_among_them(thread: str) -> None:
    assert any(thread in text for rule in RULES.values() for text in rule.evidence)


@pytest.mark.parametrize("rule", RULES)
def test_a_remedy_names_the_fix_where_there_is_one(rule: str) -> None:
    assert ("--fix" in RULES[rule].remedy) == (rule in fixes.registered())


def test_each_fix_has_a_rule() -> None:
    assert set(fixes.registered()) <= set(RULES)


@pytest.mark.parametrize("target", ["cpu", "cuda", "tensorrt"])
def test_each_target_has_rules(target: str) -> None:
    assert len(rules_for(target)) > 10


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("target", ["cpu", "cuda", "tensorrt"])
def test_random_graphs_break_no_check(seed: int, target: str) -> None:
    found = list(findings(view_of(random_subject(seed).proto, target, vnni=False)))
    assert all(finding.message and finding.why and finding.remedy for finding in found)


def test_two_checks_of_one_rule_are_a_fault() -> None:
    with pytest.raises(InternalError, match="two functions"):
        check("idle-pair")(lambda view: iter(()))
