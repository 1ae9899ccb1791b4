"""What loads and what does not, asked of the installed ONNX Runtime in a process of its own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import numpy_helper, parser

from onnxq.errors import ProviderError
from onnxq.lint import examine, lint
from onnxq.lint.examine import findings
from onnxq.runtime import apart, providers
from onnxq.runtime.apart import load_apart
from onnxq.runtime.custom_ops import custom_ops
from onnxq.runtime.machine import inspect_machine
from tests.lint.cases import BASE, CASES
from tests.lint.models import plain, proto, view_of, write

if TYPE_CHECKING:
    from pathlib import Path


def rules(path: Path, target: str = "cpu") -> set[str]:
    return {finding.rule for finding in lint(path, target).findings}


def test_a_model_that_loads_gives_the_nodes_that_are_executed(tmp_path: Path) -> None:
    loaded = load_apart(write(BASE, tmp_path / "model.onnx"))
    assert (loaded.refusal, loaded.died) == ("", False)
    assert "QLinearMatMul" in [node.op for node in loaded.nodes]


@pytest.mark.parametrize("rule", ["opset-too-new", "bfloat16-kernels"])
def test_what_has_no_kernel_does_not_load(rule: str, tmp_path: Path) -> None:
    path = write(CASES[rule].broken, tmp_path / "model.onnx")
    assert {rule, "does-not-load"} <= rules(path)
    path = write(CASES[rule].fine, tmp_path / "model.onnx")
    assert not {rule, "does-not-load"} & rules(path)


@pytest.mark.skipif(not inspect_machine().x86, reason="int8 activations become uint8 on x86 alone")
def test_int8_with_output_dtype_does_not_load(tmp_path: Path) -> None:
    case = CASES["int8-output-dtype"]
    path = write(case.broken, tmp_path / "model.onnx")
    assert {"int8-output-dtype", "does-not-load"} <= rules(path)
    assert "does-not-load" not in rules(write(case.fine, tmp_path / "model.onnx"))


def test_a_model_that_ends_the_process_is_a_finding(tmp_path: Path) -> None:
    path = write(CASES["transpose-and-cast"].broken, tmp_path / "model.onnx")
    loaded = load_apart(path)
    if not loaded.died:
        pytest.skip("this ONNX Runtime no longer dies of it; the rule may go")
    assert "ends the process" in loaded.refusal
    assert {"transpose-and-cast", "does-not-load"} <= rules(path)


@pytest.mark.parametrize("kind", ["double", "float16", "int64"])
@pytest.mark.parametrize("perm", ["1, 0, 2", "1, 2, 0", "0, 2, 1", "2, 0, 1"])
def test_a_transpose_and_a_cast_in_front_of_a_product_end_the_process(
    kind: str, perm: str, tmp_path: Path
) -> None:
    """Where the first axis moves behind others; elsewhere the rule says nothing."""
    text = f"t = Transpose<perm = [{perm}]>(x) c = Cast<to = 1>(t) y = MatMul(c, w)"
    model = proto(plain(text, f"{kind}[4, 4, 4]", "float[4, 4, 4]"), w=np.ones((4, 4), np.float32))
    path = write(model, tmp_path / "model.onnx")
    dies = perm.startswith("1")
    if dies and not load_apart(path).died:
        pytest.skip("this ONNX Runtime no longer dies of it; the rule may go")
    found = {finding.rule for finding in findings(view_of(model, "cpu"))}
    assert ("transpose-and-cast" in found) == dies
    assert ({"transpose-and-cast", "does-not-load"} <= rules(path)) == dies


def test_a_cast_in_front_of_the_transpose_is_fine(tmp_path: Path) -> None:
    text = "c = Cast<to = 1>(x) t = Transpose<perm = [1, 0, 2]>(c) y = MatMul(t, w)"
    model = proto(plain(text, "double[4, 4, 4]", "float[4, 4, 4]"), w=np.ones((4, 4), np.float32))
    assert rules(write(model, tmp_path / "model.onnx")) == set()
    assert not list(findings(view_of(model, "cpu")))


def test_an_operator_of_another_domain_does_not_load_without_its_library(tmp_path: Path) -> None:
    path = write(CASES["foreign-domain"].broken, tmp_path / "model.onnx")
    assert {"foreign-domain", "does-not-load"} <= rules(path)


def test_with_its_library_named_it_loads_and_is_no_finding(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime_extensions")
    text = "g (string[2] x) => (string[2] y) { y = ai.onnx.contrib.StringUpper(x) }"
    path = write(proto(text, domains={"ai.onnx.contrib": 1}), tmp_path / "model.onnx")
    assert {"foreign-domain", "does-not-load"} <= rules(path)
    with custom_ops(["extensions"]):
        assert rules(path) == set()


def test_a_function_of_the_model_is_no_foreign_operator(tmp_path: Path) -> None:
    text = """<ir_version: 9, opset_import: ["" : 17, "mine" : 1]>
    g (float[4] x) => (float[4] y) { y = mine.Twice(x) }
    <domain: "mine", opset_import: ["" : 17]>
    Twice (a) => (b) { b = Add(a, a) }"""
    assert "foreign-domain" not in rules(write(parser.parse_model(text), tmp_path / "model.onnx"))


def test_products_in_functions_and_folded_ones_are_not_said_to_run_in_float(
    tmp_path: Path,
) -> None:
    text = """<ir_version: 9, opset_import: ["" : 17, "mine" : 1]>
    g (float[4, 16] x) => (float[4, 16] y)
    <float s = {0.03}, uint8 z = {128}, int8[16, 16] w, float ws = {0.01}> {
        y = mine.Product(x, s, z, w, ws)
    }
    <domain: "mine", opset_import: ["" : 17]>
    Product (a, s, z, w, ws) => (b) {
        q = QuantizeLinear(a, s, z) d = DequantizeLinear(q, s, z) e = DequantizeLinear(w, ws)
        b = MatMul(d, e)
    }"""
    model = parser.parse_model(text)
    weights = model.graph.initializer
    for tensor in [tensor for tensor in weights if tensor.name == "w"]:
        weights.remove(tensor)
    weights.append(numpy_helper.from_array(np.ones((16, 16), np.int8), "w"))
    assert not lint(write(model, tmp_path / "model.onnx")).counting


def test_a_provider_that_is_not_there_is_said_and_the_rest_is_checked(tmp_path: Path) -> None:
    if providers.SHORT["tensorrt"] in providers.available():
        pytest.skip("this ONNX Runtime has TensorRT")
    result = lint(write(BASE, tmp_path / "model.onnx"), "tensorrt")
    (skipped,) = result.skipped
    assert skipped.rules == ("does-not-load",)
    assert "TensorrtExecutionProvider" in skipped.reason
    assert "tensorrt-zero-point" in {finding.rule for finding in result.findings}


def test_a_provider_that_does_not_start_is_no_finding_about_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(BASE, tmp_path / "model.onnx")
    if providers.SHORT["cuda"] in providers.available():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(ProviderError, match="CUDAExecutionProvider"):
        load_apart(path, "cuda")
    cuda = providers.SHORT["cuda"]
    monkeypatch.setattr(examine, "available", lambda: (cuda, providers.CPU))
    (skipped,) = lint(path, "cuda").skipped
    assert skipped.rules == ("does-not-load",)
    assert cuda in skipped.reason


def test_a_worker_that_says_nothing_has_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(proto(plain("y = Relu(x)")), tmp_path / "model.onnx")
    monkeypatch.setattr(apart, "__name__", "onnxq.no_such_module")
    loaded = load_apart(path)
    assert loaded.died
    assert "status 1" in loaded.refusal
    assert sys.executable.rsplit("/", 1)[-1] in loaded.refusal
