"""The scan of a model file's bytes: what it counts, and what it refuses before protobuf sees it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from onnxq.graph import limits, wire

if TYPE_CHECKING:
    from collections.abc import Callable


def _model(nodes: int = 3) -> onnx.ModelProto:
    chain = [helper.make_node("Add", [f"v{i}", "w"], [f"v{i + 1}"]) for i in range(nodes)]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        chain,
        "g",
        [value("v0", onnx.TensorProto.FLOAT, ["N", 8])],
        [value(f"v{nodes}", onnx.TensorProto.FLOAT, ["N", 8])],
        [numpy_helper.from_array(np.arange(8, dtype=np.float32), "w")],
    )
    return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])


def length(count: int) -> bytes:
    """A length as protobuf writes it."""
    text = b""
    while count > 127:
        text += bytes([count & 127 | 128])
        count >>= 7
    return text + bytes([count])


def field(number: int, content: bytes) -> bytes:
    return length(number << 3 | 2) + length(len(content)) + content


def test_it_counts_nodes_and_weights() -> None:
    found = wire.survey(_model(50).SerializeToString())
    assert (found.nodes, found.weights) == (50, 32)
    assert 50 * 2500 < found.memory < 50 * 10_000


@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_cut_file_is_malformed_or_what_protobuf_reads(cut: float) -> None:
    data = _model().SerializeToString()
    part = data[: int(cut * len(data))]
    try:
        wire.survey(part)
    except wire.MalformedError:
        with pytest.raises(Exception, match=r"parsing|wire|Truncated"):
            onnx.ModelProto.FromString(part)
    else:
        onnx.ModelProto.FromString(part)


@settings(max_examples=200)
@given(data=st.binary(max_size=60))
def test_any_bytes_are_counted_or_refused(data: bytes) -> None:
    """What it lets through protobuf reads, but for its own rules (groups, field 0)."""
    try:
        found = wire.survey(data)
    except wire.WireError:
        return
    assert found.nodes <= len(data)


def test_fields_are_the_whole_message_in_order() -> None:
    data = _model().SerializeToString()
    parts = [data[begin:end] for _, begin, _, end in wire.fields(data, 0, len(data))]
    assert b"".join(parts) == data
    numbers = [number for number, *_ in wire.fields(data, 0, len(data))]
    assert onnx.ModelProto.GRAPH_FIELD_NUMBER in numbers


_SMALL = 16 << 20


def _empty_nodes() -> bytes:
    return field(7, field(1, b"") * (limits.NODES + 1))


def _attributes() -> bytes:
    """Numbers one by one, two bytes each."""
    return field(7, field(1, field(5, b"\x40\x01" * (_SMALL // 200 + 1))))


def subgraphs(depth: int = limits.SUBGRAPH_DEPTH) -> bytes:
    graph = b""
    for _ in range(depth):
        graph = field(1, field(5, field(6, graph)))
    return field(7, graph)


def _types() -> bytes:
    kind = b""
    for _ in range(200):
        kind = field(4, field(1, kind))
    return field(7, field(11, field(2, kind)))


def _name() -> bytes:
    return field(7, field(1, field(3, b"n" * (limits.NAME_BYTES + 1))))


def _metadata() -> bytes:
    return field(14, b"") * (_SMALL // 700 + 1)


@pytest.mark.parametrize(
    ("bomb", "says"),
    [
        (_empty_nodes, "more than 100,000 nodes"),
        (_attributes, "more than 16 MiB"),
        (_metadata, "more than 16 MiB"),
        (subgraphs, "more than 30 subgraphs deep"),
        (lambda: subgraphs(1000), "subgraphs deep"),
        (_types, "subgraphs deep"),
        (_name, "a name of 65,537 bytes"),
    ],
)
def test_bombs_are_refused_unparsed(
    bomb: Callable[[], bytes], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if bomb in {_attributes, _metadata}:
        monkeypatch.setattr(limits, "GRAPH_BYTES", _SMALL)
    with pytest.raises(wire.WireError, match=says) as caught:
        wire.survey(bomb())
    assert not isinstance(caught.value, wire.MalformedError)


def test_thirty_bodies_are_fine() -> None:
    assert wire.survey(subgraphs(limits.SUBGRAPH_DEPTH - 1)).nodes == limits.SUBGRAPH_DEPTH - 1


@pytest.mark.parametrize("name", ["ints", "floats"])
def test_the_numbers_of_an_attribute_count_as_they_are_read(name: str) -> None:
    """Packed, a number is one byte in the file and an object once it is read."""
    attribute = onnx.AttributeProto(name="a")
    getattr(attribute, name).extend([1] * 1_000_000)
    data = field(7, field(1, field(5, attribute.SerializeToString())))
    assert wire.survey(data).memory > 1_000_000 * sys.getsizeof(1.0)


def test_packed_integers_count_as_they_are_parsed() -> None:
    tensor = onnx.TensorProto(int64_data=[1, 300, -1])
    data = field(7, field(5, tensor.SerializeToString()))
    assert wire.survey(data).weights == 3 * 8


def test_a_name_that_is_no_text_is_malformed() -> None:
    with pytest.raises(wire.MalformedError, match=r"the op_type at byte .* is no UTF-8"):
        wire.survey(field(7, field(1, field(4, b"\xff\xfe"))))
