"""The sizes of a model's products and convolutions, on data and without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from onnxq.errors import ModelError
from onnxq.runtime.kernel_shapes import ConvShape, ProductShape
from onnxq.stages.model_shapes import model_shapes
from tests.small_models import normal, write

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """g (float[n, s, 8] x) => (float[n, s, 4] y) {
    [one] a = MatMul(x, u)
    [two] b = Tanh(a)
    [three] c = MatMul(b, v)
    [four] y = MatMul(c, w)
}"""


def test_products_by_their_multiplications(tmp_path: Path) -> None:
    weights = {"u": normal(0, 8, 8), "v": normal(1, 8, 8), "w": normal(2, 8, 4)}
    model = write(tmp_path / "m.onnx", TEXT, **weights)
    first, second = model_shapes(model, [{"x": normal(3, 2, 5, 8)}])
    assert (first.shape, first.sites) == (ProductShape(10, 8, 8), ("one", "three"))
    assert (second.shape, second.sites) == (ProductShape(10, 8, 4), ("four",))
    assert [first.share, second.share] == pytest.approx([0.8, 0.2])
    # Without data the sample is one of the lengths that are made up.
    assert model_shapes(model)[0].shape == ProductShape(32, 8, 8)


def test_convolutions_and_gemm(tmp_path: Path) -> None:
    text = """g (float[1, 4, 8, 8] x) => (float[1, 3] y) {
        [plain] a = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(x, k)
        [depthwise] b = Conv<pads = [1, 1, 1, 1], group = 6>(a, d)
        [dilated] c = Conv<dilations = [2, 2]>(b, f)
        m = GlobalAveragePool(c)
        n = Flatten(m)
        [head] y = Gemm<transB = 1>(n, h)
    }"""
    weights = {
        "k": normal(0, 6, 4, 3, 3),
        "d": normal(1, 6, 1, 3, 3),
        "f": normal(2, 6, 6, 2, 2),
        "h": normal(3, 3, 6),
    }
    found = model_shapes(write(tmp_path / "m.onnx", text, **weights))
    assert {entry.shape: entry.sites for entry in found} == {
        ConvShape(1, 4, 8, 8, 6, (3, 3), stride=2): ("plain",),
        ConvShape(1, 6, 4, 4, 6, (3, 3), groups=6): ("depthwise",),
        ProductShape(1, 6, 3): ("head",),
    }
    assert sum(entry.share for entry in found) == pytest.approx(1)


def test_a_quantized_model_is_called_so(tmp_path: Path) -> None:
    text = """g (float[2, 4] x) => (float[2, 3] y) {
        q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
        w = DequantizeLinear(u, s) y = MatMul(d, w)
    }"""
    constants: dict[str, Any] = {
        "s": np.float32(0.1),
        "z": np.uint8(3),
        "u": np.ones((4, 3), np.int8),
    }
    model = write(tmp_path / "m.onnx", text, **constants)
    with pytest.raises(ModelError, match=r"quantized already \(QDQ: 1 Quant") as caught:
        model_shapes(model)
    assert caught.value.remedy == "name the float model"


def test_a_model_without_any(tmp_path: Path) -> None:
    model = write(tmp_path / "m.onnx", "g (float[2] x) => (float[2] y) { y = Tanh(x) }")
    with pytest.raises(ModelError, match="no product") as caught:
        model_shapes(model, [{"x": np.ones(2, np.float32)}])
    assert caught.value.where == str(model)
