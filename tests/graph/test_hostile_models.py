"""Each way in which a model file can be broken or hostile: refused by name, or read and sound."""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper, parser

from onnxq.errors import ModelError
from onnxq.graph import io, limits
from onnxq.graph.normalize import normalize

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HEAD = '<ir_version: 9, opset_import: ["" : 17]>'
PLAIN = "g (float[N, 8] x) => (float[N, 4] y) { h = Tanh(x) y = MatMul(h, w) }"


def _plain() -> onnx.ModelProto:
    model = parser.parse_model(f"{HEAD} {PLAIN}")
    weight = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    return model


def _refusal(model: onnx.ModelProto | bytes, folder: Path) -> ModelError:
    path = folder / "hostile.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    with pytest.raises(ModelError) as caught:
        io.load(path)
    error = caught.value
    assert error.remedy
    assert str(path) in error.where
    assert len(str(error)) < 1000
    return error


def _edited(edit: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    model = _plain()
    edit(model)
    return model


def _weight(**fields: Any) -> onnx.ModelProto:
    """The plain model, its weight replaced by one with these fields."""
    model = _plain()
    model.graph.initializer[0].CopyFrom(TensorProto(name="w", **fields))
    return model


def _append(field: str, index: int = 0) -> Callable[[onnx.ModelProto], object]:
    """Repeat an element of one of the graph's lists."""

    def edit(model: onnx.ModelProto) -> None:
        items = getattr(model.graph, field)
        items.add().CopyFrom(items[index])

    return edit


def _set(path: str, value: object) -> Callable[[onnx.ModelProto], object]:
    def edit(model: onnx.ModelProto) -> None:
        owner, _, name = path.rpartition(".")
        setattr(model.graph if owner else model, name, value)

    return edit


GRAPHS: dict[str, tuple[Callable[[onnx.ModelProto], object], str, str]] = {
    "an initializer is missing": (lambda m: m.graph.ClearField("initializer"), "undefined", "'w'"),
    "an initializer is doubled": (_append("initializer"), "doubled", "'w'"),
    "an initializer has no name": (
        lambda m: m.graph.initializer.add(data_type=1, float_data=[1], dims=[1]),
        "nameless",
        "without a name",
    ),
    "a node is doubled": (_append("node"), "doubled", "'h'"),
    "an input is doubled": (_append("input"), "doubled", "'x'"),
    "a node makes an input": (lambda m: m.graph.node[0].output.append("x"), "doubled", "'x'"),
    "a node makes a weight": (lambda m: m.graph.node[0].output.append("w"), "doubled", "'w'"),
    "nobody makes an output": (
        lambda m: m.graph.output.add().CopyFrom(helper.make_tensor_value_info("z", 1, [1])),
        "undefined",
        "'z'",
    ),
    "the outputs are missing": (lambda m: m.graph.ClearField("output"), "truncated", "outputs"),
    "a cycle": (lambda m: m.graph.node[0].input.__setitem__(0, "y"), "cycle", "cycle"),
    "IR version 2": (_set("ir_version", 2), "ir_version", "IR version 2"),
    "IR version of the future": (_set("ir_version", 10**9), "ir_version", "1000000000"),
    "negative IR version": (_set("ir_version", -1), "ir_version", "IR version -1"),
    "no IR version": (_set("ir_version", 0), "truncated", "IR version"),
    "opset 0": (lambda m: setattr(m.opset_import[0], "version", 0), "opset_version", "opset 0"),
    "negative opset": (
        lambda m: setattr(m.opset_import[0], "version", -5),
        "opset_version",
        "opset -5",
    ),
    "opset of the future": (
        lambda m: setattr(m.opset_import[0], "version", onnx.defs.onnx_opset_version() + 1),
        "opset_version",
        "ai.onnx",
    ),
    "absurd opset": (
        lambda m: setattr(m.opset_import[0], "version", 10**9),
        "opset_version",
        "1000000000",
    ),
    "absurd opset of another domain": (
        lambda m: m.opset_import.add(domain="mine", version=1 << 40),
        "opset_version",
        "'mine'",
    ),
    "two opsets": (lambda m: m.opset_import.add(domain="", version=18), "opset_version", "two"),
    "an input of an unknown type": (
        lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 1000),
        "tensor_type",
        "1000",
    ),
    "an input of rank 65": (
        lambda m: [m.graph.input[0].type.tensor_type.shape.dim.add(dim_value=1) for _ in range(63)],
        "tensor_dims",
        "65 dimensions",
    ),
    "sparse weights": (lambda m: m.graph.sparse_initializer.add(), "sparse", "sparse"),
    "an attribute without a type": (
        lambda m: m.graph.node[0].attribute.add(name="body"),
        "attribute_type",
        "'body'",
    ),
    "an attribute that refers to nothing": (
        lambda m: m.graph.node[0].attribute.add(name="alpha", type=1, ref_attr_name="a"),
        "attribute_reference",
        "'alpha'",
    ),
}


