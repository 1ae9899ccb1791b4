"""What a session gives TensorRT to see: the pairs as they are written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest

from onnxq.runtime.session import SessionSettings, open_session
from onnxq.runtime.tuning import Tuning, deployed
from tests.lint.cases import CASES
from tests.pretended import pretend

if TYPE_CHECKING:
    from pathlib import Path

QUANTIZED = CASES["tensorrt-bias"].fine.SerializeToString()
"""A Gemm between pairs of int8, with a float bias."""


def bias_type(settings: SessionSettings, path: Path) -> int:
    """The type of the Gemm's bias where providers see the graph."""
    open_session(QUANTIZED, settings)
    graph = onnx.load(path).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    made = {node.output[0]: node for node in graph.node}
    (gemm,) = (node for node in graph.node if node.op_type == "Gemm")
    name = gemm.input[2]
    return types[name] if name in types else types[made[name].input[0]]


@pytest.mark.parametrize("provider", ["cpu", "tensorrt"])
def test_a_float_bias_between_pairs(
    provider: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime makes it int32, which TensorRT does not parse, unless it is told not to."""
    if provider != "cpu":
        pretend(monkeypatch, provider)
    path = tmp_path / "optimized.onnx"
    # The other providers see the graph after the basic optimizations.
    settings = SessionSettings(provider=provider, optimization="basic", optimized_path=path)
    kinds = {"cpu": onnx.TensorProto.INT32, "tensorrt": onnx.TensorProto.FLOAT}
    assert bias_type(settings, path) == kinds[provider]


def test_the_entry_is_deployed_and_the_users_own_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, "tensorrt")
    entries = deployed(Tuning(spinning=False), "tensorrt")["config_entries"]
    assert entries == {
        "session.disable_quant_qdq": "1",
        "session.intra_op.allow_spinning": "0",
        "session.inter_op.allow_spinning": "0",
    }
    assert deployed(Tuning(), "cpu")["config_entries"] == {}
    path, config = tmp_path / "optimized.onnx", (("session.disable_quant_qdq", "0"),)
    settings = SessionSettings("tensorrt", "basic", config=config, optimized_path=path)
    assert bias_type(settings, path) == onnx.TensorProto.INT32
