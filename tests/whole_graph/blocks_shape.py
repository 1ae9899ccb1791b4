"""Blocks that move data: concatenate, split, slice, transpose, reshape, expand, pick."""

from __future__ import annotations

import numpy as np

from tests.whole_graph.blocks import block
from tests.whole_graph.draft import FLOAT, INT64, Draft, Val

_LARGEST = 64


@block(2, 3, 4, 5, often=2)
def concat(draft: Draft, x: Val) -> Val | None:
    axis = x.rank - 1 if x.rank < 4 else 1
    width = x.shape[axis]
    if not isinstance(width, int):
        return None
    others = [
        value
        for value in draft.values
        if value.rank == x.rank
        and isinstance(value.shape[axis], int)
        and _but(value, axis) == _but(x, axis)
    ]
    other = draft.pick(others) if others else x
    total = width + int(other.shape[axis])
    if total > _LARGEST:
        return None
    shape = (*x.shape[:axis], total, *x.shape[axis + 1 :])
    return draft.op("Concat", [x, other], shape, axis=axis)


def _but(value: Val, axis: int) -> tuple[int | str, ...]:
    return (*value.shape[:axis], *value.shape[axis + 1 :])


@block(2, 3, 4, often=1.5)
def split(draft: Draft, x: Val) -> Val | None:
    """Two halves that meet again, or of which nobody reads one."""
    axis = 1 if x.rank == 4 else x.rank - 1
    width = x.shape[axis]
    if not isinstance(width, int) or width < 2 or width % 2:
        return None
    shape = (*x.shape[:axis], width // 2, *x.shape[axis + 1 :])
    inputs = [x]
    attributes: dict[str, int] = {"axis": axis}
    if draft.style.opset >= 18:
        attributes["num_outputs"] = 2
    elif draft.style.opset >= 13:
        inputs.append(draft.ints(width // 2, width // 2))
    first, second = draft.ops("Split", inputs, [shape, shape], **attributes)
    match draft.pick(("add", "swap", "drop")):
        case "add":
            return draft.op("Add", [first, second], shape)
        case "swap":
            return draft.op("Concat", [second, first], x.shape, axis=axis)
        case _:
            return first


@block(2, 3, 4, often=1.2)
def cut(draft: Draft, x: Val) -> Val | None:
    axis = 1 if x.rank == 4 else x.rank - 1
    width = x.shape[axis]
    if not isinstance(width, int) or width < 3:
        return None
    shape = (*x.shape[:axis], width - 1, *x.shape[axis + 1 :])
    if draft.style.opset < 10:
        return draft.op("Slice", [x], shape, axes=[axis], starts=[1], ends=[width])
    inputs = [x, draft.ints(1), draft.ints(2**31), draft.ints(axis)]
    return draft.op("Slice", inputs, shape)


@block(2, 3, 4, often=0.4)
def nothing(draft: Draft, x: Val) -> Val | None:
    """A slice without elements that goes on living: a MatMul with it, a Concat behind."""
    width = x.shape[-1]
    if not isinstance(width, int) or x.rank == 4 or draft.style.opset < 10:
        return None
    inputs = [x, draft.ints(0), draft.ints(0), draft.ints(x.rank - 1)]
    empty = draft.op("Slice", inputs, (*x.shape[:-1], 0))
    return draft.op("Concat", [empty, x], x.shape, axis=x.rank - 1)


@block(3, often=1.5)
def transpose(draft: Draft, x: Val) -> Val | None:
    return draft.op("Transpose", [x], (x.shape[0], x.shape[2], x.shape[1]), perm=[0, 2, 1])


@block(2, often=2.5)
def to_image(draft: Draft, x: Val) -> Val | None:
    """Rows become images, sounds or sequences, by a constant shape or one computed at run time."""
    width = x.shape[1]
    if not isinstance(width, int) or width < 4:
        return None
    splits = [(c, width // c) for c in (1, 2, 3, 4, 8) if width % c == 0]
    channels, rest = draft.pick(splits)
    lengths = draft.pick([(rest,), *((h, rest // h) for h in (2, 3, 4) if rest % h == 0)])
    shape = (x.shape[0], channels, *lengths)
    if draft.chance(0.6):
        return draft.op("Reshape", [x, draft.ints(0, channels, *lengths)], shape)
    sizes = draft.op("Shape", [x], (2,), INT64)
    rows = draft.op("Gather", [sizes, draft.ints(0)], (1,), INT64, axis=0)
    wanted = draft.op(
        "Concat", [rows, draft.ints(channels, *lengths)], (len(shape),), INT64, axis=0
    )
    return draft.op("Reshape", [x, wanted], shape)


@block(3, 4, 5, often=2)
def flatten(draft: Draft, x: Val) -> Val | None:
    sizes = [dim for dim in x.shape[1:] if isinstance(dim, int)]
    total = int(np.prod(sizes))
    if len(sizes) != x.rank - 1 or total > _LARGEST or total == 0:
        return None
    if draft.chance(0.5):
        return draft.op("Flatten", [x], (x.shape[0], total), axis=1)
    return draft.op("Reshape", [x, draft.ints(0, -1)], (x.shape[0], total))


@block(2, 3)
def unsqueeze(draft: Draft, x: Val) -> Val | None:
    """An axis more and, for rows, less again."""
    shape = (*x.shape[:1], 1, *x.shape[1:])
    if draft.style.opset >= 13:
        more = draft.op("Unsqueeze", [x, draft.ints(1)], shape)
    else:
        more = draft.op("Unsqueeze", [x], shape, axes=[1])
    if draft.chance(0.5):
        return more
    if draft.style.opset >= 13:
        return draft.op("Squeeze", [more, draft.ints(1)], x.shape)
    return draft.op("Squeeze", [more], x.shape, axes=[1])


@block(2, since=8, often=0.7)
def expand(draft: Draft, x: Val) -> Val | None:
    width = x.shape[1]
    if not isinstance(width, int):
        return None
    column = (x.shape[0], 1, width)
    more = draft.op("Reshape", [x, draft.ints(0, 1, width)], column)
    if draft.chance(0.5):
        return draft.op("Expand", [more, draft.ints(1, 3, 1)], (x.shape[0], 3, width))
    return draft.op("Tile", [more, draft.ints(1, 2, 1)], (x.shape[0], 2, width))


@block(2, 3, since=11, often=0.7)
def top_k(draft: Draft, x: Val) -> Val | None:
    width = x.shape[-1]
    if not isinstance(width, int) or width < 3:
        return None
    made, _ = draft.ops("TopK", [x, draft.ints(3)], [(*x.shape[:-1], 3)] * 2, FLOAT, axis=-1)
    return made


@block(2, 3, 4, often=0.8)
def gather(draft: Draft, x: Val) -> Val | None:
    axis = x.rank - 1
    width = x.shape[axis]
    if not isinstance(width, int) or width == 0:
        return None
    at = draft.constant(draft.rng.integers(0, width, 4))
    return draft.op("Gather", [x, at], (*x.shape[:-1], 4), axis=axis)
