"""The graphs that are written for TensorRT and CUDA, held to what those providers document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxq import quantize
from onnxq.errors import UsageError
from onnxq.lint import lint
from onnxq.pipeline import RunOptions
from onnxq.recipe import Recipe
from onnxq.runtime.providers import available
from tests.small_models import normal, write

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.pipeline import QuantizeResult

UNTIMED = RunOptions(timing=None)
RESIDUAL = """
    g (float[1, 8, 6, 6] x) => (float[1, 8, 6, 6] y) {
        a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w1, b1)
        r = Relu(a)
        c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (r, w2, b2)
        s = Add(c, r)
        y = Relu(s)
    }
"""
ATTENTION = """
    g (float[1, 6, 16] x) => (float[1, 6, 16] y) {
        q = MatMul(x, wq)
        k = MatMul(x, wk)
        v = MatMul(x, wv)
        kt = Transpose <perm = [0, 2, 1]> (k)
        scores = MatMul(q, kt)
        p = Softmax <axis = -1> (scores)
        h = MatMul(p, v)
        y = MatMul(h, wo)
    }
"""
UPWARDS = """
    g (float[1, 8, 5, 5] x) => (float[1, 6, 10, 10] y) {
        y = ConvTranspose <kernel_shape = [2, 2], strides = [2, 2]> (x, w, b)
    }
"""
LOOKUP = """
    g (int64[1, n] ids) => (float[1, n, 64] y) {
        rows = Gather(table, ids)
        y = MatMul(rows, w)
    }
"""


def quantized(
    path: Path, text: str, scheme: str, target: str, data: Any, **weights: Any
) -> tuple[ir.Model, QuantizeResult]:
    source = write(path / "float.onnx", text, **weights)
    output = path / "out.onnx"
    recipe = Recipe.model_validate({"scheme": scheme})
    result = quantize(source, data, output, recipe=recipe, target=target, options=UNTIMED)
    return ir.load(output), result


def samples(name: str, *shape: int) -> list[dict[str, Any]]:
    return [{name: normal(seed, *shape)} for seed in range(12)]


def residual(path: Path) -> ir.Model:
    convs = {f"w{i}": normal(i, 8, 8, 3, 3) for i in (1, 2)}
    biases = {f"b{i}": normal(10 + i, 8) for i in (1, 2)}
    data = samples("x", 1, 8, 6, 6)
    return quantized(path, RESIDUAL, "int8", "tensorrt", data, **convs, **biases)[0]


def nodes(model: ir.Model, op: str) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type == op]


def producer(node: ir.Node, index: int) -> str:
    value = node.inputs[index]
    made = None if value is None else value.producer()
    return "" if made is None else made.op_type


def constant(node: ir.Node, index: int) -> Any:
    value = node.inputs[index]
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy()


@pytest.mark.parametrize("op", ["QuantizeLinear", "DequantizeLinear"])
def test_zero_points_are_zero_and_int8(tmp_path: Path, op: str) -> None:
    found = nodes(residual(tmp_path), op)
    assert found
    for node in found:
        zero_point = constant(node, 2)
        assert zero_point.dtype == np.int8
        assert not zero_point.any()
        assert (constant(node, 1) > 0).all()


def test_biases_stay_float_and_no_node_is_absorbed(tmp_path: Path) -> None:
    model = residual(tmp_path)
    for conv in nodes(model, "Conv"):
        assert [producer(conv, index) for index in (0, 1)] == ["DequantizeLinear"] * 2
        assert constant(conv, 2).dtype == np.float32
    assert len(nodes(model, "Relu")) == 2


def test_the_residual_is_quantized_and_the_product_in_front_of_the_add_is_not(
    tmp_path: Path,
) -> None:
    (add,) = nodes(residual(tmp_path), "Add")
    assert [producer(add, index) for index in (0, 1)] == ["Conv", "DequantizeLinear"]


def test_both_operands_of_attention_are_quantized(tmp_path: Path) -> None:
    weights = {name: normal(i, 16, 16) for i, name in enumerate(("wq", "wk", "wv", "wo"))}
    data = samples("x", 1, 6, 16)
    model, _ = quantized(tmp_path, ATTENTION, "int8", "tensorrt", data, **weights)
    for product in nodes(model, "MatMul"):
        assert [producer(product, index) for index in (0, 1)] == ["DequantizeLinear"] * 2


def test_conv_transpose_has_its_scales_along_the_input_channels(tmp_path: Path) -> None:
    weights = {"w": normal(0, 8, 6, 2, 2), "b": normal(1, 6)}
    data = samples("x", 1, 8, 5, 5)
    model, _ = quantized(tmp_path, UPWARDS, "int8", "tensorrt", data, **weights)
    (product,) = nodes(model, "ConvTranspose")
    value = product.inputs[1]
    assert value is not None
    made = value.producer()
    assert made is not None
    assert made.attributes.get_int("axis", 1) == 0
    assert constant(made, 1).shape == (8,)


@pytest.mark.parametrize(("scheme", "least"), [("int8-weights", 35), ("int4", 12)])
def test_weights_of_conv_transpose_on_the_cpu(tmp_path: Path, scheme: str, least: float) -> None:
    weights = {"w": normal(0, 64, 48, 2, 2), "b": normal(1, 48)}
    data = samples("x", 1, 64, 5, 5)
    text = UPWARDS.replace("1, 8,", "1, 64,").replace("1, 6,", "1, 48,")
    _, result = quantized(tmp_path, text, scheme, "cpu", data, **weights)
    assert [site.decision for site in result.plan.sites] == [scheme]
    assert result.verification is not None
    sqnr = result.verification.fidelity.sqnr_db
    assert sqnr is not None
    assert sqnr > least


def lookup(path: Path, scheme: str, target: str) -> tuple[ir.Model, QuantizeResult]:
    draw = np.random.default_rng(0)
    data = [{"ids": draw.integers(0, 2000, (1, 9))} for _ in range(12)]
    weights = {"table": normal(0, 2000, 256), "w": normal(1, 256, 64)}
    return quantized(path, LOOKUP, scheme, target, data, **weights)


def test_tensorrt_looks_up_floats(tmp_path: Path) -> None:
    model, result = lookup(tmp_path, "int8", "tensorrt")
    (gather,) = nodes(model, "Gather")
    assert constant(gather, 0).dtype == np.float32
    reasons = {site.op: site.reason for site in result.plan.sites}
    assert "cannot look up" in reasons["Gather"]


def test_tensorrt_int4_is_a_symmetric_dequantization_in_blocks(tmp_path: Path) -> None:
    model, _ = lookup(tmp_path, "int4", "tensorrt")
    assert model.opset_imports[""] >= 21
    (product,) = nodes(model, "MatMul")
    value = product.inputs[1]
    assert value is not None
    made = value.producer()
    assert made is not None
    assert made.op_type == "DequantizeLinear"
    assert made.attributes.get_int("block_size", 0) in (64, 128)
    weight = made.inputs[0]
    assert weight is not None
    assert weight.dtype == ir.DataType.INT4
    assert len(made.inputs) == 2 or not constant(made, 2).any()


TIED = """
    g (int64[1, n] ids) => (float[1, n, 2000] y) {
        rows = Gather(table, ids)
        h = Tanh(rows)
        t = Transpose <perm = [1, 0]> (table)
        y = MatMul(h, t)
    }
