"""What a GPU says of the rules (``python -m tests.gpu.rules``): its machinery, and all on a GPU."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from onnxq.lint import load_rules
from tests.gpu import rules
from tests.gpu.run import why_missing
from tests.lint.cases import BASE, CASES
from tests.lint.models import write

if TYPE_CHECKING:
    from pathlib import Path

ON_GPU = [rule.id for rule in load_rules().values() if "cpu" not in rule.targets]
PLACED = {"fallen_back": [], "copies": 0, "wrong": False}


def test_what_is_seen_of_a_model(tmp_path: Path) -> None:
    found = rules.seen(write(BASE, tmp_path / "model.onnx"), "cpu")
    assert list(found["by_provider"]) == ["CPUExecutionProvider"]
    assert (found["copies"], found["fallen_back"]) == (0, [])
    assert found["max_difference"] < 0.2
    assert not found["wrong"]
    broken = write(CASES["does-not-load"].broken, tmp_path / "broken.onnx")
    assert "QuantizeLinear(28)" in rules.seen(broken, "cpu")["error"]


@pytest.mark.parametrize(
    ("broken", "fine", "wanted"),
    [
        ({"error": "no"}, PLACED, True),
        (PLACED, {"error": "no"}, False),
        ({"error": "no"}, {"error": "no"}, False),
        ({**PLACED, "copies": 2}, PLACED, True),
        ({**PLACED, "wrong": True}, {**PLACED, "copies": 2}, True),
        ({**PLACED, "copies": 2}, {**PLACED, "wrong": True}, False),
        (PLACED, PLACED, False),
    ],
)
def test_when_two_models_are_told_apart(
    broken: dict[str, Any], fine: dict[str, Any], wanted: bool
) -> None:
    assert rules.told_apart(broken, fine) == wanted


def test_without_a_gpu_the_file_says_so(tmp_path: Path) -> None:
    if not why_missing("cuda"):
        pytest.skip("there is a GPU")
    output = tmp_path / "rules.json"
    done = CliRunner().invoke(rules.main, ["-o", str(output)])
    assert done.exit_code == 0, done.output
    document = json.loads(output.read_text())
    assert set(document["missing"]) == {"cuda", "tensorrt"}
    assert document["rules"] == {}


@pytest.mark.gpu
@pytest.mark.parametrize("rule", ON_GPU)
def test_a_model_that_keeps_a_rule_runs_there(rule: str, tmp_path: Path) -> None:
    target = load_rules()[rule].targets[0]
    missing = why_missing(target)
    if missing:
        pytest.skip(missing)
    found = rules.seen(write(CASES[rule].fine, tmp_path / "model.onnx"), target)
    assert "error" not in found, found
