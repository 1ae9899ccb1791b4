"""Small models for the rules: Q/DQ graphs as text, and constants by name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper, parser

from onnxq.graph.edit import all_nodes
from onnxq.graph.names import UniqueNamesPass
from onnxq.graph.shapes import infer_shapes
from onnxq.lint.view import View
from onnxq.runtime.kernels import executed
from onnxq.runtime.machine import inspect_machine
from onnxq.runtime.session import SessionSettings, open_session

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxq.runtime.machine import Machine
    from onnxq.runtime.session import Optimization

    Array = NDArray[Any]

Constants = dict[str, Any]

RNG: Final = np.random.default_rng(0)
F32: Final = np.float32
W8: Final = RNG.integers(-60, 60, (16, 32)).astype(np.int8)
KERNEL8: Final = RNG.integers(-60, 60, (8, 8, 3, 3)).astype(np.int8)
CHANNELS: Final = np.linspace(0.001, 0.02, 32).astype(F32)
PARAMETERS: Final[Mapping[str, Any]] = {
    "s": F32(0.03),
    "z": np.uint8(128),
    "s2": F32(0.1),
    "z2": np.uint8(128),
}
MATRIX: Final[Mapping[str, Any]] = {"w": W8, "ws": CHANNELS, "wz": np.zeros(32, np.int8)}
CONV: Final[Mapping[str, Any]] = {"w": KERNEL8, "ws": CHANNELS[:8], "wz": np.zeros(8, np.int8)}
PAIR: Final = "xq = QuantizeLinear(x, s, z) xd = DequantizeLinear(xq, s, z)"
OUT: Final = "tq = QuantizeLinear(t, s2, z2) y = DequantizeLinear(tq, s2, z2)"


def proto(
    text: str, *, opset: int = 17, domains: Mapping[str, int] | None = None, **constants: Any
) -> onnx.ModelProto:
    """A model of nodes with names, from the text of its graph and its constants."""
    imports = {"": opset, "com.microsoft": 1, **(domains or {})}
    listed = ", ".join(f'"{domain}" : {version}' for domain, version in imports.items())
    ir_version = 9 if opset < 21 else 10 if opset < 26 else 13
    model = parser.parse_model(f"<ir_version: {ir_version}, opset_import: [{listed}]> {text}")
    for name, array in constants.items():
        if isinstance(array, onnx.TensorProto):
            model.graph.initializer.append(array)
        else:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    return model


def packed(name: str, array: Array) -> onnx.TensorProto:
    """A tensor of 4-bit integers."""
    return ir.serde.serialize_tensor(ir.tensor(array, name=name))


def matmul(middle: str = "t = MatMul(xd, wd)", behind: str = OUT, axis: int = 1) -> str:
    """``x -> pair -> MatMul -> pair -> y``, with what stands in the middle and behind."""
    weight = f"wd = DequantizeLinear<axis = {axis}>(w, ws, wz)"
    return f"g (float[4, 16] x) => (float[4, 32] y) {{ {PAIR} {weight} {middle} {behind} }}"


def conv(middle: str = "t = Conv(xd, wd)", behind: str = OUT, axis: int = 0) -> str:
    """The same of a Conv with eight channels."""
    weight = f"wd = DequantizeLinear<axis = {axis}>(w, ws, wz)"
    values = "(float[1, 8, 10, 10] x) => (float[1, 8, 8, 8] y)"
    return f"g {values} {{ {PAIR} {weight} {middle} {behind} }}"


def plain(text: str, of: str = "float[4, 16]", to: str = "") -> str:
    """``x -> text -> y``."""
    return f"g ({of} x) => ({to or of} y) {{ {text} }}"


def as_input(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The model with an initializer among its inputs."""
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    value = helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))
    model.graph.input.append(value)
    return model


def without_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with nameless nodes."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    model = copy
    for node in model.graph.node:
        node.name = ""
    return model


def machine(*, vnni: bool = True) -> Machine:
    """An x86 processor."""
    isa = frozenset({"avx2", "avx512_vnni"} if vnni else {"avx2"})
    return replace(inspect_machine(), architecture="x86_64", isa=isa)


def view_of(model: onnx.ModelProto, target: str, *, vnni: bool = True) -> View:
    """What a check sees where ONNX Runtime is not asked."""
    found = ir.serde.deserialize_model(model)
    before = [node.name for node in all_nodes(found)]
    UniqueNamesPass()(found)
    infer_shapes(found)
    names = [node.name or "" for node in all_nodes(found)]
    renamed = {name for name, old in zip(names, before, strict=True) if name != old}
    return View(found, target, machine(vnni=vnni), frozenset(renamed))


def write(model: onnx.ModelProto, path: Path) -> Path:
    """The model as a file."""
    onnx.save(model, path)
    return path


def ops(model: onnx.ModelProto) -> list[str]:
    """The operators that ONNX Runtime executes."""
    return [node.op for node in executed(model.SerializeToString())]


def outputs(
    model: onnx.ModelProto, feeds: Mapping[str, Array], optimization: Optimization
) -> Array:
    """The first output."""
    settings = SessionSettings(optimization=optimization, threads=1, spinning=False)
    return open_session(model.SerializeToString(), settings).run(feeds)[0]
