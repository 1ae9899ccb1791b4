"""The matrix on the shipped model: every form, each kernel count held against the profile."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.benchmarks import matrix

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


def test_every_form_is_compared_and_counted_as_it_ran(tmp_path: Path) -> None:
    work, labels = matrix.workload("fashion_resnet")
    found = matrix.outcome(work, labels, 16, tmp_path)
    assert not found.refused
    forms = {form.name: form for form in found.forms}
    assert list(forms) == ["float", *matrix.SCHEMES]
    assert all(form.agrees for form in found.forms)
    assert not forms["float"].profiled
    assert forms["int8"].profiled["QLinearConv"] == 9
    assert forms["int8-dynamic"].profiled.keys() <= {"DynamicQuantizeMatMul"}
    assert forms["int4"].profiled == {"MatMulNBits": 1}
    assert all(form.run["accuracy"] > 0.9 for form in found.forms)
    document = json.loads((tmp_path / "fashion_resnet.json").read_text(encoding="utf-8"))
    assert len(document["runs"]) == 4
    assert 50_000 < found.report_bytes < 5_000_000
    assert all(len(matrix.row(form)) == len(matrix.COLUMNS) for form in found.forms)


def test_a_count_that_the_profile_contradicts_is_told() -> None:
    run = {"kernels": {"by_op": {"QGemm": 2}}}
    assert matrix.Form("int8", run, {"QGemm": 2}, 0.0).agrees
    assert not matrix.Form("int8", run, {"QGemm": 1}, 0.0).agrees
