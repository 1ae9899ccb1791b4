"""What a model file would become, counted in its bytes before it is parsed.

Protobuf's wire format is a sequence of fields: a tag (number and kind), then a number, or a length
and so many bytes. Walking it needs neither copies nor objects, so a truncated file, names that are
no text, too deep nesting and a file that would take gigabytes are found at the cost of a scan. The
field numbers are those of onnx's own descriptors. Weights are skipped by their length.

Source: https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor

from onnxq.graph import limits

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator, Mapping

_VARINT, _LENGTH = 0, 2
_FIXED_BYTES: Final = {1: 8, 5: 4}
_VARINT_BYTES: Final = 10

_COSTS: Final = {"NodeProto": 2500, "AttributeProto": 1000, "TensorProto": 2000}
"""Bytes that a message and its object of onnx_ir take, rounded up; others take :data:`_COST`."""
_COST: Final = 500
_FIELD_COST: Final = 200
_NUMBER_COST: Final = 64
"""Bytes that a number of a list takes, one of an attribute say: protobuf's copies and Python's."""
_COPIES: Final = 3
"""Times that text and other bytes are held: the file's, protobuf's and Python's."""
_CHUNK: Final = 1 << 24
_VALUE_COST: Final = 1000

_CONTENTS: Final = {
    "raw_data": 1,
    "float_data": 1,
    "double_data": 1,
    "int32_data": 4,
    "int64_data": 8,
    "uint64_data": 8,
}
"""Fields of a TensorProto that hold its elements: bytes in memory of each byte that ends one."""

_WIDTHS: Final = {FieldDescriptor.TYPE_FLOAT: 4, FieldDescriptor.TYPE_DOUBLE: 8}
_NUMBERS: Final = frozenset(
    {
        *_WIDTHS,
        FieldDescriptor.TYPE_INT32,
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_ENUM,
    }
)

_NAMES: Final = frozenset({"name", "input", "output", "op_type", "domain", "overload", "dim_param"})


class WireError(ValueError):
    """The bytes are within no limit; the text says which one is passed."""


class MalformedError(WireError):
    """The bytes are truncated, or no message of the kind."""


