"""``compare --diverge``: tables, JSON and exit statuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.cli.conftest import IMAGES, MODEL, onnxq
from tests.small_models import normal, write

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """fashion_resnet with the weight of its head scaled."""
    model = onnx.load(MODEL)
    head = next(node for node in model.graph.node if node.op_type == "Gemm")
    (weight,) = (w for w in model.graph.initializer if w.name == head.input[1])
    scaled = numpy_helper.to_array(weight) * 1.25
    weight.CopyFrom(numpy_helper.from_array(scaled, weight.name))
    path = tmp_path_factory.mktemp("moved") / "moved.onnx"
    onnx.save(model, path)
    return path


def test_the_node_is_named(moved: Path) -> None:
    run = onnxq("compare", MODEL, moved, "--data", IMAGES, "--diverge")
    assert (run.status, run.err) == (0, "")
    assert max(map(len, run.out.splitlines())) <= 80
    text = " ".join(run.out.split())
    assert "Run 2 parts from run 1 at head.Gemm (Gemm): fed with the same values, logits" in text
    assert "the constant head.weight of head.Gemm differs in 640 of 640 elements" in text


def test_a_tolerance_is_a_bound(moved: Path) -> None:
    run = onnxq("compare", MODEL, moved, "--data", IMAGES, "--tolerance", "0.01", "--json")
    assert run.status == 1
    found = run.document
    assert (found["status"], found["agree"], found["tolerance"]) == ("missed", False, 0.01)
    assert [error["code"] for error in found["errors"]] == ["compare.tolerance"]
    reference, other = found["runs"]
    assert reference == {"model": str(MODEL), "provider": "cpu", "level": "all"}
    assert other["divergence"]["node"] == "head.Gemm"
    assert other["divergence"]["kind"] == "node"
    assert other["error"] > 0.01
    loose = onnxq("compare", MODEL, moved, "--data", IMAGES, "--tolerance", "0.5", "--json")
    assert (loose.status, loose.document["agree"]) == (0, True)


def test_levels_are_runs() -> None:
    run = onnxq("compare", MODEL, "--data", IMAGES, "--levels", "none,basic,all", "--json")
    assert run.status == 0
    assert [entry["level"] for entry in run.document["runs"]] == ["none", "basic", "all"]
    assert run.document["agree"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--levels", "none,al"), "there is no optimization level 'al'"),
        (("--diverge",), "there is nothing that could diverge"),
        (("--tolerance", "-1", "--levels", "none,all"), "a tolerance of -1"),
        (("--levels", "none,all", "--metric", "sqnr"), "--metric: --diverge measures"),
        (("--levels", "none,all", "--threads", "1"), "--save-session: --diverge measures"),
        (("--levels", "none,all", "--labels", "x.npy"), "--labels: --diverge measures"),
    ],
)
def test_bad_usage(options: tuple[str, ...], words: str) -> None:
    run = onnxq("compare", MODEL, "--data", IMAGES, *options)
    assert run.status == 2
    assert words in run.err


def test_the_only_value_before_it(tmp_path: Path) -> None:
    text = "g (float[n, 8] x) => (float[n, 8] y) {{ [one] a = Neg(x) [two] y = {}(a) }}"
    models = [write(tmp_path / f"{op}.onnx", text.format(op)) for op in ("Relu", "Tanh")]
    np.savez(tmp_path / "x.npz", x=normal(0, 2, 8))
    run = onnxq("compare", *models, "--data", tmp_path / "x.npz", "--diverge")
    assert (run.status, run.err) == (0, "")
    assert "The value before it agrees when it is computed alone" in " ".join(run.out.split())


def test_a_tolerance_is_not_kept_where_nothing_was_compared(tmp_path: Path) -> None:
    text = "g (float[n, 8] x) => (float[n, 8] y) {{ y = {}(x) }}"
    models = [write(tmp_path / f"{op}.onnx", text.format(op)) for op in ("Log", "Sqrt")]
    np.savez(tmp_path / "s.npz", x=-np.ones((2, 8), np.float32))
    run = onnxq("compare", *models, "--data", tmp_path / "s.npz", "--tolerance", "0.01", "--json")
    assert run.status == 1
    (error,) = run.document["errors"]
    assert error["code"] == "compare.tolerance"
    assert "nothing was compared" in error["message"]
    assert onnxq("compare", *models, "--data", tmp_path / "s.npz", "--diverge").status == 0
