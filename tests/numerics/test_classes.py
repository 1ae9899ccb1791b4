"""One value for all channels of a class, against plain loops."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onnxq.numerics.classes import class_maximum, class_mean


@given(
    classes=st.lists(st.integers(0, 4), min_size=1, max_size=20),
    seed=st.integers(0, 100),
)
def test_every_channel_gets_the_value_of_its_class(classes: list[int], seed: int) -> None:
    numbers = np.unique(classes, return_inverse=True)[1]
    values = np.random.default_rng(seed).normal(size=len(classes))
    members = [values[numbers == number] for number in numbers]
    np.testing.assert_array_equal(class_maximum(values, numbers), [m.max() for m in members])
    np.testing.assert_allclose(class_mean(values, numbers), [m.mean() for m in members], rtol=1e-12)
