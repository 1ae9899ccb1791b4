"""``inspect`` of weights in blocks: tables within the terminal, and JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from onnxq.data.arrays import write_npz
from tests.cli.conftest import onnxq
from tests.small_models import normal, write

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """g (float[N, 32] x) => (float[N, 8] y) {
    n = Mul(x, c) a = MatMul(n, u) h = Tanh(a) y = MatMul(h, w)
}"""
ALGORITHMS = ("hqq", "mse", "awq", "gptq", "awq+gptq")


@pytest.fixture
def arguments(tmp_path: Path) -> list[str | Path]:
    weights = {"u": normal(0, 32, 32), "w": normal(2, 32, 8)}
    model = write(tmp_path / "m.onnx", TEXT, c=np.exp(normal(9, 32)), **weights)
    (tmp_path / "data").mkdir()
    for seed in range(10):
        write_npz(tmp_path / f"data/{seed}.npz", {"x": normal(100 + seed, 24, 32)})
    return ["inspect", model, "--scheme", "int4", "--block-size", "16", "--data", tmp_path / "data"]


def test_each_algorithm_is_a_column(arguments: list[str | Path]) -> None:
    shown = onnxq(*arguments)
    assert shown.status == 0, shown.err
    assert max(map(len, shown.out.splitlines())) <= 80
    lines = shown.out.splitlines()
    start = next(place for place, text in enumerate(lines) if "2 weights in blocks" in text)
    assert lines[start + 2].split() == ["site", "hqq", "mse", "awq", "gptq", "gptq", "best", "exp."]
    assert "uint4, block 16" in shown.out
    assert "fixed in the middle (s)" in shown.out
    found = onnxq(*arguments, "--json").document["sites"]
    for site in found:
        errors = site["held_out"]
        assert len(errors) == 2 * len(ALGORITHMS)
        assert site["sqnr_db"] == errors[site["chosen"]]
        for kind in ("", " symmetric"):
            row = [f"{errors[f'{name}, uint4{kind}, block 16']:.1f}" for name in ALGORITHMS]
            assert any(all(text in line for text in row) for line in lines)


def test_one_algorithm_is_one_column(arguments: list[str | Path]) -> None:
    shown = onnxq(*arguments, "--algorithm", "awq").out
    assert "gptq" not in shown
    assert "(s)" not in shown
    assert "2 weights in blocks" in shown


def test_without_data_there_is_no_table(arguments: list[str | Path]) -> None:
    shown = onnxq(*arguments[:-2])
    assert shown.status == 0, shown.err
    assert "weights in blocks" not in shown.out
    assert "int4" in shown.out
    found = onnxq(*arguments[:-2], "--json").document["sites"]
    assert [(site["held_out"], site["chosen"], site["exponent"]) for site in found] == [
        ({}, "", None)
    ] * 2
