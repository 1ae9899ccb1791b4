"""Bit for bit what ONNX Runtime's own QuantizeLinear and DequantizeLinear compute."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from onnxq.numerics.affine import dequantize, qparams_from_range, quantize, weight_range
from onnxq.numerics.schemes import Granularity, PerAxis, PerBlock, PerTensor, QParams, Scheme

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPE = (6, 37)
GRANULARITIES = [PerTensor(), PerAxis(0), PerAxis(1), PerBlock(16, 1), PerBlock(4, 0)]
SCHEMES = [
    Scheme(bits=bits, signed=signed, symmetric=symmetric)
    for bits in (4, 8, 16)
    for signed in (False, True)
    for symmetric in (False, True)
]
ONNX_TYPE = {
    (4, False): TensorProto.UINT4,
    (4, True): TensorProto.INT4,
    (8, False): TensorProto.UINT8,
    (8, True): TensorProto.INT8,
    (16, False): TensorProto.UINT16,
    (16, True): TensorProto.INT16,
}


@cache
def reference(bits: int, signed: bool, granularity: Granularity) -> ort.InferenceSession:
    """Q and DQ as two outputs; scales and integers are inputs (4 bits pass through a Cast)."""
    match granularity:
        case PerTensor():
            axis, size = None, None
        case PerAxis(axis):
            size = None
        case PerBlock(size, axis):
            pass
    narrow = ONNX_TYPE[bits, signed]
    wide = ONNX_TYPE[max(bits, 8), signed]
    nodes = [
        helper.make_node("Cast", ["zero_point"], ["zero"], to=narrow),
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["narrow_q"]),
        helper.make_node("DequantizeLinear", ["narrow_q", "scale", "zero"], ["y"]),
        helper.make_node("Cast", ["narrow_q"], ["q"], to=wide),
    ]
    for node in nodes[1:3]:  # an attribute of None is left out
        present = {"axis": axis, "block_size": size}.items()
        node.attribute.extend(
            helper.make_attribute(key, value) for key, value in present if value is not None
        )
    graph = helper.make_graph(
        nodes,
        "reference",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("scale", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("zero_point", wide, None),
        ],
        [
            helper.make_tensor_value_info("q", wide, None),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def check(x: NDArray[np.float32], params: QParams) -> None:
    scheme = params.scheme
    session = reference(scheme.bits, scheme.signed, scheme.granularity)
    feeds = {"x": x, "scale": params.scale, "zero_point": params.zero_point}
    q, y = session.run(["q", "y"], feeds)
    ours = quantize(x, params)
    assert ours.dtype == q.dtype
    np.testing.assert_array_equal(ours, q)
    back = dequantize(ours, params)
    assert back.dtype == y.dtype
    np.testing.assert_array_equal(back.view(np.uint32), y.view(np.uint32))


@pytest.mark.parametrize("granularity", GRANULARITIES, ids=repr)
@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.label)
def test_random_values(scheme: Scheme, granularity: Granularity) -> None:
    rng = np.random.default_rng(3)
    scheme = replace(scheme, granularity=granularity)
    for exponent in (-20, 0, 12):
        x = (rng.standard_normal(SHAPE) * 2.0**exponent + rng.uniform(-1, 1)).astype(np.float32)
        params = qparams_from_range(*weight_range(x, granularity), scheme)
        check(x, params)
        check(x * np.float32(3), params)  # a third of the values saturates


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.label)
def test_ties_neighbours_and_extremes(scheme: Scheme) -> None:
    for low, high in ((-1.0, 1.0), (0.0, 6.0), (-5.0, 0.1), (-64.0, 191.0), (0.0, 1e-44), (0, 0)):
        params = qparams_from_range(low, high, scheme)
        first, last = scheme.qmin - int(params.zero_point), scheme.qmax - int(params.zero_point)
        steps = np.linspace(first - 3, last + 3, 2 * (min(last - first, 3000) + 6) + 1)
        halves = (np.rint(2 * steps) / 2 * np.float64(params.scale)).astype(np.float32)
        infinite = np.float32(np.inf)
        x = np.concatenate(
            [
                halves,
                np.nextafter(halves, infinite),
                np.nextafter(halves, -infinite),
                np.asarray([0.0, -0.0, 1e-45, -1e-45, 3e38, -3e38, np.inf, -np.inf], np.float32),
            ]
        )
        check(x, params)
