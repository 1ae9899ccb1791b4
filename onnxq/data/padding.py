"""Which positions of a run are no padding, as its attention mask tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Feeds = Mapping[str, NDArray[Any]]

_MASK: Final = "attention_mask"


def unpadded(feeds: Feeds, shape: tuple[int, ...]) -> Any:
    """An index that leaves padded positions out of what has a row for each token.

    Args:
        feeds: The model's inputs.
        shape: Those of what is indexed but for the last axis. Everything is kept unless the mask or
            another input, such as the tokens, has this shape.
    """
    if len(shape) != 2 or all(array.shape != shape for array in feeds.values()):
        return ...
    kept = unpadded_tokens(feeds, (shape[0], shape[1]))
    return ... if kept.all() else kept


def unpadded_tokens(feeds: Feeds, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Which tokens are no padding, ``[batch, sequence]``; all where no mask tells.

    A mask that is longer than the tokens covers those before them too, so its end is what counts.
    """
    mask, (rows, length) = feeds.get(_MASK), shape
    if mask is None or mask.ndim != 2 or mask.shape[0] != rows or mask.shape[1] < length:
        return np.ones(shape, np.bool_)
    return mask[:, mask.shape[1] - length :].astype(np.bool_)