@dataclass(slots=True)
class Survey:
    """What was counted.

    Attributes:
        nodes: Nodes, wherever they are.
        memory: Bytes that the graph takes once it is read, estimated, without weights.
        weights: Bytes of the tensors' elements once they are parsed.
    """

    nodes: int = 0
    memory: int = 0
    weights: int = 0


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of message: what it costs, and what its fields hold, by number.

    Attributes:
        name: Its name.
        cost: Bytes that it takes.
        messages: The kind of each field that holds messages.
        texts: The name of each field that holds text.
        contents: Bytes in memory of each byte that ends an element of a tensor.
        lists: Bytes in the file of each number of a list; 0 where they vary.
    """

    name: str
    cost: int
    messages: Mapping[int, str]
    texts: Mapping[int, str]
    contents: Mapping[int, int]
    lists: Mapping[int, int]


def survey(data: bytes | mmap.mmap) -> Survey:
    """Walk a serialized ModelProto.

    Raises:
        MalformedError: It is truncated, or not a ModelProto.
        WireError: It is beyond :mod:`onnxq.graph.limits`.
    """
    scanner = _Scanner(data)
    scanner.walk()
    return scanner.found


def fields(data: bytes | mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """The fields of the message that lies between two positions.

    Yields:
        The field's number, where it starts, where its contents start behind tag and length, and
        where it ends.

    Raises:
        MalformedError: The message is truncated.
    """
    scanner = _Scanner(data, start)
    while scanner.at < end:
        begin = scanner.at
        number, wire = divmod(scanner.varint(end), 8)
        length = scanner.varint(end) if wire == _LENGTH else _FIXED_BYTES.get(wire, 0)
        inside = scanner.at
        if wire == _VARINT:
            scanner.varint(end)
        else:
            scanner.skip(length, end)
        yield number, begin, inside, scanner.at


class _Scanner:
    def __init__(self, data: bytes | mmap.mmap, at: int = 0) -> None:
        self._data = data
        self.at = at
        self._bodies = 0
        # The messages that are open: where each ends, and its kind.
        self._open: list[tuple[int, _Kind]] = [(len(data), _kind(onnx.ModelProto.DESCRIPTOR.name))]
        self.found = Survey()

    def walk(self) -> None:
        """Visit every field; messages are entered, contents are skipped."""
        while self._open:
            end, kind = self._open[-1]
            if self.at >= end:
                self._leave(kind)
                continue
            number, wire = divmod(self.varint(end), 8)
            self.found.memory += _FIELD_COST
            if wire == _LENGTH:
                self._enter(number, kind, end)
            elif wire == _VARINT:
                self.varint(end)
            else:
                self.skip(_FIXED_BYTES.get(wire, end), end)
            if self.found.memory > limits.GRAPH_BYTES:
                msg = f"its graph would take more than {limits.GRAPH_BYTES >> 20} MiB of memory"
                raise WireError(msg)

    def varint(self, end: int) -> int:
        """The number here, which is stepped over."""
        if self.at < end and self._data[self.at] < 128:
            self.at += 1
            return self._data[self.at - 1]
        value = shift = 0
        for at in range(self.at, min(end, self.at + _VARINT_BYTES)):
            byte = self._data[at]
            value |= (byte & 127) << shift
            if byte < 128:
                self.at = at + 1
                return value
            shift += 7
        raise MalformedError(_no_message(self.at))

    def skip(self, count: int, end: int) -> int:
        """Step over so many bytes; where they began."""
        start = self.at
        if start + count > end:
            raise MalformedError(_no_message(start))
        self.at = start + count
        return start

    def _enter(self, number: int, kind: _Kind, end: int) -> None:
        length = self.varint(end)
        start = self.skip(length, end)
        if number in kind.messages:
            self.at = start
            self._begin(start + length, _kind(kind.messages[number]))
        elif number in kind.texts:
            self._text(kind.texts[number], start, length)
        elif number in kind.contents:
            self.found.weights += self._elements(start, length, kind.contents[number])
        elif number in kind.lists:
            width = kind.lists[number]
            most = limits.GRAPH_BYTES // _NUMBER_COST
            count = length // width if width else self._varints(start, length, most)
            self.found.memory += count * _NUMBER_COST
        else:
            self.found.memory += _COPIES * length

    def _begin(self, end: int, kind: _Kind) -> None:
        self._open.append((end, kind))
        self.found.memory += kind.cost
        if kind.name == "NodeProto":
            self.found.nodes += 1
            if self.found.nodes > limits.NODES:
                msg = f"it has more than {limits.NODES:,} nodes"
                raise WireError(msg)
        elif kind.name == "GraphProto":
            self._bodies += 1
        if self._bodies > limits.SUBGRAPH_DEPTH or len(self._open) > limits.MESSAGE_DEPTH:
            msg = f"it is nested more than {limits.SUBGRAPH_DEPTH} subgraphs deep"
            raise WireError(msg)

    def _leave(self, kind: _Kind) -> None:
        self._open.pop()
        self._bodies -= kind.name == "GraphProto"

    def _text(self, field: str, start: int, length: int) -> None:
        if length > limits.NAME_BYTES and field in _NAMES:
            msg = f"a {field} of {length:,} bytes, more than {limits.NAME_BYTES:,}"
            raise WireError(msg)
        self.found.memory += _COPIES * length + _VALUE_COST * (field == "output")
        if self.found.memory > limits.GRAPH_BYTES:
            return
        try:
            self._data[start : start + length].decode()
        except UnicodeDecodeError as error:
            msg = f"the {field} at byte {start:,} is no UTF-8 text"
            raise MalformedError(msg) from error

    def _elements(self, start: int, length: int, width: int) -> int:
        if width == 1:
            return length
        room = max(2 * len(self._data), limits.GRAPH_BYTES) - self.found.weights
        return self._varints(start, length, room // width) * width

    def _varints(self, start: int, length: int, most: int) -> int:
        """How many numbers are packed there; counting ends soon after ``most`` of them."""
        count = 0
        for begin in range(start, start + length, _CHUNK):
            size = min(_CHUNK, start + length - begin)
            packed = np.frombuffer(self._data, np.uint8, count=size, offset=begin)
            # A varint ends at its first byte below 128.
            count += int(np.count_nonzero(packed < 128))
            if count > most:
                break
        return count


def _no_message(at: int) -> str:
    return f"truncated, or not an ONNX model: it breaks off at byte {at:,}"


@cache
def _kind(name: str) -> _Kind:
    fields = list(_descriptors()[name].fields)
    contents = _CONTENTS if name == "TensorProto" else {}
    return _Kind(
        name=name,
        cost=_COSTS.get(name, _COST),
        messages={f.number: f.message_type.name for f in fields if f.message_type is not None},
        texts={f.number: f.name for f in fields if f.type == f.TYPE_STRING},
        contents={f.number: contents[f.name] for f in fields if f.name in contents},
        lists={
            f.number: _WIDTHS.get(f.type, 0)
            for f in fields
            if f.type in _NUMBERS and f.name not in contents
        },
    )


@cache
def _descriptors() -> dict[str, Any]:
    """Every kind of message within a model, by its name."""
    found: dict[str, Any] = {}
    todo: list[Any] = [onnx.ModelProto.DESCRIPTOR]
    while todo:
        descriptor = todo.pop()
        if descriptor.name not in found:
            found[descriptor.name] = descriptor
            todo += [f.message_type for f in descriptor.fields if f.message_type is not None]
    return found
