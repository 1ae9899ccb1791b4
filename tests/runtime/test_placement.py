"""Where nodes run, and why: read from what ONNX Runtime's CUDA provider logged on a real GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from onnxq.errors import ModelError, ProviderError
from onnxq.runtime import placement as module
from onnxq.runtime import providers
from onnxq.runtime.placement import placement
from onnxq.runtime.providers import CPU, SHORT
from tests.small_models import normal, write

if TYPE_CHECKING:
    from pathlib import Path

CUDA = SHORT["cuda"]
LOG = """
2026-11-26 10:43:26.53 [I:onnxruntime:, cuda_execution_provider.cc:1 GetCapability] \
CUDA kernel not found in registries for Op type: DequantizeLinear node name: bias/DequantizeLinear
2026-11-26 10:43:26.53 [I:onnxruntime:, fallback_cpu_capability.cc:89 operator()] Candidate for \
fallback CPU execution: self.Concat
2026-11-26 10:43:26.53 [I:onnxruntime:, fallback_cpu_capability.cc:167 GetCpuPreferredNodes] ORT \
optimization- Force fallback to CPU execution for node: self.Concat because the CPU execution \
path is deemed faster than overhead involved with execution on other EPs capable of executing it
2026-11-26 10:43:26.54 [W:onnxruntime:, transformer_memcpy.cc:1 ApplyImpl] 50 Memcpy nodes are \
added to the graph main_graph for CUDAExecutionProvider. It might have negative impact
"""
ASSIGNED = {
    CUDA: [("conv", "Conv", "")],
    CPU: [
        ("bias/DequantizeLinear", "DequantizeLinear", ""),
        ("self.Concat", "Concat", ""),
        ("odd", "NonZero", ""),
    ],
}


def test_reasons_and_copies_come_from_the_log() -> None:
    found = module._read(CUDA, ASSIGNED, LOG)
    assert found.by_provider == {CPU: 3, CUDA: 1}
    assert found.copies == 50
    reasons = {node.name: node.reason for node in found.fallen_back}
    assert "no kernel for this DequantizeLinear" in reasons["bias/DequantizeLinear"]
    assert reasons["self.Concat"].startswith("shape arithmetic")
    assert "does not say why" in reasons["odd"]
    assert found.nodes[0].reason == ""


def test_on_the_cpu_every_node_is_its_own(tmp_path: Path) -> None:
    text = "g (float[2, 4] x) => (float[2, 3] y) { h = MatMul(x, w) y = Relu(h) }"
    found = placement(write(tmp_path / "m.onnx", text, w=normal(0, 4, 3)))
    assert found.asked == CPU
    assert {node.op for node in found.nodes} <= {"MatMul", "Relu"}
    assert not found.fallen_back
    assert found.copies == 0


def test_a_missing_provider_and_a_damaged_model_are_refused(tmp_path: Path) -> None:
    damaged = tmp_path / "m.onnx"
    damaged.write_bytes(b"junk")
    with pytest.raises(ModelError):
        placement(damaged)
    with pytest.raises(ProviderError, match="no execution provider called"):
        placement(damaged, "nosuch")


def test_a_model_that_takes_too_long_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "require", lambda name: CUDA)
    monkeypatch.setattr(module, "_LIMIT_SECONDS", 0.01)
    with pytest.raises(ModelError, match="does not load within"):
        placement(tmp_path / "m.onnx", "cuda")
