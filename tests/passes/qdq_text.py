"""Q/DQ graphs by hand, for passes that read them: what a plan would not give as well."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from onnx import numpy_helper, parser

from onnxq.graph.shapes import infer_shapes
from onnxq.passes.execute import execute
from onnxq.plan import Plan
from tests.small_models import run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

SCALES = {"s1": 0.03, "s2": 0.02, "s3": 0.05}
OFFSETS = {"z1": 3, "z2": -5, "z3": 0}
ONLY_WRITTEN = Plan(
    onnxq_version="0",
    model_digest="",
    data_digest="",
    scheme="int8",
    format="qoperator",
    target="cpu",
    minimum_opset=13,
    independent=True,
    sites=(),
)
"""A plan that changes nothing but the form."""


def pair(value: str, which: int, result: str = "") -> str:
    """``value`` through scale and zero point number ``which``, to ``result`` or ``VALUE_d``."""
    parameters = f"s{which}, z{which}"
    return (
        f"{value}_q = QuantizeLinear({value}, {parameters})\n"
        f"{result or value + '_d'} = DequantizeLinear({value}_q, {parameters})\n"
    )


def qdq(
    body: str,
    output: int = 2,
    constants: Mapping[str, NDArray[Any]] = MappingProxyType({}),
    *,
    opset: int = 17,
    shape: str = "2, 4, 6, 6",
    dtype: type[np.integer[Any]] = np.uint8,
) -> ir.Model:
    """``x -> pair -> body -> t -> pair -> y``; ``body`` reads ``x_d`` and gives ``t``.

    Args:
        body: The nodes, in ONNX's text format.
        output: Which scale and zero point ``t`` has; ``x`` has the first.
        constants: What ``body`` reads beside.
        opset: Version of the operators.
        shape: Of ``x``.
        dtype: Type of all activations' integers.
    """
    text = f"""<ir_version: 10, opset_import: ["" : {opset}]>
        g (float[{shape}] x) => (float y) {{
            {pair("x", 1)}
            {body}
            {pair("t", output, "y")}
        }}"""
    model = parser.parse_model(text)
    middle = 128 if np.dtype(dtype).kind == "u" else 0
    scales = {name: np.asarray(s, np.float32) for name, s in SCALES.items()}
    zero_points = {name: np.asarray(middle + z, dtype) for name, z in OFFSETS.items()}
    for name, array in {**scales, **zero_points, **constants}.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    model.graph.output[0].type.tensor_type.ClearField("shape")
    found = ir.serde.deserialize_model(model)
    found.graph.outputs[0].shape = None
    for number, node in enumerate(found.graph):
        node.name = f"{node.op_type}_{number}"
    infer_shapes(found)
    # The checker wants the output's rank, which a run tells without a second inference.
    sizes = [int(size) for size in shape.split(",")]
    found.graph.outputs[0].shape = ir.Shape(run(found, {"x": np.zeros(sizes, np.float32)})[0].shape)
    return found


def written(model: ir.Model) -> ir.Model:
    """The model as operators on integers."""
    return execute(ONLY_WRITTEN, model)
