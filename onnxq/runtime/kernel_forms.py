"""The ways in which a product or a convolution can be written, as models to be timed.

Each takes float32 ``x`` and gives float32 or what stands behind a Q/DQ pair, so that the cost of
rounding activations counts; integers are random, since no kernel's time depends on them. Static
forms have uint8 activations and int8 weights per output channel, forms in blocks are asymmetric.
The first axis of ``x`` has a name and no number, as in exported models.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from onnx import TensorProto

from onnxq.runtime.kernel_shapes import ConvShape, ProductShape
from onnxq.runtime.probe_graph import OTHER_SCALE, WEIGHT_SCALE, ProbeGraph

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from onnx import ModelProto

    from onnxq.runtime.kernel_shapes import Shape

BASE: Final = "float32"
"""What the others are compared with."""
BLOCK_BITS: Final = (4, 8)
BLOCK_SIZES: Final = (32, 64, 128)
ACCURACY_LEVELS: Final = (4, 1)


@dataclass(frozen=True, slots=True)
class KernelForm:
    """A way to write it.

    Attributes:
        name: What people call it.
        bits: Of the weight.
        block_size: Of weights in blocks; None of others.
        accuracy_level: Of MatMulNBits; 4 rounds activations to int8, 1 does not. None of others.
        build: Makes the model.
    """

    name: str
    bits: int
    build: Callable[[], ModelProto]
    block_size: int | None = None
    accuracy_level: int | None = None


def kernel_forms(shape: Shape) -> tuple[KernelForm, ...]:
    """Every form of a shape, float32 first."""
    forms = [
        KernelForm(BASE, 32, partial(_float, shape, "float32")),
        KernelForm("float16", 16, partial(_float, shape, "float16")),
        KernelForm("int8 folded", 8, partial(_folded, shape)),
        KernelForm("int8 static, quantized output", 8, partial(_static, shape, True)),
    ]
    if isinstance(shape, ProductShape):
        forms.append(KernelForm("int8 static, float output", 8, partial(_static, shape, False)))
    forms.append(KernelForm("int8 dynamic", 8, partial(_dynamic, shape)))
    if isinstance(shape, ProductShape):
        forms.extend(_in_blocks(shape))
    return tuple(forms)


def product_in_blocks(
    inner: int, columns: int, bits: int, block_size: int, accuracy_level: int
) -> ModelProto:
    """MatMulNBits of a random asymmetric weight, for any number of rows."""
    draw = np.random.default_rng(0)
    blocks = -(-inner // block_size)
    packed = draw.integers(0, 256, (columns, blocks, block_size * bits // 8), np.uint8)
    zeros = draw.integers(0, 256, (columns, -(-blocks * bits // 8)), np.uint8)
    graph = ProbeGraph("uint8")
    graph.inputs["x"] = ("rows", inner)
    inputs = [
        "x",
        graph.constant("packed", packed),
        graph.constant("scales", draw.random((columns, blocks), np.float32)),
        graph.constant("zeros", zeros),
    ]
    attributes = {
        "K": inner,
        "N": columns,
        "bits": bits,
        "block_size": block_size,
        "accuracy_level": accuracy_level,
    }
    return graph.finish(graph.node("MatMulNBits", inputs, "y", attributes, "com.microsoft"))


def product(inner: int, columns: int) -> ModelProto:
    """MatMul of a random float32 weight, for any number of rows."""
    return _float(ProductShape(1, inner, columns), BASE)


def _in_blocks(shape: ProductShape) -> Iterator[KernelForm]:
    for bits in BLOCK_BITS:
        for size in BLOCK_SIZES:
            for level in ACCURACY_LEVELS:
                name = f"int{bits} block {size}, level {level}"
                made = partial(product_in_blocks, shape.inner, shape.columns, bits, size, level)
                yield KernelForm(name, bits, made, size, level)


def _start(shape: Shape) -> tuple[ProbeGraph, tuple[int | str, ...]]:
    """An empty graph, and the shape of ``x`` in it."""
    return ProbeGraph("uint8"), ("rows", *shape.input[1:])


def _multiply(graph: ProbeGraph, shape: Shape, x: str, weight: str) -> str:
    if isinstance(shape, ProductShape):
        return graph.node("MatMul", [x, weight], "value", {})
    return graph.node("Conv", [x, weight], "value", _attributes(shape))


def _attributes(shape: ConvShape) -> dict[str, Any]:
    height, width = shape.kernel
    pads = [(height - 1) // 2, (width - 1) // 2, height // 2, width // 2]
    return {"pads": pads, "strides": [shape.stride] * 2, "group": shape.groups}


def _weight(shape: Shape) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(shape.weight, np.float32)


def _float(shape: Shape, dtype: str) -> ModelProto:
    graph, dims = _start(shape)
    graph.inputs["x"] = dims
    weight = graph.constant("weight", _weight(shape).astype(dtype))
    if dtype == BASE:
        return graph.finish(_multiply(graph, shape, "x", weight))
    x = graph.node("Cast", ["x"], "x_half", {"to": TensorProto.FLOAT16})
    value = _multiply(graph, shape, x, weight)
    return graph.finish(graph.node("Cast", [value], "y", {"to": TensorProto.FLOAT}))


def _folded(shape: Shape) -> ModelProto:
    graph, dims = _start(shape)
    graph.inputs["x"] = dims
    per_channel = [1] * len(shape.weight)
    per_channel[1 if isinstance(shape, ProductShape) else 0] = -1
    columns = shape.columns if isinstance(shape, ProductShape) else shape.outputs
    scale = np.full(columns, WEIGHT_SCALE, np.float32).reshape(per_channel)
    names = [graph.constant("weight_q", _integers(shape)), graph.constant("weight_scale", scale)]
    graph.node("Cast", names[:1], "weight_cast", {"to": TensorProto.FLOAT})
    weight = graph.node("Mul", ["weight_cast", names[1]], "weight", {})
    return graph.finish(_multiply(graph, shape, "x", weight))


def _static(shape: Shape, quantized_output: bool) -> ModelProto:
    graph, dims = _start(shape)
    x = graph.source("x", dims)
    weight = graph.weight(shape.weight, 1 if isinstance(shape, ProductShape) else 0)
    value = _multiply(graph, shape, x, weight)
    return graph.finish(graph.pair(value, "y", OTHER_SCALE) if quantized_output else value)


def _dynamic(shape: Shape) -> ModelProto:
    graph, dims = _start(shape)
    graph.inputs["x"] = dims
    if isinstance(shape, ProductShape):
        op, attributes = "MatMulInteger", {}
    else:
        op, attributes = "ConvInteger", _attributes(shape)
    weight = graph.constant("weight_q", _integers(shape))
    return graph.finish(graph.quantized_at_run_time(op, "x", weight, attributes))


def _integers(shape: Shape) -> NDArray[np.int8]:
    return np.random.default_rng(0).integers(-100, 101, shape.weight, np.int8)
