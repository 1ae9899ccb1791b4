"""Values of attention take the division of what is behind it, per head of values, without a cache.

Nine heads of queries read three heads of values, as in SmolLM2; decomposed and as one operator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.foldable import assert_equal_when_scaled, folds, group_on, ints, modern, number
from tests.small_models import normal

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEADS, GROUPS, WIDTH, MODEL = 9, 3, 8, 12


def repeated(heads: int, groups: int, width: int) -> list[int]:
    """The channel of the values that each channel behind attention comes from."""
    return [head // (heads // groups) * width + d for head in range(heads) for d in range(width)]


def constants(heads: int, groups: int, width: int) -> dict[str, NDArray[Any]]:
    """Weights and shapes of :data:`DECOMPOSED`."""
    return {
        "wq": normal(0, MODEL, heads * width),
        "wk": normal(1, MODEL, groups * width),
        "wv": normal(2, MODEL, groups * width),
        "wo": normal(3, heads * width, MODEL),
        "queries": ints(0, 0, heads, width),
        "groups": ints(0, 0, groups, width),
        "joined": ints(0, 0, heads * width),
        "two": ints(2),
        "times": ints(1, 1, heads // groups, 1, 1),
        "heads": ints(heads),
        "width": ints(width),
        "scale": number(0.5, np.float32),
    }


REPEATED = repeated(HEADS, GROUPS, WIDTH)
KNOWN = constants(HEADS, GROUPS, WIDTH)
FEEDS = {"x": normal(4, 2, 5, MODEL)}

PROJECTIONS = "q0 = MatMul(x, wq) k0 = MatMul(x, wk) v0 = MatMul(x, wv)"
DECOMPOSED = """g (float[B, S, 12] x) => (float[B, S, 12] y) {
    PROJECTIONS
    q1 = Reshape(q0, queries) q = Transpose<perm = [0, 2, 1, 3]>(q1)
    k1 = Reshape(k0, groups) k2 = Transpose<perm = [0, 2, 1, 3]>(k1)
    v1 = Reshape(v0, groups) v2 = Transpose<perm = [0, 2, 1, 3]>(v1)
    PAST
    b = Shape<start = 0, end = 1>(keys) s = Shape<start = 2, end = 3>(keys)
    four = Concat<axis = 0>(b, heads, s, width)
    k3 = Unsqueeze(keys, two) k4 = Expand(k3, times) k5 = Reshape(k4, four)
    v3 = Unsqueeze(values, two) v4 = Expand(v3, times) v5 = Reshape(v4, four)
    kt = Transpose<perm = [0, 1, 3, 2]>(k5)
    a0 = MatMul(q, kt) a1 = Mul(a0, scale) p = Softmax<axis = -1>(a1)
    o0 = MatMul(p, v5) o1 = Transpose<perm = [0, 2, 1, 3]>(o0)
    h = Reshape(o1, joined)
    y = MatMul(h, wo)
}""".replace("PROJECTIONS", PROJECTIONS)
WITHOUT_PAST = DECOMPOSED.replace("PAST", "keys = Identity(k2) values = Identity(v2)")
WITH_PAST = (
    DECOMPOSED.replace("PAST", "keys = Concat<axis = 2>(pk, k2) values = Concat<axis = 2>(pv, v2)")
    .replace("12] x)", "12] x, float[B, 3, P, 8] pk, float[B, 3, P, 8] pv)")
    .replace("12] y)", "12] y, float[B, 3, T, 8] keys, float[B, 3, T, 8] values)")
)


def test_grouped_queries_share_the_factor_of_their_values() -> None:
    model = modern(WITHOUT_PAST, **KNOWN)
    assert folds(model, "h") == [("MatMul", 1)]
    fold = group_on(model, "h").fold
    assert fold.classes.tolist() == REPEATED
    assert {"v0", "o0"} <= set(fold.between)
    assert_equal_when_scaled(model, FEEDS)


@settings(max_examples=15, deadline=None)
@given(
    groups=st.integers(1, 3),
    repeats=st.integers(1, 4),
    width=st.integers(1, 5),
    batch=st.integers(1, 3),
    steps=st.integers(1, 6),
    seed=st.integers(0, 2**16),
)
def test_any_number_of_heads(
    groups: int, repeats: int, width: int, batch: int, steps: int, seed: int
) -> None:
    heads = groups * repeats
    model = modern(WITHOUT_PAST, **constants(heads, groups, width))
    fold = group_on(model, "h").fold
    if groups * width == 1 < heads:
        assert fold.reason == "all its channels would have to be divided by the same"
    else:
        assert fold.classes.tolist() == repeated(heads, groups, width)
    assert_equal_when_scaled(model, {"x": normal(seed, batch, steps, MODEL)}, seed)


def test_heads_that_are_repeated_by_broadcasting() -> None:
    """Scores of five axes beside values of one head a group."""
    text = """g (float[B, S, 12] x) => (float[B, S, 12] y) {
        q0 = MatMul(x, wq) v0 = MatMul(x, wv)
        q1 = Reshape(q0, five) q = Transpose<perm = [0, 2, 3, 1, 4]>(q1)
        v1 = Reshape(v0, single) v = Transpose<perm = [0, 2, 3, 1, 4]>(v1)
        qt = Transpose<perm = [0, 1, 2, 4, 3]>(q)
        a = MatMul(q, qt) p = Softmax<axis = -1>(a)
        o0 = MatMul(p, v) o1 = Transpose<perm = [0, 3, 1, 2, 4]>(o0)
        h = Reshape(o1, joined)
        y = MatMul(h, wo)
    }"""
    shapes = {
        "five": ints(0, 0, GROUPS, HEADS // GROUPS, WIDTH),
        "single": ints(0, 0, GROUPS, 1, WIDTH),
        "joined": KNOWN["joined"],
    }
    weights = {name: KNOWN[name] for name in ("wq", "wv", "wo")}
    model = modern(text, **weights, **shapes)
    assert group_on(model, "h").fold.classes.tolist() == REPEATED
    assert_equal_when_scaled(model, FEEDS)


def test_values_that_are_cached_stay_as_they_are() -> None:
    model = modern(WITH_PAST, **KNOWN)
    group = group_on(model, "h")
    assert group.fold.reason == "'values' is an output of the model"
    past = {"pk": normal(5, 2, 3, 4, 8), "pv": normal(6, 2, 3, 4, 8)}
    assert_equal_when_scaled(model, {**FEEDS, **past})


def test_values_of_earlier_runs_stay_as_they_are() -> None:
    """Even where they are not handed out again."""
    text = WITH_PAST.replace(", float[B, 3, T, 8] keys, float[B, 3, T, 8] values)", ")")
    model = modern(text, **KNOWN)
    assert group_on(model, "h").fold.reason == "'pv' is an input of the model"


def test_queries_keys_and_values_of_one_product() -> None:
    """As vision transformers have it: five axes, of which Gather takes one."""
    text = """g (float[B, S, 12] x) => (float[B, S, 12] y) {
        a = MatMul(x, w) c = Add(a, b)
        r = Reshape(c, five) t = Transpose<perm = [2, 0, 3, 1, 4]>(r)
        q = Gather<axis = 0>(t, zero) k = Gather<axis = 0>(t, one) v = Gather<axis = 0>(t, two)
        kt = Transpose<perm = [0, 1, 3, 2]>(k)
        s = MatMul(q, kt) p = Softmax<axis = -1>(s)
        o0 = MatMul(p, v) o1 = Transpose<perm = [0, 2, 1, 3]>(o0)
        h = Reshape(o1, joined)
        y = MatMul(h, wo)
    }"""
    indices = {name: number(i, np.int64) for i, name in enumerate(("zero", "one", "two"))}
    weights = {"w": normal(0, 12, 36), "b": normal(1, 36), "wo": normal(2, 12, 12)}
    shapes = {"five": ints(0, 0, 3, 3, 4), "joined": ints(0, 0, 12)}
    model = modern(text, **weights, **shapes, **indices)
    group = group_on(model, "h")
    assert [p.channels.tolist() for p in group.fold.parameters] == [[-1] * 24 + list(range(12))] * 2
    assert_equal_when_scaled(model, FEEDS)


def fused(node: str, more: str = "") -> str:
    return f"g (float[B, S, 12] x{more}) => (float[B, S, 12] y) {{ {node} y = MatMul(h, wo) }}"


STANDARD = fused(
    PROJECTIONS + " h = Attention<q_num_heads = 9, kv_num_heads = 3, is_causal = 1>(q0, k0, v0)"
)
STANDARD_OF_FOUR_AXES = fused(
    PROJECTIONS
    + """ q1 = Reshape(q0, queries) q = Transpose<perm = [0, 2, 1, 3]>(q1)
    k1 = Reshape(k0, groups) k = Transpose<perm = [0, 2, 1, 3]>(k1)
    v1 = Reshape(v0, groups) v = Transpose<perm = [0, 2, 1, 3]>(v1)
    o = Attention(q, k, v) t = Transpose<perm = [0, 2, 1, 3]>(o) h = Reshape(t, joined)"""
)
GROUPED = fused(
    PROJECTIONS
    + """ h, pk, pv = com.microsoft.GroupQueryAttention<num_heads = 9, kv_num_heads = 3>(
        q0, k0, v0, , , lengths, total)"""
)
PACKED = fused(
    """a = MatMul(x, wqkv) h, pk, pv =
    com.microsoft.GroupQueryAttention<num_heads = 9, kv_num_heads = 3>(
        a, , , , , lengths, total)"""
)
MULTI_HEAD = fused(
    """q0 = MatMul(x, wq) k0 = MatMul(x, wk9) v0 = MatMul(x, wv9)
    h = com.microsoft.MultiHeadAttention<num_heads = 9>(q0, k0, v0, bias)"""
)
FUSED = fused("h = com.microsoft.Attention<num_heads = 9>(x, wqkv9, bias)")
CONSTANTS: dict[str, NDArray[Any]] = {
    **KNOWN,
    "lengths": ints(4, 4).astype(np.int32),
    "total": number(5, np.int32),
    "wqkv": np.concatenate([KNOWN["wq"], KNOWN["wk"], KNOWN["wv"]], axis=1),
    "wk9": normal(7, MODEL, 72),
    "wv9": normal(8, MODEL, 72),
    "wqkv9": normal(9, MODEL, 216),
    "bias": normal(10, 216),
}


@pytest.mark.parametrize(
    ("text", "expected", "classes"),
    [
        (STANDARD, [("MatMul", 1)], REPEATED),
        (STANDARD_OF_FOUR_AXES, [("MatMul", 1)], REPEATED),
        (GROUPED, [("MatMul", 1)], REPEATED),
        (PACKED, [("MatMul", 1)], REPEATED),
        (MULTI_HEAD, [("MatMul", 1), ("MultiHeadAttention", 3)], list(range(72))),
        (FUSED, [("Attention", 1), ("Attention", 2)], list(range(72))),
    ],
    ids=["standard", "four axes", "grouped", "packed", "multi-head", "fused"],
)
def test_attention_as_one_operator(
    text: str, expected: list[tuple[str, int]], classes: list[int]
) -> None:
    model = modern(text, **CONSTANTS)
    assert folds(model, "h") == expected
    assert group_on(model, "h").fold.classes.tolist() == classes
    assert_equal_when_scaled(model, FEEDS)


PAST = ", float[B, 3, P, 8] pk, float[B, 3, P, 8] pv"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            GROUPED.replace("12] y)", "12] y, float[B, 3, T, 8] pk, float[B, 3, T, 8] pv)"),
            "hands out its values (present)",
        ),
        (
            STANDARD.replace("12] x", "12] x" + PAST).replace("k0, v0)", "k0, v0, , pk, pv)"),
            "reads values of earlier runs (past)",
        ),
        (
            MULTI_HEAD.replace(
                "12] x", "12] x, float[B, 9, P, 8] pk, float[B, 9, P, 8] pv"
            ).replace(", bias)", ", bias, , , pk, pv)"),
            "reads values of earlier runs (past)",
        ),
        (
            FUSED.replace("12] x", "12] x, float[2, B, 9, P, 8] past").replace(
                ", bias)", ", bias, , past)"
            ),
            "reads values of earlier runs (past)",
        ),
        (
            MULTI_HEAD.replace("k0, v0, bias)", "kv)").replace(
                "v0 = MatMul(x, wv9)", "kv = Reshape(k0, packed)"
            ),
            "are packed, or of unknown shape",
        ),
    ],
)
def test_a_cache_is_refused(text: str, reason: str) -> None:
    model = modern(text, **CONSTANTS, packed=ints(0, 0, 9, 2, 4))
    assert reason in group_on(model, "h").fold.reason
