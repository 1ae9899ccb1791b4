"""Every rule has a check, evidence, a model that breaks it and one that does not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from onnxq.errors import InternalError
from onnxq.lint import checks, fixes, lint, load_rules
from onnxq.lint.catalogue import rules_for
from onnxq.lint.checks.registry import check
from onnxq.lint.examine import findings
from tests.benchmarks import lint_rules
from tests.lint import test_measured
from tests.lint.cases import CASES
from tests.lint.models import view_of, write
from tests.whole_graph.subjects import random_subject

if TYPE_CHECKING:
    import onnx

    from tests.lint.cases import Case

ROOT = Path(__file__).parents[2]
RULES = load_rules()
ON_GPU = "tests/gpu/results/"
THREADS = {
    "microsoft/onnxruntime/issues/6004": "saturating-weights",
    "microsoft/onnxruntime/issues/14642": "saturating-weights",
    "microsoft/onnxruntime/pull/25278": "bias-overflow",
    "microsoft/onnxruntime/issues/15888": "dynamic-conv",
    "microsoft/onnxruntime/issues/12558": "dynamic-conv",
    "microsoft/onnxruntime/issues/12229": "cuda-int8-pairs",
    "microsoft/onnxruntime/issues/24807": "cuda-integer-operators",
    "NVIDIA/TensorRT/issues/2774": "tensorrt-zero-point",
    "NVIDIA/TensorRT/issues/4698": "tensorrt-zero-point",
    "NVIDIA/TensorRT/issues/2380": "tensorrt-convtranspose-axis",
    "microsoft/onnxruntime/issues/19694": "tensorrt-convtranspose-axis",
}
"""What users complain of, and the rule that is about it."""


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
        if module:
            assert (ROOT / f"{module[1].replace('.', '/')}.py").is_file(), text
            continue
        if text.startswith(ON_GPU):
            assert json.loads((ROOT / text).read_text("utf-8"))["gpu"]["name"]
            continue
        path, _, test = text.partition("::")
        assert f"\ndef {test}(" in (ROOT / path).read_text("utf-8"), text


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_that_is_called_measured_names_the_measurement(rule: str) -> None:
    """A test or a command of this repository, a GPU's results; threads back what is unverified."""
    own = [text for text in RULES[rule].evidence if not text.startswith("https://")]
    on_gpu = [text for text in own if text.startswith(ON_GPU)]
    assert bool(own) == (RULES[rule].verified != "unverified")
    assert bool(on_gpu) == RULES[rule].verified.startswith("gpu ")
    assert all(RULES[rule].verified.removeprefix("gpu ") in text for text in on_gpu)


def test_what_a_benchmark_measures_of_a_rule_is_among_its_cases() -> None:
    named = {r.id for r in RULES.values() if "python -m tests.benchmarks.lint_rules" in r.evidence}
    assert named == set(lint_rules.DUELS)


def test_what_is_parametrized_by_rules_is_named_by_those_rules() -> None:
    """Of the tests that run both models of several rules."""
    for name in (
        "test_the_broken_model_runs_in_float_and_the_other_in_integers",
        "test_all_of_a_constant_is_dequantized_in_each_run",
    ):
        (mark,) = getattr(test_measured, name).pytestmark
        named = {r.id for r in RULES.values() if any(t.endswith(f"::{name}") for t in r.evidence)}
        assert named == set(mark.args[1])


@pytest.mark.parametrize("rule", RULES)
def test_only_what_a_cpu_shows_is_called_measured_there(rule: str) -> None:
    on_gpu_alone = "cpu" not in RULES[rule].targets
    assert (RULES[rule].verified == "cpu measurement") != on_gpu_alone


@pytest.mark.parametrize("thread", THREADS)
def test_each_thread_that_users_wrote_backs_its_rule(thread: str) -> None:
    assert any(text.endswith(thread) for text in RULES[THREADS[thread]].evidence)


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
