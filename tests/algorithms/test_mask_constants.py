"""Constants that mask, and those that only look like it."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq.algorithms.mask_constants import MASK, find_masks
from onnxq.numerics.half import HALF_TYPES
from tests.small_models import normalized

LOWEST = float(np.finfo(np.float32).min)
ADDED = """g (float[N, 4] x, float[N, 4] m) => (float[N, 4] y) {
    p = Mul(m, c) s = Add(x, p) y = Softmax(s)
}"""
CHOSEN = """g (float[N, 4] x, bool[N, 4] m) => (float[N, 4] y) {
    t = Where(m, x, c) s = Transpose(t) u = Transpose(s) y = LogSoftmax(u)
}"""
READ_ELSEWHERE = """g (float[N, 4] x) => (float[N, 4] y, float[N, 4] z) {
    s = Add(x, c) y = Softmax(s) z = Tanh(s)
}"""
AN_OUTPUT = "g (float[N, 4] x) => (float[N, 4] y, float[N, 4] s) { s = Add(x, c) y = Softmax(s) }"
DIVIDED = "g (float[N, 4] x) => (float[N, 4] y) { s = Div(x, c) y = Softmax(s) }"
IN_A_BODY = """g (float[N, 4] x, bool b) => (float[N, 4] y) {
    s = Add(x, c)
    y = If (b) <
        then_branch = t () => (float[N, 4] o) { o = Softmax(s) },
        else_branch = e () => (float[N, 4] p) { p = Neg(x) }
    >
}"""


def masks(text: str, value: float, name: str = "float16") -> list[str]:
    model = normalized(text, c=np.asarray(value, np.float32))
    return [entry.initializer for entry in find_masks(model, HALF_TYPES[name])]


@pytest.mark.parametrize("text", [ADDED, CHOSEN])
@pytest.mark.parametrize("value", [LOWEST, -1e9, -65504.0])
def test_found(text: str, value: float) -> None:
    assert masks(text, value) == ["c"]


@pytest.mark.parametrize("text", [READ_ELSEWHERE, AN_OUTPUT, DIVIDED, IN_A_BODY])
def test_only_if_every_way_leads_to_a_softmax(text: str) -> None:
    assert masks(text, LOWEST) == []


@pytest.mark.parametrize("value", [-1e4, 1.0, -np.inf])
def test_what_16_bits_hold_stays(value: float) -> None:
    assert masks(ADDED, value) == []


def test_bfloat16_needs_it_only_at_the_end_of_float32() -> None:
    assert masks(ADDED, LOWEST, "bfloat16") == ["c"]
    assert masks(ADDED, -1e9, "bfloat16") == []


@pytest.mark.parametrize("name", HALF_TYPES)
def test_the_bound_is_a_number_that_still_masks(name: str) -> None:
    assert float(np.asarray(MASK).astype(HALF_TYPES[name].dtype)) == MASK
    assert np.exp(np.float64(-MASK)) == 0
    assert HALF_TYPES[name].greatest / 2 > 3 * MASK
