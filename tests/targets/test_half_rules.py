"""What cpu.toml says of float16 and bfloat16, against the installed ONNX Runtime."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import onnx
import onnxruntime as ort
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from onnxq.errors import ModelError
from onnxq.graph.io import to_bytes
from onnxq.runtime.session import open_session
from onnxq.targets import HalfRules, load_target
from tests.small_models import normal, normalized

if TYPE_CHECKING:
    from pathlib import Path

CPU = load_target("cpu")
FLOAT16, BFLOAT16 = CPU.half["float16"], CPU.half["bfloat16"]
SAME_VERSION = pytest.mark.skipif(
    ort.__version__ != CPU.probed_with, reason="cpu.toml records another version of ONNX Runtime"
)
LOAD = """import sys, onnxruntime
onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])"""


def registered(kind: str) -> set[str]:
    """Operators of ONNX that have a kernel on the CPU for a type."""
    return {
        kernel.op_name
        for kernel in ort_state.get_all_opkernel_def()
        if kernel.provider == "CPUExecutionProvider"
        and not kernel.domain
        and any(f"tensor({kind})" in types for types in kernel.type_constraints.values())
    }


@SAME_VERSION
def test_bfloat16_kernels_are_registered_and_move_data_only() -> None:
    kernels = registered("bfloat16")
    assert set(BFLOAT16.kernels or ()) <= kernels
    computing = {"Add", "Conv", "Gemm", "MatMul", "Mul", "Relu", "Softmax", "Sub", "Tanh"}
    assert not computing & kernels


@SAME_VERSION
@pytest.mark.parametrize("op", ["Add(x, x)", "MatMul(x, x)", "Relu(x)", "Softmax(x)"])
def test_bfloat16_does_not_load(op: str) -> None:
    model = normalized(f"g (bfloat16[4, 4] x) => (bfloat16[4, 4] y) {{ y = {op} }}")
    with pytest.raises(ModelError, match="Could not find an implementation"):
        open_session(to_bytes(model))


@SAME_VERSION
def test_a_float16_transpose_in_front_of_a_product_ends_the_process(tmp_path: Path) -> None:
    text = """g (float16[5, 2, 8] x) => (float16[2, 5, 8] y) {
        t = Transpose<perm = [1, 0, 2]>(x) y = MatMul(t, w)
    }"""
    model = normalized(text, w=normal(0, 8, 8).astype("float16"))
    path = tmp_path / "transposed.onnx"
    onnx.save(onnx.load_from_string(to_bytes(model)), path)
    found = subprocess.run([sys.executable, "-c", LOAD, path], check=False, capture_output=True)
    # Once it no longer dies, the entry may go.
    assert found.returncode != 0
    assert "Transpose" in FLOAT16.declined


def test_both_store_weights_by_default() -> None:
    assert FLOAT16.form == BFLOAT16.form == "weights"
    assert FLOAT16.kernels is None
    assert HalfRules(form="compute").declined == {}
