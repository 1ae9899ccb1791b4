"""Patches of convolutions, against ONNX's own reference of Conv."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from onnxq.numerics.windows import Window

_SAME = {"": "NOTSET", "front": "SAME_LOWER", "behind": "SAME_UPPER"}


def _conv(values: np.ndarray, weight: np.ndarray, window: Window) -> np.ndarray:
    """What a Conv of this window makes."""
    attributes: dict[str, Any] = {
        "strides": window.strides,
        "dilations": window.dilations,
        "auto_pad": _SAME[window.same],
    }
    if not window.same:
        attributes["pads"] = window.pads
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], **attributes)
    found: Any = ReferenceEvaluator(node).run(None, {"x": values, "w": weight})
    return np.asarray(found[0])


@st.composite
def windows(draw: st.DrawFn) -> tuple[Window, tuple[int, ...]]:
    """A window and the spatial sizes of an input that it fits."""
    rank = draw(st.integers(1, 3))

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    same: Literal["", "front", "behind"] = draw(st.sampled_from(["", "front", "behind"]))
    kernel, strides = each(1, 3), each(1, 3)
    dilations = (1,) * rank if same else each(1, 2)
    pads = (0,) * 2 * rank if same else each(0, 2) + each(0, 2)
    window = Window(kernel, strides, dilations, pads, same)
    return window, tuple(reach + draw(st.integers(0, 4)) for reach in window.reach)


@settings(deadline=None)  # the first call imports
@given(windows(), st.integers(0, 2**31))
def test_patches_times_weights_are_the_convolution(
    case: tuple[Window, tuple[int, ...]], seed: int
) -> None:
    window, spatial = case
    random = np.random.default_rng(seed)
    values = random.normal(size=(2, 3, *spatial)).astype(np.float32)
    weight = random.normal(size=(4, 3, *window.kernel)).astype(np.float32)
    wanted = _conv(values, weight, window)
    found = window.patches(values, 10**6, 0) @ weight.reshape(4, -1).T
    np.testing.assert_allclose(found, np.moveaxis(wanted, 1, -1).reshape(-1, 4), atol=1e-4)


def test_of_many_patches_some_are_taken_the_same_at_every_run() -> None:
    values = np.arange(2 * 3 * 40 * 40, dtype=np.float32).reshape(2, 3, 40, 40)
    window = Window((3, 3), (1, 1), (1, 1), (1, 1, 1, 1))
    every = window.patches(values, 10**6, 0)
    some = window.patches(values, 50, 7)
    assert every.shape == (2 * 40 * 40, 27)
    assert some.shape == (50, 27)
    np.testing.assert_array_equal(some, window.patches(values, 50, 7))
    rows = {row.tobytes(): place for place, row in enumerate(every)}
    places = [rows[row.tobytes()] for row in some]
    assert places == sorted(set(places)), "each once, in order"
    # From all over: both images, and no quarter left out.
    assert np.ptp(places) > 0.75 * len(every)


@pytest.mark.parametrize("most", [1, 4])
def test_a_kernel_without_room_has_no_patches(most: int) -> None:
    window = Window((1,), (2,), (1,), (0, 0))
    assert window.patches(np.zeros((0, 2, 5), np.float32), most, 0).shape == (0, 2)
