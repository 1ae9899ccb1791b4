"""A small language model: grouped-query attention by plain operators, with a cache or without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.small_models import normal

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

VOCABULARY: Final = 96
WIDTH: Final = 16
HEADS: Final = 4
GROUPS: Final = 2
"""Heads of keys and values; two heads of queries read each."""
HEAD: Final = 8
LONGEST: Final = 64

_INTS = TensorProto.INT64
_FLOATS = TensorProto.FLOAT


def decoder(*, cache: bool = True, causal: bool = True, gain: float = 1.0) -> onnx.ModelProto:
    """A model of one layer.

    Args:
        cache: Whether it takes ``past_key_values`` and gives ``present``.
        causal: Whether a token sees only those before it.
        gain: What the logits are multiplied with: a quantized model's error, say.
    """
    body = _Body()
    embedded = body("Gather", "embedding", "input_ids")
    placed = body("Add", embedded, body("Gather", "places", "position_ids"))
    query = body.heads(body("MatMul", placed, "w_query"), "head_shape")
    key = body.heads(body("MatMul", placed, "w_key"), "group_shape")
    value = body.heads(body("MatMul", placed, "w_value"), "group_shape")
    if cache:
        key = body("Concat", "past_key_values.0.key", key, name="present.0.key", axis=2)
        value = body("Concat", "past_key_values.0.value", value, name="present.0.value", axis=2)
    attended = body("MatMul", _attention(body, query, key, causal=causal), body.repeated(value))
    joined = body("Reshape", body("Transpose", attended, perm=[0, 2, 1, 3]), "joined_shape")
    state = body("Add", placed, body("Tanh", body("MatMul", joined, "w_out")))
    body("Mul", body("MatMul", state, "w_head"), "gain", name="logits")
    return _model(body.nodes, _weights() | {"gain": np.asarray(gain, np.float32)}, cache=cache)


def save_decoder(path: Path, *, cache: bool = True, causal: bool = True, gain: float = 1.0) -> Path:
    """The model of :func:`decoder` as a file."""
    onnx.save(decoder(cache=cache, causal=causal, gain=gain), path)
    return path


class _Body:
    """Writes nodes down."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []

    def __call__(self, op: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        output = name or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def heads(self, flat: str, shape: str) -> str:
        return self("Transpose", self("Reshape", flat, shape), perm=[0, 2, 1, 3])

    def repeated(self, groups: str) -> str:
        return self("Gather", groups, "repeats", axis=1)


def _attention(body: _Body, query: str, key: str, *, causal: bool) -> str:
    """Probabilities ``[batch, heads, tokens, all tokens]``."""
    turned = body("Transpose", body.repeated(key), perm=[0, 1, 3, 2])
    scores = body("Div", body("MatMul", query, turned), "root")
    visible = body("Cast", body("Unsqueeze", "attention_mask", "inner"), to=TensorProto.BOOL)
    if causal:
        everything = body("Gather", body("Shape", key), "second")
        own = body("Gather", body("Shape", query), "second")
        columns = body("Range", "zero", everything, "one")
        rows = body("Range", body("Sub", everything, own), everything, "one")
        before = body("LessOrEqual", columns, body("Unsqueeze", rows, "last"))
        visible = body("And", visible, before)
    return body("Softmax", body("Where", visible, scores, "hidden"), axis=-1)


def _weights() -> dict[str, NDArray[Any]]:
    wide, narrow = HEADS * HEAD, GROUPS * HEAD
    return {
        "embedding": normal(0, VOCABULARY, WIDTH),
        "places": normal(1, LONGEST, WIDTH) / 2,
        "w_query": normal(2, WIDTH, wide) / 2,
        "w_key": normal(3, WIDTH, narrow) / 2,
        "w_value": normal(4, WIDTH, narrow) / 2,
        "w_out": normal(5, wide, WIDTH) / 2,
        "w_head": normal(6, WIDTH, VOCABULARY) / 2,
        "head_shape": np.asarray([0, 0, HEADS, HEAD]),
        "group_shape": np.asarray([0, 0, GROUPS, HEAD]),
        "joined_shape": np.asarray([0, 0, wide]),
        "repeats": np.repeat(np.arange(GROUPS), HEADS // GROUPS),
        "root": np.asarray(np.sqrt(HEAD), np.float32),
        "hidden": np.asarray(-1e9, np.float32),
        "inner": np.asarray([1, 2]),
        "last": np.asarray([1]),
        "second": np.asarray(2),
        "zero": np.asarray(0),
        "one": np.asarray(1),
    }


def _model(
    nodes: list[onnx.NodeProto], weights: dict[str, NDArray[Any]], *, cache: bool
) -> onnx.ModelProto:
    def info(name: str, kind: int, *shape: str | int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, list(shape))

    inputs = [
        info("input_ids", _INTS, "batch", "tokens"),
        info("attention_mask", _INTS, "batch", "all_tokens"),
        info("position_ids", _INTS, "batch", "tokens"),
    ]
    outputs = [info("logits", _FLOATS, "batch", "tokens", VOCABULARY)]
    for part in ("key", "value") if cache else ():
        shape = ("batch", GROUPS, "past_tokens", HEAD)
        inputs.append(info(f"past_key_values.0.{part}", _FLOATS, *shape))
        shape = ("batch", GROUPS, "all_tokens", HEAD)
        outputs.append(info(f"present.0.{part}", _FLOATS, *shape))
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "decoder", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