@pytest.mark.parametrize("case", GRAPHS)
def test_a_broken_graph_is_refused_by_name(case: str, tmp_path: Path) -> None:
    edit, code, says = GRAPHS[case]
    error = _refusal(_edited(edit), tmp_path)
    assert error.code == f"graph.{code}"
    assert says in error.message


BYTES = np.zeros((8, 4), np.float32).tobytes()
TENSORS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no type": ({"dims": [8, 4], "raw_data": BYTES}, "type", "no element type"),
    "an unknown type": ({"data_type": 99, "dims": [8, 4], "raw_data": BYTES}, "type", "99"),
    "a negative type": ({"data_type": -1, "dims": [8, 4]}, "type", "-1"),
    "a negative dimension": ({"data_type": 1, "dims": [-8, -4]}, "dims", "[-8, -4]"),
    "dimensions that overflow": (
        {"data_type": 1, "dims": [1 << 32, 1 << 32], "raw_data": BYTES},
        "dims",
        "too many",
    ),
    "zero times more than can be": (
        {"data_type": 1, "dims": [0, 1 << 62, 1 << 62]},
        "dims",
        "too many",
    ),
    "rank 65": ({"data_type": 1, "dims": [1] * 65, "float_data": [1]}, "dims", "65"),
    "a huge shape and nothing in it": ({"data_type": 1, "dims": [1 << 40]}, "length", "0 elements"),
    "bytes that are too few": ({"data_type": 1, "dims": [8, 4], "raw_data": b"1"}, "length", "1 b"),
    "bytes that are too many": ({"data_type": 1, "dims": [8], "raw_data": BYTES}, "length", "128"),
    "another field": ({"data_type": 2, "dims": [1], "float_data": [1]}, "field", "int32_data"),
    "two fields": (
        {"data_type": 1, "dims": [1], "float_data": [1], "int32_data": [1]},
        "field",
        "int32_data",
    ),
    "a field and raw": (
        {"data_type": 1, "dims": [1], "float_data": [1], "raw_data": b"1234"},
        "field",
        "beside raw_data",
    ),
    "raw strings": ({"data_type": 8, "dims": [1], "raw_data": b"1"}, "field", "string_data"),
    "too few strings": ({"data_type": 8, "dims": [2], "string_data": [b"a"]}, "length", "1 el"),
    "too few halves": ({"data_type": 10, "dims": [2], "int32_data": [1]}, "length", "1 el"),
    "too few nibbles": ({"data_type": 22, "dims": [3], "int32_data": [1]}, "length", "1 el"),
}


@pytest.mark.parametrize("case", TENSORS)
@pytest.mark.parametrize("place", ["initializer", "attribute"])
def test_a_tensor_that_does_not_fit_is_refused(case: str, place: str, tmp_path: Path) -> None:
    fields, code, says = TENSORS[case]
    model = _weight(**fields)
    if place == "attribute":
        node = helper.make_node("Constant", [], ["w"])
        node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(
            model.graph.initializer[0]
        )
        model.graph.ClearField("initializer")
        model.graph.node.insert(0, node)
    error = _refusal(model, tmp_path)
    assert error.code == f"graph.tensor_{code}"
    assert says in error.message
    assert "'w'" in error.where


@pytest.mark.parametrize("kind", [kind for kind in ir.DataType if kind.name != "UNDEFINED"])
def test_every_type_is_read_from_its_own_field(kind: ir.DataType, tmp_path: Path) -> None:
    """What onnx itself writes there."""
    if "FLOAT6" in kind.name:
        pytest.skip("onnx writes no tensors of six bits")
    values: Any = [b"a", b"b", b"c"] if kind.name == "STRING" else [1, 0, 1]
    model = _plain()
    model.graph.initializer.append(helper.make_tensor("t", kind.value, [3], values))
    path = tmp_path / "typed.onnx"
    onnx.save(model, path)
    tensor = io.load(path).graph.initializers["t"].const_value
    assert tensor is not None
    assert tensor.size == 3


def test_unsorted_nodes_are_sorted(tmp_path: Path) -> None:
    model = _plain()
    model.graph.node.reverse()
    onnx.save(model, tmp_path / "m.onnx")
    assert [node.op_type for node in io.load(tmp_path / "m.onnx").graph] == ["Tanh", "MatMul"]


