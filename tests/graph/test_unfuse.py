"""Fused operators of ONNX Runtime with a weight become plain ones that compute the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.graph.io import to_bytes
from onnxq.graph.normalize import normalize
from onnxq.graph.sites import find_sites
from tests.small_models import normal, proto, run

if TYPE_CHECKING:
    from numpy.typing import NDArray


def both(text: str, **weights: NDArray[Any]) -> tuple[ir.Model, ir.Model]:
    """The model as written, and normalized."""
    model = proto(text, **weights)
    model.opset_import.add(domain="com.microsoft", version=1)
    original = ir.serde.deserialize_model(model)
    return original, normalize(original).model


def ops(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


MATMULS = [
    ("alpha = 0.5", (4, 6)),
    ("transB = 1", (6, 4)),
    ("transB = 1, alpha = -2.0", (6, 4)),
    ("transB = 1", (1, 6, 4)),
]


@pytest.mark.parametrize(("attributes", "shape"), MATMULS)
@pytest.mark.parametrize("op", ["FusedMatMul", "TransposeMatMul"])
def test_matmul(op: str, attributes: str, shape: tuple[int, ...]) -> None:
    text = f"""g (float[2, 3, 4] x) => (float[2, 3, 6] y) {{
        y = com.microsoft.{op}<{attributes}>(x, w)
    }}"""
    original, model = both(text, w=normal(0, *shape))
    assert ops(model) == ["MatMul"]
    (site,) = find_sites(model)
    assert site.candidate, site.reason
    x = normal(1, 2, 3, 4)
    wanted = run(original, {"x": x})[0]
    np.testing.assert_allclose(run(model, {"x": x})[0], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("attribute", ["transA", "transBatchA", "transBatchB"])
def test_matmul_that_transposes_its_activation_is_declined(attribute: str) -> None:
    text = f"""g (float[32, 32, 32] x) => (float[32, 32, 32] y) {{
        y = com.microsoft.FusedMatMul<{attribute} = 1>(x, w)
    }}"""
    _, model = both(text, w=normal(0, 32, 32, 32))
    (site,) = find_sites(model)
    assert site.reason == "onnxq does not quantize com.microsoft::FusedMatMul"


def test_scores_of_attention_stay_fused() -> None:
    text = """g (float[2, 4] x, float[3, 4] z) => (float[2, 3] y) {
        y = com.microsoft.FusedMatMul<alpha = 0.5, transB = 1>(x, z)
    }"""
    _, model = both(text)
    assert ops(model) == ["FusedMatMul"]


@pytest.mark.parametrize(
    ("activation", "parameters"),
    [
        ("Relu", ""),
        ("Tanh", ""),
        ("LeakyRelu", ", activation_alpha = 0.2"),
        ("HardSigmoid", ", activation_alpha = 0.3, activation_beta = 0.4"),
    ],
)
def test_gemm(activation: str, parameters: str) -> None:
    text = f"""g (float[3, 4] x) => (float[3, 6] y) {{
        y = com.microsoft.FusedGemm<transB = 1, alpha = 2.0, activation = "{activation}"
            {parameters}>(x, w, b)
    }}"""
    original, model = both(text, w=normal(0, 6, 4), b=normal(1, 6))
    assert ops(model) == ["Gemm", activation]
    assert find_sites(model)[0].candidate
    x = normal(2, 3, 4)
    wanted = run(original, {"x": x})[0]
    np.testing.assert_allclose(run(model, {"x": x})[0], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("activation", "parameters"),
    [
        ("Relu", ""),
        ("LeakyRelu", ", activation_params = [0.2]"),
        ("HardSigmoid", ", activation_params = [0.3, 0.4]"),
        ("Clip", ", activation_params = [0.0, 0.5]"),
    ],
)
@pytest.mark.parametrize("residual", [False, True])
def test_conv(activation: str, parameters: str, residual: bool) -> None:
    text = f"""g (float[1, 2, 5, 5] x, float[1, 4, 5, 5] z) => (float[1, 4, 5, 5] y) {{
        k = Relu(z)
        y = com.microsoft.FusedConv<kernel_shape = [3, 3], pads = [1, 1, 1, 1],
            activation = "{activation}"{parameters}>(x, w, b{", k" if residual else ""})
    }}"""
    original, model = both(text, w=normal(0, 4, 2, 3, 3), b=normal(1, 4))
    added = ["Relu", "Conv", "Add"] if residual else ["Conv"]
    assert ops(model) == [*added, activation]
    assert find_sites(model)[0].candidate
    feeds = {"x": normal(2, 1, 2, 5, 5), "z": normal(3, 1, 4, 5, 5)}
    wanted = run(original, feeds)[0]
    np.testing.assert_allclose(run(model, feeds)[0], wanted, rtol=1e-5, atol=1e-6)


def test_unknown_activation_is_declined() -> None:
    text = """g (float[1, 32, 5, 5] x) => (float[1, 32, 5, 5] y) {
        y = com.microsoft.FusedConv<activation = "Other">(x, w)
    }"""
    _, model = both(text, w=normal(0, 32, 32, 1, 1))
    (site,) = find_sites(model)
    assert "com.microsoft::FusedConv" in site.reason
    assert to_bytes(model)
