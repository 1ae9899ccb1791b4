"""Samples put together along the batch axis.

The batch axis is the first one of every input whose first length is not fixed; where lengths have
names, of those with the name of the first such input. All other inputs keep the value that they
have in the first sample.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from onnxq.data.sample import Signature
    from onnxq.data.source import DataSource


def batch_of(source: DataSource, signature: Signature, rows: int) -> dict[str, NDArray[Any]]:
    """One sample of so many rows.

    Rows come from the first sample and those behind it that have its other lengths; where they are
    too few they are repeated.

    Args:
        source: Samples that fit the model.
        signature: The model's inputs.
        rows: How many rows.

    Raises:
        DataError: The batch axis of the model has another fixed length, or there is none.
    """
    samples = iter(source)
    first = next(samples)
    names = _batched(first.feeds, signature)
    if not names:
        if first.rows == rows:
            return dict(first.feeds)
        code = "data.batch"
        text = f"a batch of {rows} does not fit: the inputs have a fixed first length, {first.rows}"
        remedy = "export the model with a batch axis of any length, or ask for that length"
        raise DataError(code, text, where=first.name, remedy=remedy)
    parts = {name: [first.feeds[name]] for name in names}
    count = first.rows
    while count < rows and (sample := next(samples, None)) is not None:
        if all(sample.feeds[name].shape[1:] == first.feeds[name].shape[1:] for name in names):
            for name in names:
                parts[name].append(sample.feeds[name])
            count += sample.feeds[names[0]].shape[0]
    found = dict(first.feeds)
    for name in names:
        together = np.concatenate(parts[name])
        repeats = -(-rows // len(together))
        found[name] = np.concatenate([together] * repeats)[:rows]
    return found


def _batched(feeds: Mapping[str, NDArray[Any]], signature: Signature) -> list[str]:
    """The inputs that have a batch axis of any length."""
    free = [
        spec
        for spec in signature
        if spec.name in feeds and spec.shape and not isinstance(spec.shape[0], int)
    ]
    symbol = free[0].shape[0] if free else None
    return [spec.name for spec in free if spec.shape[0] == symbol]