def test_unsorted_nodes_of_a_body_are_sorted(tmp_path: Path) -> None:
    text = """g (float[N, 8] x, bool c) => (float[N, 8] y) {
        y = If(c) <then_branch = t () => (float[N, 8] p) { p = Neg(h) h = Tanh(x) },
                   else_branch = e () => (float[N, 8] q) { q = Neg(x) }>
    }"""
    onnx.save(parser.parse_model(f"{HEAD} {text}"), tmp_path / "m.onnx")
    (node,) = io.load(tmp_path / "m.onnx").graph
    assert [n.op_type for n in node.attributes["then_branch"].as_graph()] == ["Tanh", "Neg"]


def test_an_output_that_is_given_twice_is_given_twice_again(tmp_path: Path) -> None:
    onnx.save(_edited(_append("output")), tmp_path / "m.onnx")
    model = normalize(io.load(tmp_path / "m.onnx")).model
    assert [value.name for value in model.graph.outputs] == ["y", "y"]
    io.save(model, tmp_path / "again.onnx")
    assert len(io.load(tmp_path / "again.onnx").graph.outputs) == 2


def test_the_default_of_an_input_is_no_doubled_name(tmp_path: Path) -> None:
    model = _plain()
    model.graph.input.add().CopyFrom(helper.make_tensor_value_info("w", 1, [8, 4]))
    onnx.save(model, tmp_path / "m.onnx")
    assert io.load(tmp_path / "m.onnx").graph.initializers["w"].is_graph_input()


# Functions.


def _with_functions(calls: dict[str, list[str]]) -> onnx.ModelProto:
    """A model that calls ``f0``; each function is a chain of the calls given."""
    model = _plain()
    model.opset_import.add(domain="local", version=1)
    model.graph.node[0].domain, model.graph.node[0].op_type = "local", "f0"
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    for name, callees in calls.items():
        nodes = [
            helper.make_node(
                callee, [f"v{i}"], [f"v{i + 1}"], domain="" if callee == "Tanh" else "local"
            )
            for i, callee in enumerate(callees)
        ]
        function = helper.make_function(
            "local", name, ["v0"], [f"v{len(callees)}"], nodes, opset_imports=imports
        )
        model.functions.append(function)
    return model


@pytest.mark.parametrize(
    "calls",
    [
        {"f0": ["f0"]},
        {"f0": ["Tanh", "f1"], "f1": ["f0"]},
        {"f0": ["f1"], "f1": ["f2", "Tanh"], "f2": ["Tanh", "f1"]},
    ],
)
def test_functions_that_call_themselves_are_refused(
    calls: dict[str, list[str]], tmp_path: Path
) -> None:
    error = _refusal(_with_functions(calls), tmp_path)
    assert error.code == "graph.recursion"
    assert "calls itself" in error.message


def test_a_function_that_calls_itself_inside_a_body_is_refused(tmp_path: Path) -> None:
    model = _with_functions({"f0": ["Tanh"]})
    body = helper.make_graph(
        [helper.make_node("f0", ["v0"], ["b"], domain="local")],
        "body",
        [],
        [helper.make_tensor_value_info("b", 1, None)],
    )
    node = helper.make_node("If", ["c"], ["v9"], then_branch=body, else_branch=body)
    model.functions[0].node.append(node)
    model.functions[0].input.append("c")
    assert _refusal(model, tmp_path).code == "graph.recursion"


def test_a_billion_calls_are_refused_before_they_are_inlined(tmp_path: Path) -> None:
    calls = {f"f{i}": [f"f{i + 1}"] * 10 for i in range(9)} | {"f9": ["Tanh"] * 10}
    error = _refusal(_with_functions(calls), tmp_path)
    assert error.code == "graph.too_large"
    assert "inlined" in error.message


def test_functions_that_end_are_inlined(tmp_path: Path) -> None:
    calls = {"f0": ["f1", "f1"], "f1": ["f2", "Tanh", "f2"], "f2": ["Tanh"]}
    onnx.save(_with_functions(calls), tmp_path / "m.onnx")
    model = normalize(io.load(tmp_path / "m.onnx")).model
    assert [node.op_type for node in model.graph] == ["Tanh"] * 6 + ["MatMul"]


def test_a_function_without_its_output_or_defined_twice_is_refused(tmp_path: Path) -> None:
    model = _with_functions({"f0": ["Tanh"]})
    model.functions[0].output[0] = "nowhere"
    assert _refusal(model, tmp_path).code == "graph.undefined"
    model = _with_functions({"f0": ["Tanh"]})
    model.functions.add().CopyFrom(model.functions[0])
    assert _refusal(model, tmp_path).code == "graph.doubled"
    model = _with_functions({"f0": ["Tanh", "Tanh"]})
    model.functions[0].node[1].output[0] = "v1"
    assert _refusal(model, tmp_path).code == "graph.undefined"


# What is no model file.