"""


def rows_by_flat_index(gather: ir.Node) -> Any:
    """All rows as the CUDA kernel computes them.

    It counts codes, scales and zero points through the whole table, as if no row began a byte of
    its own (onnxruntime, contrib_ops/cuda/quantization/gather_block_quantized.cu).
    """
    bits, size = (gather.attributes.get_int(name, 0) for name in ("bits", "block_size"))
    lanes, mask = 8 // bits, (1 << bits) - 1
    data, zero = constant(gather, 0), constant(gather, 3).ravel()

    def codes(packed: Any, index: Any) -> Any:
        return packed.ravel()[index // lanes].astype(np.int64) >> (index % lanes * bits) & mask

    index = np.arange(data.size * lanes)
    column = gather.inputs[2]
    assert column is not None
    reshape = column.producer()
    assert reshape is not None
    scale = constant(reshape, 0).ravel()
    found = (codes(data, index) - codes(zero, index // size)) * scale[index // size]
    return found.reshape(len(data), -1)


@pytest.mark.parametrize(("target", "right"), [("cuda", True), ("cpu", False)])
def test_rows_in_blocks_are_those_that_the_cuda_kernel_computes(
    target: str, right: bool, tmp_path: Path
) -> None:
    """Five blocks a row, an odd number, and rows far off zero, which ask for zero points."""
    draw = np.random.default_rng(0)
    data = [{"ids": draw.integers(0, 2000, (1, 9))} for _ in range(12)]
    table = normal(0, 2000, 160) + np.float32(1)
    source, output = write(tmp_path / "m.onnx", TIED, table=table), tmp_path / "o.onnx"
    recipe = Recipe.model_validate({"scheme": "int4", "weights": {"block_size": 32}})
    quantize(source, data, output, recipe=recipe, target=target, options=UNTIMED)
    model = ir.load(output)
    (gather,), (product,) = nodes(model, "GatherBlockQuantized"), nodes(model, "MatMulNBits")
    assert product.inputs[1] is gather.inputs[0]
    # Half a step of seven to either side, and a little for AWQ's and GPTQ's own choices.
    close = np.abs(rows_by_flat_index(gather) - table).max() < np.abs(table).max() / 5
    assert close == right


def test_tensorrt_leaves_a_weight_of_an_odd_last_dimension_float(tmp_path: Path) -> None:
    text = """g (float[1, 64] x) => (float[1, 5] y) {
        a = MatMul(x, w) b = Relu(a) y = MatMul(b, v)
    }"""
    weights = {"w": normal(0, 64, 64), "v": normal(1, 64, 5)}
    _, result = quantized(tmp_path, text, "int4", "tensorrt", samples("x", 1, 64), **weights)
    first, second = result.plan.sites
    assert (first.decision, second.decision) == ("int4", "float")
    assert "5, is odd" in second.reason
    assert not any(
        finding.severity == "error" for finding in lint(tmp_path / "out.onnx", "tensorrt").findings
    )


def test_tensorrt_refuses_zero_points_beside_weights(tmp_path: Path) -> None:
    source = write(tmp_path / "m.onnx", ATTENTION, **{w: normal(0, 16, 16) for w in _WEIGHTS})
    recipe = Recipe.model_validate({"scheme": "uint4"})
    with pytest.raises(UsageError, match="no zero points"):
        quantize(source, None, tmp_path / "o.onnx", recipe=recipe, target="tensorrt")
    assert not (tmp_path / "o.onnx").exists()


_WEIGHTS = ("wq", "wk", "wv", "wo")


@pytest.mark.parametrize("target", ["cuda", "tensorrt"])
def test_auto_takes_float16_where_the_gpu_is_not_here(tmp_path: Path, target: str) -> None:
    weights = {name: normal(i, 16, 16) for i, name in enumerate(_WEIGHTS)}
    data = samples("x", 1, 6, 16)
    model, result = quantized(tmp_path, ATTENTION, "auto", target, data, **weights)
    assert result.scheme == "float16"
    assert any("not part of this ONNX Runtime" in text for text in result.warnings)
    for node in nodes(model, "MatMul"):
        assert node.outputs[0].dtype == ir.DataType.FLOAT16
    assert result.verification is not None
    assert result.verification.latency is None
    assert not result.verification.kernels.counted


def test_int8_for_cuda_is_warned_of_and_written_unchanged(tmp_path: Path) -> None:
    weights = {name: normal(i, 16, 16) for i, name in enumerate(_WEIGHTS)}
    data = samples("x", 1, 6, 16)
    model, result = quantized(tmp_path, ATTENTION, "int8", "cuda", data, **weights)
    assert result.scheme == "float"
    assert not nodes(model, "QuantizeLinear")
    assert any("no integer kernels" in text for text in result.warnings)


def test_int4_and_the_rest_float16(tmp_path: Path) -> None:
    _, first = lookup(tmp_path, "int4", "cuda")
    assert first.output is not None
    output = tmp_path / "both.onnx"
    recipe = Recipe.model_validate({"scheme": "float16"})
    draw = np.random.default_rng(1)
    data = [{"ids": draw.integers(0, 2000, (1, 9))} for _ in range(6)]
    quantize(first.output, data, output, recipe=recipe, target="cuda", options=UNTIMED)
    model = ir.load(output)
    (product,) = nodes(model, "MatMulNBits")
    assert product.inputs[2] is not None
    assert product.inputs[2].dtype == ir.DataType.FLOAT16
    onnx.checker.check_model(onnx.load(output))


pytestmark = pytest.mark.skipif(
    "CUDAExecutionProvider" in available(), reason="here models are tried on the GPU itself"
)


@pytest.mark.parametrize(("target", "told"), [("cuda", True), ("tensorrt", False)])
def test_auto_says_why_not_int8(target: str, told: bool, tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", "g (float[2, 8] x) => (float[2, 8] y) { y = MatMul(x, w) }",
                 w=normal(0, 8, 8))  # fmt: skip
    found = quantize(path, None, tmp_path / "o.onnx", target=target, options=UNTIMED)
    assert found.scheme == "float16"
    assert ("not int8: ONNX Runtime's CUDA provider has no integer" in found.scheme_reason) == told
