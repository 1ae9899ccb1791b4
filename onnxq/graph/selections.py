"""Operators that hand on some elements of their first input: Slice, Gather and Split.

A value of which several of them read different channels (queries, keys and values of one product)
can be divided in the channels of one of them alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxq.graph.channels import NONE, NoFoldError, dims_of, padded
from onnxq.graph.edit import constant_array

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from onnxq.graph.channels import Labels

SELECTIONS = frozenset({"Gather", "Slice", "Split"})


@dataclass(frozen=True, slots=True)
class _Region:
    """What one output holds of the input.

    Attributes:
        rank: Axes of the input.
        lengths: The length of each axis that is restricted; None where it is not known.
        positions: The positions along each restricted axis; None where they are not known.
        dropped: Whether the output lacks this one axis.
    """

    rank: int
    lengths: dict[int, int | None]
    positions: dict[int, NDArray[np.int64] | None]
    dropped: bool


def is_selection(node: ir.Node) -> bool:
    """Whether a node hands on some elements of its first input."""
    return not node.domain and node.op_type in SELECTIONS


def before_selection(node: ir.Node, output: int, labels: Labels, *, alone: bool) -> Labels:
    """Labels of what a Slice, Gather or Split selects from.

    Args:
        node: The node.
        output: Which of its outputs ``labels`` belong to.
        labels: Of this output.
        alone: Whether nobody else reads the input or another output, so that what is not selected
            may be divided or not.

    Raises:
        NoFoldError: What is selected is not known.
    """
    region = _region(node, output)
    if region.dropped:
        (axis,) = region.positions
        result = np.expand_dims(padded(labels, region.rank - 1), axis)
    else:
        result = padded(labels, region.rank)
    for axis, positions in region.positions.items():
        length = region.lengths[axis]
        if alone and result.shape[axis] == 1 and not region.dropped:
            continue
        if positions is None or length is None:
            text = f"what {node.op_type} {node.name!r} selects is not constant"
            raise NoFoldError(text)
        shape = list(result.shape)
        shape[axis] = length
        wide = np.full(shape, NONE)
        # Of a position that is selected twice the last would count.
        if np.unique(positions).size != positions.size:
            text = f"{node.op_type} {node.name!r} selects a channel twice"
            raise NoFoldError(text)
        index = [slice(None)] * region.rank
        index[axis] = positions  # type: ignore[call-overload]
        wide[tuple(index)] = result
        result = wide
    return result


def reads_divided(node: ir.Node, labels: Labels) -> bool:
    """Whether a node selects an element that is divided; True if that is not known.

    Args:
        node: A Slice, Gather or Split.
        labels: Of its first input.
    """
    for output in range(len(node.outputs)):
        try:
            region = _region(node, output)
            part = padded(labels, region.rank)
        except NoFoldError:
            return True
        for axis, positions in region.positions.items():
            if part.shape[axis] > 1:
                if positions is None:
                    return True
                part = np.take(part, positions, axis)
        if (part != NONE).any():
            return True
    return False


def _region(node: ir.Node, output: int) -> _Region:
    dims = dims_of(node.inputs[0])
    if dims is None:
        text = f"the shape of what {node.op_type} {node.name!r} selects from is not known"
        raise NoFoldError(text)
    lengths = [length if isinstance(length, int) else None for length in dims]
    if node.op_type == "Slice":
        positions = _sliced(node, lengths)
    else:
        axis = node.attributes.get_int("axis", 0) % len(dims)
        if node.op_type == "Gather":
            positions = {axis: _gathered(node, lengths[axis])}
        else:
            positions = {axis: _split(node, output, lengths[axis])}
    dropped = node.op_type == "Gather" and _index_rank(node) == 0
    return _Region(len(dims), {axis: lengths[axis] for axis in positions}, positions, dropped)


def _sliced(node: ir.Node, lengths: list[int | None]) -> dict[int, NDArray[np.int64] | None]:
    starts, ends, axes, steps = (integers(node, index) for index in range(1, 5))
    if axes is None and len(node.inputs) > 3 and node.inputs[3] is not None:
        text = f"the axes of Slice {node.name!r} are not constant"
        raise NoFoldError(text)
    if axes is None:
        count = len(lengths) if starts is None else len(starts)
        axes = np.arange(count)
    if steps is None and (len(node.inputs) <= 4 or node.inputs[4] is None):
        steps = np.ones(len(axes), np.int64)
    found: dict[int, NDArray[np.int64] | None] = {}
    for place, axis in enumerate(int(axis) % len(lengths) for axis in axes):
        length = lengths[axis]
        if starts is None or ends is None or steps is None or length is None:
            found[axis] = None
        else:
            start, end, step = int(starts[place]), int(ends[place]), int(steps[place])
            found[axis] = np.arange(length)[start:end:step] if step > 0 else None
    return found


def _gathered(node: ir.Node, length: int | None) -> NDArray[np.int64] | None:
    index = integers(node, 1)
    if _index_rank(node) not in {0, 1}:
        text = f"Gather {node.name!r} looks up an index of several axes"
        raise NoFoldError(text)
    return None if index is None or length is None else index % length


def _index_rank(node: ir.Node) -> int | None:
    array = constant_array(node.inputs[1])
    dims = dims_of(node.inputs[1]) if array is None else array.shape
    return None if dims is None else len(dims)


def _split(node: ir.Node, output: int, length: int | None) -> NDArray[np.int64] | None:
    sizes = integers(node, 1)
    if sizes is None:
        if length is None or (len(node.inputs) > 1 and node.inputs[1] is not None):
            return None
        whole = -(-length // len(node.outputs))
        sizes = np.full(len(node.outputs), whole)
    start = int(sizes[:output].sum())
    stop = start + int(sizes[output])
    return np.arange(start, stop if length is None else min(stop, length))


def integers(node: ir.Node, index: int) -> NDArray[np.int64] | None:
    """A constant vector at one input of a node, which no caller can replace; None without one."""
    value = node.inputs[index] if index < len(node.inputs) else None
    array = None if value is None or value.is_graph_input() else constant_array(value)
    return None if array is None else np.asarray(array, np.int64).reshape(-1)
