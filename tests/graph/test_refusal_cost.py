"""The costliest model files: refused within 10 seconds and 1 GiB over what was there."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import onnx
import pytest
from onnx import TensorProto, helper

from onnxq.errors import ModelError
from onnxq.graph import io, limits
from tests.cost import bounded
from tests.graph.test_wire import field, length, subgraphs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measured as Linux tells")

NODE, ATTRIBUTE, INITIALIZER = 1, 5, 5
"""Field numbers in a graph, in a node, in a graph."""
HALF = 1 << 29
NESTED = 2000


def graph(*fields: bytes) -> bytes:
    return field(onnx.ModelProto.GRAPH_FIELD_NUMBER, b"".join(fields))


def hole(path: Path, wrapping: tuple[int, ...], size: int) -> None:
    """Zeros in a field inside others: a number each where numbers are packed."""
    head = b""
    for number in reversed(wrapping):
        head = length(number << 3 | 2) + length(size + len(head)) + head
    with path.open("wb") as stream:
        stream.write(head)
        stream.truncate(len(head) + size)


def deep_types() -> bytes:
    kind = b""
    for _ in range(NESTED):
        kind = field(4, field(1, kind))
    return graph(field(11, field(2, kind)))


def model(nodes: list[onnx.NodeProto], tensors: list[TensorProto]) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes, "g", [value("x", 1, ["N", 8])], [value("y", 1, ["N", 8])], tensors
    )
    return helper.make_model(made, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])


def cycle(count: int, attributes: int) -> bytes:
    """As many nodes as may be, in a ring: the last thing that is found."""
    nodes = [
        helper.make_node("Sum", [f"v{i}", "x"], [f"v{(i + 1) % count}"], a=1.0, b=2.0)
        if attributes
        else helper.make_node("Sum", [f"v{i}", "x"], [f"v{(i + 1) % count}"])
        for i in range(count)
    ]
    nodes.append(helper.make_node("Neg", ["v0"], ["y"]))
    return model(nodes, []).SerializeToString()


def billion_calls() -> bytes:
    made = model([helper.make_node("f0", ["x"], ["y"], domain="local")], [])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    made.opset_import.add(domain="local", version=1)
    for depth in range(30):
        names = [f"f{depth + 1}" if depth < 29 else "Neg"] * 10
        nodes = [
            helper.make_node(name, [f"v{i}"], [f"v{i + 1}"], domain="local" if depth < 29 else "")
            for i, name in enumerate(names)
        ]
        made.functions.append(
            helper.make_function("local", f"f{depth}", ["v0"], ["v10"], nodes, imports)
        )
    return made.SerializeToString()


def endless_functions() -> bytes:
    """Each of 5,000 calls the next, and the last the first."""
    made = model([helper.make_node("f0", ["x"], ["y"], domain="local")], [])
    made.opset_import.add(domain="local", version=1)
    for i in range(5000):
        node = helper.make_node(f"f{(i + 1) % 5000}", ["a"], ["b"], domain="local")
        imports = [helper.make_opsetid("local", 1)]
        made.functions.append(helper.make_function("local", f"f{i}", ["a"], ["b"], [node], imports))
    return made.SerializeToString()


def huge_dims() -> bytes:
    tensors = [TensorProto(name=f"w{i}", data_type=1, dims=[1 << 40]) for i in range(1000)]
    return model([helper.make_node("Neg", ["x"], ["y"])], tensors).SerializeToString()


FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "deep messages": (deep_types, "too_large"),
    "deep subgraphs": (lambda: subgraphs(NESTED), "too_large"),
    "empty nodes": (lambda: graph(field(NODE, b"") * 3_000_000), "too_large"),
    "numbers one by one": (
        lambda: graph(field(NODE, field(ATTRIBUTE, b"\x40\x01" * 10_000_000))),
        "too_large",
    ),
    "empty strings": (
        lambda: graph(field(NODE, field(ATTRIBUTE, field(9, b"") * 4_000_000))),
        "too_large",
    ),
    "empty initializers": (lambda: graph(field(INITIALIZER, b"") * 400_000), "too_large"),
    "a long name": (lambda: graph(field(NODE, field(3, b"n" * (1 << 26)))), "too_large"),
    "a ring of nodes": (lambda: cycle(limits.NODES - 1, 0), "cycle"),
    "a ring of nodes with attributes": (lambda: cycle(60_000, 2), "cycle"),
    "a billion calls": (billion_calls, "too_large"),
    "endless functions": (endless_functions, "recursion"),
    "huge dims": (huge_dims, "tensor_length"),
}
HOLES: dict[str, tuple[tuple[int, ...], int, str]] = {
    "numbers of an attribute": ((7, NODE, ATTRIBUTE, 8), HALF, "too_large"),
    "floats of an attribute": ((7, NODE, ATTRIBUTE, 7), HALF, "too_large"),
    "dimensions": ((7, INITIALIZER, 1), HALF, "too_large"),
    "int64 elements": ((7, INITIALIZER, 7), HALF, "too_large"),
    "int64 elements, 2 GiB": ((7, INITIALIZER, 7), (1 << 31) - 64, "too_large"),
    "raw elements, 2 GiB": ((7, INITIALIZER, 9), (1 << 31) - 64, "tensor_type"),
    "text": ((7, 10), HALF, "too_large"),
    "text of some size": ((7, 10), 200 << 20, "truncated"),
    "bytes of an attribute": ((7, NODE, ATTRIBUTE, 4), HALF, "too_large"),
    "nothing but zeros": ((), HALF, "too_large"),
    "a file above 2 GiB": ((), 1 << 40, "too_large"),
}


def refused(path: Path, code: str) -> None:
    with bounded(), pytest.raises(ModelError) as caught:
        io.load(path)
    assert caught.value.code == f"graph.{code}"
    assert str(path) in caught.value.where
    assert caught.value.remedy
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize("name", FILES)
def test_files(tmp_path: Path, name: str) -> None:
    make, code = FILES[name]
    (tmp_path / "m.onnx").write_bytes(make())
    refused(tmp_path / "m.onnx", code)


@pytest.mark.parametrize("name", HOLES)
def test_sparse_files(tmp_path: Path, name: str) -> None:
    wrapping, size, code = HOLES[name]
    hole(tmp_path / "m.onnx", wrapping, size)
    refused(tmp_path / "m.onnx", code)


@pytest.mark.parametrize(
    ("dims", "size", "length", "code"),
    [
        ([1 << 40], 1 << 42, 1 << 42, "too_large"),
        ([8], 1 << 42, 32, "too_large"),
        ([1 << 60], 1024, 1 << 62, "external_truncated"),
        ([8], 1024, 1 << 62, "external_length"),
    ],
)
def test_external_data(tmp_path: Path, dims: list[int], size: int, length: int, code: str) -> None:
    tensor = TensorProto(name="w", data_type=1, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": "w", "offset": "0", "length": str(length)}.items():
        tensor.external_data.add(key=key, value=value)
    made = model([helper.make_node("MatMul", ["x", "w"], ["y"])], [tensor])
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    with (tmp_path / "w").open("wb") as stream:
        stream.truncate(size)
    refused(tmp_path / "m.onnx", code)


@pytest.mark.parametrize("kind", ["fifo", "device", "loop"])
@pytest.mark.parametrize("place", ["m.onnx", "w"])
def test_no_files(tmp_path: Path, kind: str, place: str) -> None:
    tensor = TensorProto(name="w", data_type=1, dims=[8], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="w")
    made = model([helper.make_node("Mul", ["x", "w"], ["y"])], [tensor])
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    path = tmp_path / place
    path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if kind == "device" else path)
    codes = {"fifo": "external_not_a_file", "device": "external_link", "loop": "external_missing"}
    refused(tmp_path / "m.onnx", "cannot_read" if place == "m.onnx" else codes[kind])
