"""What an integer input looks up, and whether the model scores those rows again.

A language model looks its tokens up in the rows of an embedding table, and its logits
``[batch, sequence, rows]`` score every row at each position. Both are read from the graph, not
from names, but for two cases: logits that are padded to another width than the table, and those
whose width the model does not declare, are known by the output's name ``logits``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from onnxq.graph.edit import constant_tensor, consumers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx_ir as ir

FEWEST_ROWS: Final = 64
"""A vocabulary has at least so many; a table with fewer looks up classes or types of tokens."""

_AXES: Final = {
    ("", "Gather"): "axis",
    ("com.microsoft", "GatherBlockQuantized"): "gather_axis",
}
"""What looks up in its first input by its second, and the attribute that says along which axis."""

_SAME_NUMBERS: Final = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten"})
_FLOATS: Final = frozenset({"FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE"})


def looked_up_rows(value: ir.Value) -> int | None:
    """The rows of the smallest table that an input's numbers index; None if it indexes none.

    Only what always runs counts, not the bodies of ``If`` and ``Loop``.
    """
    return min(_rows(value), default=None)


def scored_input(model: ir.Model, rows: Mapping[str, int]) -> str | None:
    """The input whose rows the first float output scores at each position; None if it scores none.

    Args:
        model: The model.
        rows: What :func:`looked_up_rows` found, for inputs ``[batch, sequence]`` by name.
    """
    output = next((value for value in model.graph.outputs if _is_float(value)), None)
    if output is None or output.shape is None or len(output.shape) != 3:
        return None
    width = output.shape[2]
    likely = [name for name, count in rows.items() if count >= FEWEST_ROWS and count == width]
    if not likely and output.name == "logits":
        likely = [name for name, count in rows.items() if _may_be_padded(count, width)]
    # Beside its tokens a model may look up their positions, in a smaller table.
    return max(likely, key=lambda name: rows[name], default=None)


def _may_be_padded(rows: int, width: object) -> bool:
    if not isinstance(width, int):
        return rows >= FEWEST_ROWS
    return rows >= FEWEST_ROWS and rows <= 2 * width <= 4 * rows


def _rows(value: ir.Value) -> Iterator[int]:
    waiting = [value]
    while waiting:
        for node, index in consumers(waiting.pop()):
            if node.graph is not value.graph:
                continue
            axis = _AXES.get((node.domain, node.op_type))
            if axis is not None and index == 1:
                rows = _length(node.inputs[0], node.attributes.get_int(axis, 0))
                if rows is not None:
                    yield rows
            elif node.op_type in _SAME_NUMBERS and index == 0 and not node.domain:
                waiting.append(node.outputs[0])


def _length(table: ir.Value | None, axis: int) -> int | None:
    """The length of an axis of a table; of one that is computed only where it is declared."""
    if table is None:
        return None
    tensor = constant_tensor(table)
    shape = table.shape if tensor is None else tensor.shape
    # A table of shape information, say, is no constant and has no declared shape.
    if shape is None or not -len(shape) <= axis < len(shape):
        return None
    length = shape[axis]
    return length if isinstance(length, int) and length > 0 else None


def _is_float(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.name in _FLOATS
