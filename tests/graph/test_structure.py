"""Signature, counts and multiply-accumulates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxq.graph import io
from onnxq.graph.structure import InputSpec, macs, signature, summary

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Parse = Callable[[str], ir.Model]


def test_signature(parse: Parse) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    agraph (float[N,4] x, int64 n, float[2] k = {1, 2}, seq(float[2]) s) => (float[N,4] y)
    { y = Relu(x) }"""
    assert signature(parse(text)) == (
        InputSpec("x", np.dtype(np.float32), ("N", 4), required=True),
        InputSpec("n", np.dtype(np.int64), (), required=True),
        InputSpec("k", np.dtype(np.float32), (2,), required=False),
        InputSpec("s", None, (2,), required=True),
    )


def test_signature_without_rank(linear: Path) -> None:
    proto = onnx.load(linear)
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    linear.write_bytes(proto.SerializeToString())
    (spec,) = signature(io.load(linear))
    assert (spec.shape, spec.rank_known) == ((), False)


@pytest.mark.parametrize("dim", [None, -1, "?"])
def test_signature_of_an_unknown_length(linear: Path, dim: int | str | None) -> None:
    proto = onnx.load(linear)
    entry = proto.graph.input[0].type.tensor_type.shape.dim[0]
    entry.ClearField("dim_param")
    if isinstance(dim, int):
        entry.dim_value = dim
    elif dim is not None:
        entry.dim_param = dim
    linear.write_bytes(proto.SerializeToString())
    assert signature(io.load(linear))[0].shape == (None, 16)


def test_summary(linear: Path) -> None:
    result = summary(io.load(linear))
    assert dict(result.ops) == {"MatMul": 2}
    assert (result.nodes, result.functions) == (2, 0)
    assert (result.parameters, result.weight_bytes) == (768, 3072)
    assert (dict(result.opsets), result.ir_version, result.producer) == ({"": 17}, 8, "a test")
    assert [(v.name, v.type_text, v.shape) for v in result.inputs] == [
        ("x", "FLOAT", ("batch", 16))
    ]
    assert [v.name for v in result.outputs] == ["y"]


def test_observed_shapes_give_macs(linear: Path) -> None:
    first, second = io.load(linear).graph
    assert macs(first) is None
    shapes = {"x": (5, 16), "h": (5, 32), "y": (5, 8)}
    assert macs(first, shapes) == 5 * 16 * 32
    assert macs(second, shapes) == 5 * 32 * 8


@pytest.mark.parametrize(
    ("op", "attributes", "shapes", "wanted"),
    [
        ("MatMul", {}, ((7, 4, 16), (7, 16, 3), (7, 4, 3)), 7 * 4 * 16 * 3),
        ("MatMul", {}, ((16,), (16, 3), (3,)), 48),
        ("Gemm", {"transA": 1}, ((16, 4), (16, 3), (4, 3)), 16 * 12),
        ("Conv", {"group": 8}, ((1, 8, 6), (8, 1, 3), (1, 8, 4)), 8 * 4 * 3),
        ("ConvTranspose", {}, ((1, 8, 6), (8, 5, 3), (1, 5, 8)), 8 * 6 * 5 * 3),
        ("Relu", {}, ((2,), (2,), (2,)), None),
    ],
)
def test_macs(
    op: str,
    attributes: dict[str, int],
    shapes: tuple[tuple[int, ...], ...],
    wanted: int | None,
) -> None:
    values = [ir.val(name, ir.DataType.FLOAT) for name in "ab"]
    node = ir.node(op, values, attributes=attributes)
    node.outputs[0].name = "out"
    assert macs(node, dict(zip(("a", "b", "out"), shapes, strict=True))) == wanted
