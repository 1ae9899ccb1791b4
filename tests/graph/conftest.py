"""Small models as text, and a way to run them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest

from onnxq.graph import io

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import onnx_ir as ir
    from numpy.typing import NDArray


@pytest.fixture
def parse(tmp_path: Path) -> Callable[[str], ir.Model]:
    """Read a model from its text form, by way of a file."""

    def build(text: str) -> ir.Model:
        path = tmp_path / "parsed.onnx"
        onnx.save(onnx.parser.parse_model(text), path)
        return io.load(path)

    return build


@pytest.fixture
def run() -> Callable[[ir.Model, Mapping[str, NDArray[np.generic]]], list[NDArray[np.generic]]]:
    """Run a model as it stands, without ONNX Runtime's own optimizations."""

    def execute(
        model: ir.Model, feeds: Mapping[str, NDArray[np.generic]]
    ) -> list[NDArray[np.generic]]:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(
            io.to_bytes(model), options, providers=["CPUExecutionProvider"]
        )
        return [np.asarray(output) for output in session.run(None, dict(feeds))]

    return execute


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    """A file: two MatMuls with random weights of 16x32 and 32x8, inline."""
    rng = np.random.default_rng(0)
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w1"], ["h"], name="first"),
        onnx.helper.make_node("MatMul", ["h", "w2"], ["y"], name="second"),
    ]
    weights = [
        onnx.numpy_helper.from_array(rng.normal(size=(16, 32)).astype(np.float32), "w1"),
        onnx.numpy_helper.from_array(rng.normal(size=(32, 8)).astype(np.float32), "w2"),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "linear",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 16])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 8])],
        weights,
    )
    model = onnx.helper.make_model(
        graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)]
    )
    model.producer_name = "a test"
    onnx.helper.set_model_props(model, {"author": "nobody"})
    path = tmp_path / "linear.onnx"
    onnx.save(model, path)
    return path