@pytest.mark.parametrize("size", [0, 1, 1 << 16])
def test_empty_and_zero_files_are_refused(size: int, tmp_path: Path) -> None:
    assert _refusal(bytes(size), tmp_path).code == "graph.truncated"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
def test_what_is_no_ordinary_file_is_not_opened(tmp_path: Path) -> None:
    fifo, device = tmp_path / "fifo", tmp_path / "device"
    os.mkfifo(fifo)
    device.symlink_to("/dev/zero")
    address = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        for path in (fifo, device, address):
            with pytest.raises(ModelError, match="not a file") as caught:
                io.load(path)
            assert caught.value.code == "graph.cannot_read"
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ModelError, match="cannot be read"):
        io.load(tmp_path / "loop")


def test_a_file_above_two_gibibytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.onnx"
    with path.open("wb") as handle:
        handle.truncate(limits.PROTOBUF_BYTES + 1)
    with pytest.raises(ModelError, match="2 GiB"):
        io.load(path)


# Large files are checked without their weights first.


@pytest.mark.parametrize("case", GRAPHS)
def test_a_large_file_is_refused_for_the_same_reasons(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SKELETON_BYTES", 64)
    edit, code, _ = GRAPHS[case]
    assert _refusal(_edited(edit), tmp_path).code == f"graph.{code}"


def test_a_large_file_is_refused_for_its_tensors_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SKELETON_BYTES", 64)
    for fields, code, _ in TENSORS.values():
        assert _refusal(_weight(**fields), tmp_path).code == f"graph.tensor_{code}"


def test_a_large_file_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(_plain(), tmp_path / "m.onnx")
    expected = io.digest(io.load(tmp_path / "m.onnx"))
    monkeypatch.setattr(limits, "SKELETON_BYTES", 64)
    assert io.digest(io.load(tmp_path / "m.onnx")) == expected


# Anything at all.

_BASES = (
    _plain(),
    _with_functions({"f0": ["f1", "Tanh"], "f1": ["Tanh"]}),
    parser.parse_model(
        f"{HEAD} g (float[N, 8] x, bool c) => (float[N, 8] y) "
        "<float w = {2.0}, int64[1] s = {1}>"
        "{ a = Mul(x, w) b = Unsqueeze(a, s) d = Squeeze(b, s)"
        "  y = If(c) <then_branch = t () => (float[N, 8] p) { p = Neg(d) },"
        "             else_branch = e () => (float[N, 8] q) { q = Identity(x) }> }"
    ),
)
_NUMBERS = (0, 1, -1, 2, 16, 10**9, (1 << 31) - 1, -(1 << 31), (1 << 63) - 1, -(1 << 63))
_TEXTS = ("", "x", "y", "w", "h", "f0", "local", "If", "Loop", "\u2603", "a" * 1000)


def _messages(message: Any) -> list[Any]:
    found = [message]
    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in value if field.is_repeated else [value]:
                found += _messages(item)
    return found


def _damage(model: onnx.ModelProto, draw: st.DataObject) -> None:
    """Clear, double or change one field of one message."""
    messages = _messages(model)
    message = draw.draw(st.sampled_from(range(len(messages))))
    owner = messages[message]
    field = draw.draw(st.sampled_from(list(owner.DESCRIPTOR.fields)))
    if field.message_type is not None:
        alike = [item for item in messages if item.DESCRIPTOR is field.message_type]
        if not alike or draw.draw(st.booleans()):
            owner.ClearField(field.name)
            return
        value = type(alike[0])()
        value.CopyFrom(alike[draw.draw(st.sampled_from(range(len(alike))))])
        target = getattr(owner, field.name)
        (target.add() if field.is_repeated else target).CopyFrom(value)
        return
    kinds = {field.TYPE_STRING: _TEXTS, field.TYPE_BYTES: (b"", b"\xff" * 8, b"abc")}
    values = kinds.get(field.type, _NUMBERS)
    value = draw.draw(st.sampled_from(values))
    try:
        if field.is_repeated:
            getattr(owner, field.name).append(value)
        else:
            setattr(owner, field.name, value)
    except ValueError:
        owner.ClearField(field.name)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(draw=st.data())
def test_a_damaged_model_is_refused_or_read_and_written(
    draw: st.DataObject, tmp_path: Path
) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(draw.draw(st.sampled_from(_BASES)))
    for _ in range(draw.draw(st.integers(1, 3))):
        _damage(model, draw)
    path, again = tmp_path / "damaged.onnx", tmp_path / "again.onnx"
    path.write_bytes(model.SerializeToString())
    try:
        loaded = io.load(path)
        io.digest(loaded)
        io.save(normalize(loaded).model, again)
    except ModelError:
        return
    assert io.load(again).graph.outputs
