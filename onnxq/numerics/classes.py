"""Values of channels that fall into classes: one value for all channels of a class.

``classes`` holds for each channel the number of its class, counted from 0 without gaps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def class_maximum(values: NDArray[np.floating], classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """The greatest value of each channel's class: ``[K] -> [K]``."""
    greatest = np.full(int(classes.max(initial=-1)) + 1, -np.inf)
    np.maximum.at(greatest, classes, values)
    spread: NDArray[np.float64] = greatest[classes]
    return spread


def class_mean(values: NDArray[np.floating], classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean of each channel's class, of all its channels alike: ``[K] -> [K]``."""
    sums = np.bincount(classes, np.asarray(values, np.float64))
    spread: NDArray[np.float64] = (sums / np.bincount(classes))[classes]
    return spread
