"""How a division of channels moves through attention: from its output to the values alone.

Each head's output is a mean of values with weights that queries and keys decide, so dividing a
channel of the values divides that channel of the output. Where several query heads read one head of
values (grouped queries), they have to be divided by the same. Cases:
    - Attention of ONNX, on three axes (heads beside each other) or four;
    - GroupQueryAttention: its values, or their part of the packed queries, keys and values;
    - MultiHeadAttention: its values, and their part of the bias;
    - Attention of com.microsoft: the values' columns of its weights and bias.
With a cache it is declined: what was stored before, or is handed out, is not divided.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxq.graph.channels import NONE, NoFoldError, dims_of, narrowed, padded
from onnxq.graph.edit import constant_tensor
from onnxq.graph.opset import MICROSOFT

if TYPE_CHECKING:
    from onnxq.graph.channel_moves import Handler, Made, Move
    from onnxq.graph.channels import Classes, Labels


def _standard(made: Made, classes: Classes) -> list[list[Move]]:
    _without_cache(made, (4, 5), (1, 2))
    dims = made.dims(2)
    if dims is not None and len(dims) == 4:
        return [[(2, _grouped(padded(made.labels, 4), dims[1], classes))]]
    heads = made.node.attributes.get_int("q_num_heads", 0)
    groups = made.node.attributes.get_int("kv_num_heads", 0)
    return [[(2, _beside(made, heads, groups, classes))]]


def _group_query(made: Made, classes: Classes) -> list[list[Move]]:
    _without_cache(made, (3, 4, 12, 13), (1, 2))
    heads = made.node.attributes.get_int("num_heads", 0)
    groups = made.node.attributes.get_int("kv_num_heads", 0)
    values = _beside(made, heads, groups, classes)
    if made.has(2):
        return [[(2, values)]]
    # Packed: queries of all heads, then keys and values of the groups.
    width = values.size // max(groups, 1)
    return [[(0, np.concatenate([np.full((heads + groups) * width, NONE), values]))]]


def _multi_head(made: Made, classes: Classes) -> list[list[Move]]:
    _without_cache(made, (6, 7), (1, 2))
    dims = made.dims(2) if made.has(2) else None
    if dims is None:
        text = f"the values of {made.node.name!r} are packed, or of unknown shape"
        raise NoFoldError(text)
    heads = made.node.attributes.get_int("num_heads", 0)
    channels = _beside(made, heads, heads, classes)
    moves = [(2, channels if len(dims) == 3 else channels.reshape(heads, 1, -1))]
    if made.has(3):
        moves.append((3, _last(made, 3, channels)))
    return [moves]


def _fused(made: Made, _classes: Classes) -> list[list[Move]]:
    _without_cache(made, (4,), (1,))
    channels = padded(made.labels, 1)
    moves = [(index, _last(made, index, channels)) for index in (1, 2) if made.has(index)]
    return [moves]


def _last(made: Made, index: int, channels: Labels) -> Labels:
    """Labels of a constant that ends with the values' channels."""
    value = made.node.inputs[index]
    tensor = None if value is None else constant_tensor(value)
    dims = dims_of(value) if tensor is None else tuple(tensor.shape)
    whole = dims[-1] if dims else None
    if not isinstance(whole, int) or whole < channels.size:
        text = f"the weights of {made.node.name!r} have no known shape"
        raise NoFoldError(text)
    return np.concatenate([np.full(whole - channels.size, NONE), channels])


def _beside(made: Made, heads: int, groups: int, classes: Classes) -> Labels:
    """Labels of values whose heads stand beside each other on the last axis."""
    channels = padded(made.labels, 1)
    if heads < 1 or groups < 1 or channels.size % heads:
        text = f"the heads of {made.node.name!r} are not known"
        raise NoFoldError(text)
    return _grouped(channels.reshape(1, heads, 1, -1), groups, classes).reshape(-1)


def _grouped(labels: Labels, groups: int | str | None, classes: Classes) -> Labels:
    """Labels of ``groups`` heads of values, from those of all heads: ``[1, heads, 1, width]``."""
    _, heads, _, width = labels.shape
    if not isinstance(groups, int) or groups < 1 or heads % groups or labels.shape[2] > 1:
        text = "the number of heads is not known"
        raise NoFoldError(text)
    apart = labels.reshape(groups, heads // groups, width)
    return narrowed(apart, (groups, 1, width), classes).reshape(1, groups, 1, width)


def _without_cache(made: Made, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> None:
    node = made.node
    if made.output:
        text = f"{node.name!r} gives it beside its result"
        raise NoFoldError(text)
    if any(made.has(index) for index in inputs):
        text = f"{node.name!r} reads values of earlier runs (past)"
        raise NoFoldError(text)
    for index in outputs:
        value = node.outputs[index] if index < len(node.outputs) else None
        if value is not None and (value.is_graph_output() or value.uses()):
            text = f"{node.name!r} hands out its values (present)"
            raise NoFoldError(text)


ATTENTION: dict[tuple[str, str], Handler] = {
    ("", "Attention"): _standard,
    (MICROSOFT, "Attention"): _fused,
    (MICROSOFT, "GroupQueryAttention"): _group_query,
    (MICROSOFT, "MultiHeadAttention"): _multi_head,
}
"""By domain and operator."""
