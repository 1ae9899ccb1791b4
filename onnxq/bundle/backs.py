"""A model's outputs to what an application wants, in the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from onnxq.bundle.draft import ints, strings
from onnxq.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxq.bundle.draft import Draft
    from onnxq.bundle.postprocess import BoxSteps, ClassSteps, EmbeddingSteps

_LEAST_COUNT: Final = 1e-9
_LEAST_LENGTH: Final = 1e-12
"""What sentence-transformers and PyTorch divide by where there is nothing."""


def classes(
    draft: Draft, scores: ir.Value, steps: ClassSteps, labels: Sequence[str] | None, where: str
) -> None:
    """``classes`` int64 and ``scores`` float32 ``[batch, top]``, with names ``labels`` too.

    Raises:
        DataError: The output holds no scores of classes, or there are fewer classes or labels.
    """
    _check_rank(scores, 2, where)
    count = _length(scores, -1)
    if count is not None:
        check_labels(labels, count, where)
        if steps.top > count:
            code, text = "bundle.top", f"top = {steps.top}, {scores.name!r} has {count} classes"
            raise DataError(code, text, where=where, remedy="Say fewer.")
    value = draft("Cast", draft.read(scores), to=ir.DataType.FLOAT)
    if steps.scores == "softmax":
        value = draft("Softmax", value, axis=-1)
    elif steps.scores == "sigmoid":
        value = draft("Sigmoid", value)
    best, places = draft.several("TopK", 2, value, ints(steps.top), axis=-1)
    batch = _batch(scores)
    draft.new_output(best, "scores", ir.DataType.FLOAT, [batch, steps.top])
    if labels is not None:
        names = draft("Gather", strings(*labels), places)
        draft.new_output(names, "labels", ir.DataType.STRING, [batch, steps.top])
    draft.new_output(places, "classes", ir.DataType.INT64, [batch, steps.top])


def embedding(
    draft: Draft, states: ir.Value, mask: ir.Value | None, steps: EmbeddingSteps, where: str
) -> None:
    """``sentence_embedding`` float32 ``[batch, channels]``.

    Args:
        draft: Where to write.
        states: ``[batch, tokens, channels]``; without pooling ``[batch, channels]``.
        mask: Which tokens are text, ``[batch, tokens]``; None where all are.
        steps: What to do.
        where: The file that declares it, for messages.

    Raises:
        DataError: The output has another rank.
    """
    _check_rank(states, 2 if steps.pool == "none" else 3, where)
    value = draft("Cast", draft.read(states), to=ir.DataType.FLOAT)
    if steps.pool != "none":
        value = _pooled(draft, value, mask, steps.pool)
    if steps.normalize:
        length = draft("ReduceL2", value, ints(-1), keepdims=1)
        value = draft("Div", value, draft("Max", length, np.array(_LEAST_LENGTH, np.float32)))
    shape = [_batch(states), _length(states, -1)]
    draft.new_output(value, "sentence_embedding", ir.DataType.FLOAT, shape)


def _pooled(draft: Draft, value: ir.Value, mask: ir.Value | None, pool: str) -> ir.Value:
    if pool == "first":
        return draft("Gather", value, np.array(0, np.int64), axis=1)
    if mask is None:
        return draft("ReduceMean" if pool == "mean" else "ReduceMax", value, ints(1), keepdims=0)
    kept = draft("Unsqueeze", draft("Cast", draft.read(mask), to=ir.DataType.FLOAT), ints(-1))
    if pool == "max":
        lowest = np.array(np.finfo(np.float32).min)
        hidden = draft("Equal", kept, np.array(0, np.float32))
        return draft("ReduceMax", draft("Where", hidden, lowest, value), ints(1), keepdims=0)
    total = draft("ReduceSum", draft("Mul", value, kept), ints(1), keepdims=0)
    count = draft("ReduceSum", kept, ints(1), keepdims=0)
    return draft("Div", total, draft("Max", count, np.array(_LEAST_COUNT, np.float32)))


def boxes(
    draft: Draft,
    found: ir.Value,
    geometry: ir.Value | None,
    steps: BoxSteps,
    labels: Sequence[str] | None,
    where: str,
) -> None:
    """``boxes`` float32 ``[boxes, 4]`` (left, top, right, bottom), ``scores``, ``classes``, ...

    Args:
        draft: Where to write.
        found: ``[1, 4 + classes, boxes]`` or with the last two axes in the other order.
        geometry: Where a pixel of the model's input lies in the image; None leaves boxes there.
        steps: What to do.
        labels: Names of the classes; None without.
        where: The file that declares it, for messages.

    Raises:
        DataError: The output has another rank, or there are more or fewer labels than classes.
    """
    first = 5 if steps.objectness else 4
    _check_boxes(found, first, steps, labels, where)
    value = draft("Cast", draft.read(found), to=ir.DataType.FLOAT)
    if steps.channels == "last":
        value = draft("Transpose", value, perm=[0, 2, 1])
    scores = _rows(draft, value, first, np.iinfo(np.int64).max)
    if steps.objectness:
        scores = draft("Mul", scores, _rows(draft, value, 4, 5))
    corners = draft("Transpose", _corners(draft, value, steps), perm=[0, 2, 1])
    kept = draft(
        "NonMaxSuppression",
        corners,
        scores,
        ints(steps.most),
        np.array([steps.max_overlap], np.float32),
        np.array([steps.min_score], np.float32),
    )
    # Each row of `kept` is the image, the class and the box.
    score = draft("GatherND", scores, kept)
    order = draft.several("TopK", 2, score, draft("Shape", score), axis=0)[1]
    kept = draft("Gather", kept, order)
    number = draft("Gather", kept, np.array(1, np.int64), axis=1)
    box = draft(
        "Gather", draft("Squeeze", corners, ints(0)), draft("Gather", kept, np.array(2), axis=1)
    )
    if geometry is not None:
        offset, scale = draft.several("Split", 2, draft.read(geometry), num_outputs=2, axis=0)
        offset, scale = (draft("Concat", part, part, axis=0) for part in (offset, scale))
        box = draft("Mul", draft("Add", box, offset), scale)
    draft.new_output(box, "boxes", ir.DataType.FLOAT, ["boxes", 4])
    draft.new_output(draft("Gather", score, order), "scores", ir.DataType.FLOAT, ["boxes"])
    if labels is not None:
        names = draft("Gather", strings(*labels), number)
        draft.new_output(names, "labels", ir.DataType.STRING, ["boxes"])
    draft.new_output(number, "classes", ir.DataType.INT64, ["boxes"])


def _check_boxes(
    found: ir.Value, first: int, steps: BoxSteps, labels: Sequence[str] | None, where: str
) -> None:
    """Refuse an output that holds no scores of classes from ``first`` on, or other labels."""
    _check_rank(found, 3, where)
    numbers = _length(found, 1 if steps.channels == "first" else 2)
    if numbers is None:
        return
    if numbers <= first:
        code, text = "bundle.boxes", f"{found.name!r} has {numbers} numbers of each box"
        remedy = "Say where they stand: channels = first or last; objectness = true or false."
        raise DataError(code, text, where=where, remedy=remedy)
    check_labels(labels, numbers - first, where)


def check_labels(labels: Sequence[str] | None, count: int, where: str) -> None:
    """Refuse labels that are not as many as the classes.

    Raises:
        DataError: They are not.
    """
    if labels is None or len(labels) == count:
        return
    code, text = "bundle.labels", f"there are {len(labels)} labels, the model has {count} classes"
    raise DataError(code, text, where=where, remedy="Give one label a class, in their order.")


def _rows(draft: Draft, value: ir.Value, start: int, end: int) -> ir.Value:
    return draft("Slice", value, ints(start), ints(end), ints(1))


def _corners(draft: Draft, value: ir.Value, steps: BoxSteps) -> ir.Value:
    """``[1, 4, boxes]``: left, top, right, bottom."""
    if steps.format == "xyxy":
        return _rows(draft, value, 0, 4)
    middle, size = _rows(draft, value, 0, 2), _rows(draft, value, 2, 4)
    half = draft("Mul", size, np.array(0.5, np.float32))
    return draft("Concat", draft("Sub", middle, half), draft("Add", middle, half), axis=1)


def _check_rank(value: ir.Value, rank: int, where: str) -> None:
    if value.shape is None or len(value.shape) == rank:
        return
    code = "bundle.output"
    text = f"output {value.name!r} has {len(value.shape)} axes, {rank} are wanted"
    remedy = 'Name another with output = "...", or leave the postprocessing out.'
    raise DataError(code, text, where=where, remedy=remedy)


def _length(value: ir.Value, axis: int) -> int | None:
    length = None if value.shape is None else value.shape[axis]
    return length if isinstance(length, int) else None


def _batch(value: ir.Value) -> int | str | None:
    length = None if value.shape is None else value.shape[0]
    return length if isinstance(length, int | None) else length.value
