"""A signature with an image and a scalar-like side input, and samples that fit it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from onnxq.graph.structure import InputSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxq.data import Signature

Feeds = dict[str, "NDArray[Any]"]

FLOAT, INT = np.dtype(np.float32), np.dtype(np.int64)


@pytest.fixture
def one_input() -> Signature:
    return (InputSpec("x", FLOAT, ("batch", 3), required=True),)


@pytest.fixture
def two_inputs() -> Signature:
    return (
        InputSpec("ids", INT, ("batch", "length"), required=True),
        InputSpec("mask", FLOAT, ("batch", "length"), required=True),
        InputSpec("bias", FLOAT, (4,), required=False),
    )


@pytest.fixture
def tokens() -> Feeds:
    return {"mask": np.ones((2, 5), np.float32), "ids": np.arange(10, dtype=np.int64).reshape(2, 5)}
