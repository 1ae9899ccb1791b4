"""Each pattern folds and computes what it did; each unsafe variant is refused with its reason."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.foldable import (
    assert_equal_when_scaled,
    folds,
    group_on,
    groups_of,
    ints,
    modern,
    number,
)
from tests.small_models import graph_text, normal

if TYPE_CHECKING:
    from numpy.typing import NDArray

VECTOR = {"g": normal(10, 8) + 2, "b": normal(11, 8)}
HEAD = "g (float[B, S, 6] x) => (float[B, S, 5] y)"
MATRICES = {"v": normal(0, 6, 8), "w": normal(1, 8, 5)}
FEEDS = {"x": normal(2, 2, 3, 6)}


def last(*lines: str) -> str:
    """Lines that make ``h`` of 8 channels from ``x`` of 6, and the product behind it."""
    return f"{HEAD} {{ {' '.join(lines)} y = MatMul(h, w) }}"


PATTERNS: dict[str, tuple[str, dict[str, NDArray[Any]], list[tuple[str, int]]]] = {
    "layer normalization": (
        last("a = MatMul(x, v)", "h = LayerNormalization(a, g, b)"),
        VECTOR,
        [("LayerNormalization", 1), ("LayerNormalization", 2)],
    ),
    "layer normalization without bias, one scale for all": (
        last("a = MatMul(x, v)", "h = LayerNormalization(a, g)"),
        {"g": np.full(1, 1.5, np.float32)},
        [("LayerNormalization", 1)],
    ),
    "rms normalization": (
        last("a = MatMul(x, v)", "h = RMSNormalization(a, g)"),
        {"g": VECTOR["g"]},
        [("RMSNormalization", 1)],
    ),
    "simplified layer normalization": (
        last("a = MatMul(x, v)", "h = SimplifiedLayerNormalization(a, g)"),
        {"g": VECTOR["g"]},
        [("SimplifiedLayerNormalization", 1)],
    ),
    "skip layer normalization, whose sum is read too": (
        last(
            "a = MatMul(x, v)",
            "h, m, i, s = com.microsoft.SkipLayerNormalization(a, a, g, b, c)",
            "t = Tanh(s)",
        ).replace("(float[B, S, 5] y)", "(float[B, S, 5] y, float[B, S, 8] t)"),
        {**VECTOR, "c": normal(12, 8)},
        [("SkipLayerNormalization", 2), ("SkipLayerNormalization", 3)],
    ),
    "skip simplified layer normalization, whose bias comes before": (
        last("a = MatMul(x, v)", "h = com.microsoft.SkipSimplifiedLayerNormalization(a, a, g, c)"),
        {"g": VECTOR["g"], "c": normal(12, 8)},
        [("SkipSimplifiedLayerNormalization", 2)],
    ),
    "decomposed rms normalization": (
        last(
            "a = MatMul(x, v)",
            "p = Pow(a, two)",
            "m = ReduceMean(p, axes)",
            "e = Add(m, tiny)",
            "s = Sqrt(e)",
            "r = Reciprocal(s)",
            "n = Mul(a, r)",
            "h = Mul(g, n)",
        ),
        {
            "g": VECTOR["g"],
            "two": number(2, np.float32),
            "axes": ints(-1),
            "tiny": number(1e-5, np.float32),
        },
        [("Mul", 0)],
    ),
    "decomposed layer normalization": (
        last("a = MatMul(x, v)", "n = Tanh(a)", "k = Mul(n, g)", "h = Add(k, b)"),
        VECTOR,
        [("Mul", 1), ("Add", 1)],
    ),
    "a number, where nothing else can": (
        last("a = MatMul(x, v)", "n = Tanh(a)", "h = Mul(n, c)"),
        {"c": number(3, np.float32)},
        [("Mul", 1)],
    ),
    "a constant beside a value of unknown shape": (
        last("a = MatMul(x, v)", "n = com.microsoft.QuickGelu(a)", "h = Mul(n, g)"),
        {"g": VECTOR["g"]},
        [("Mul", 1)],
    ),
    "not a number, which the runtime may fuse, where a weight can": (
        last("a = MatMul(x, v)", "h = Mul(a, c)"),
        {"c": number(3, np.float32)},
        [("MatMul", 1)],
    ),
    "a difference from a constant": (
        last("a = MatMul(x, v)", "h = Sub(b, a)"),
        {"b": VECTOR["b"]},
        [("Sub", 0), ("MatMul", 1)],
    ),
    "a quotient": (
        last("a = MatMul(x, v)", "h = Div(a, g)"),
        {"g": VECTOR["g"]},
        [("MatMul", 1)],
    ),
    "a product and its bias": (
        last("a = MatMul(x, v)", "h = Add(b, a)"),
        {"b": VECTOR["b"]},
        [("Add", 0), ("MatMul", 1)],
    ),
    "through Relu and Identity": (
        last("a = MatMul(x, v)", "i = Identity(a)", "h = Relu(i)"),
        {},
        [("MatMul", 1)],
    ),
    "through LeakyRelu, PRelu, Abs and Neg": (
        last(
            "a = MatMul(x, v)",
            "i = LeakyRelu<alpha = 0.3>(a)",
            "j = PRelu(i, g)",
            "k = Neg(j)",
            "l = Add(k, b)",
            "h = Abs(l)",
        ),
        VECTOR,
        [("MatMul", 1), ("Add", 1)],
    ),
    "a gated product": (
        last(
            "gate = MatMul(x, u)",
            "q = Sigmoid(gate)",
            "silu = Mul(gate, q)",
            "up = MatMul(x, v)",
            "h = Mul(silu, up)",
        ),
        {"u": normal(3, 6, 8)},
        [("MatMul", 1)],
    ),
    "a gated product, the other way round, with a bias": (
        last(
            "gate = MatMul(x, u)",
            "q = Gelu(gate)",
            "a = MatMul(x, v)",
            "up = Add(a, b)",
            "h = Mul(up, q)",
        ),
        {"u": normal(3, 6, 8), "b": VECTOR["b"]},
        [("MatMul", 1), ("Add", 1)],
    ),
    "a sum of two products": (
        last("p = MatMul(x, u)", "a = MatMul(x, v)", "h = Add(p, a)"),
        {"u": normal(3, 6, 8)},
        [("MatMul", 1), ("MatMul", 1)],
    ),
    "joined channels": (
        last("a = MatMul(x, u)", "c = MatMul(x, z)", "h = Concat<axis = -1>(a, c)"),
        {"u": normal(3, 6, 3), "z": normal(4, 6, 5)},
        [("MatMul", 1), ("MatMul", 1)],
    ),
    "a slice of the channels": (
        last("a = MatMul(x, u)", "h = Slice(a, starts, ends, axes)"),
        {
            "u": normal(3, 6, 12),
            "starts": ints(3),
            "ends": ints(11),
            "axes": ints(-1),
        },
        [("MatMul", 1)],
    ),
    "a split of which the other part is read unscaled": (
        last("a = MatMul(x, u)", "t, h = Split<axis = -1>(a, sizes)", "o = Tanh(t)").replace(
            "(float[B, S, 5] y)", "(float[B, S, 5] y, float[B, S, 4] o)"
        ),
        {"u": normal(3, 6, 12), "sizes": ints(4, 8)},
        [("MatMul", 1)],
    ),
    "slices of one product": (
        last(
            "a = MatMul(x, u)",
            "h = Slice(a, zero, eight, axis)",
            "t = Slice(a, eight, end, axis)",
            "o = Tanh(t)",
        ).replace("(float[B, S, 5] y)", "(float[B, S, 5] y, float[B, S, 4] o)"),
        {
            "u": normal(3, 6, 12),
            "zero": ints(0),
            "eight": ints(8),
            "end": ints(2**62),
            "axis": ints(2),
        },
        [("MatMul", 1)],
    ),
    "through shapes": (
        last(
            "a = MatMul(x, v)",
            "r = Reshape(a, four)",
            "t = Transpose<perm = [0, 2, 1, 3]>(r)",
            "u = Unsqueeze(t, one)",
            "s = Squeeze(u, one)",
            "k = Transpose<perm = [0, 2, 1, 3]>(s)",
            "h = Reshape(k, three)",
        ),
        {"four": ints(0, 0, 2, 4), "three": ints(0, 0, 8), "one": ints(1)},
        [("MatMul", 1)],
    ),
    "a head's channels in another order": (
        last(
            "a = MatMul(x, v)",
            "r = Reshape(a, four)",
            "t = Transpose<perm = [0, 1, 3, 2]>(r)",
            "h = Reshape(t, three)",
        ),
        {"four": ints(0, 0, 2, 4), "three": ints(0, 0, 8)},
        [("MatMul", 1)],
    ),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_the_pattern_folds_and_computes_the_same(name: str) -> None:
    text, constants, expected = PATTERNS[name]
    model = modern(text, **MATRICES, **constants)
    assert folds(model, "h") == expected
    assert_equal_when_scaled(model, FEEDS)


GEMM = "g (float[B, 6] x) => (float[B, 5] y)"


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", [(8,), (1, 8), (1,), None])
def test_a_gemm_takes_it_in_its_columns_and_bias(
    transposed: int, bias: tuple[int, ...] | None
) -> None:
    third = "" if bias is None else ", b"
    text = f"""{GEMM} {{
        h = Gemm<transB = {transposed}>(x, v{third})
        y = Gemm<transB = {transposed}>(h, w, c)
    }}"""
    v, w = normal(0, 6, 8), normal(1, 8, 5)
    matrices = {"v": v.T.copy(), "w": w.T.copy()} if transposed else {"v": v, "w": w}
    biases = {} if bias is None else {"b": normal(2, *bias)}
    model = modern(text, **matrices, **biases, c=normal(3, 5))
    assert {op for op, _ in folds(model, "h")} == {"Gemm"}
    assert_equal_when_scaled(model, {"x": normal(4, 7, 6)})


CONV = """g (float[B, 3, 9, 9] x) => (float[B, 5, A, C] y) {
    a = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = GROUP>(x, v, b)
    MIDDLE
    y = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(h, w)
}"""


@pytest.mark.parametrize(
    ("middle", "expected"),
    [
        ("h = Relu(a)", ["Conv", "Conv"]),
        ("h = MaxPool<kernel_shape = [2, 2]>(a)", ["Conv", "Conv"]),
        ("h = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(a)", ["Conv", "Conv"]),
        ("h = GlobalAveragePool(a)", ["Conv", "Conv"]),
        ("s = Sigmoid(a) h = Mul(s, g)", ["Mul"]),
        ("s = Sigmoid(a) h = InstanceNormalization(s, i, j)", ["InstanceNormalization"] * 2),
        ("s = Sigmoid(a) h = BatchNormalization(s, i, j, m, n)", ["BatchNormalization"] * 2),
        ("s = GlobalMaxPool(a) q = Sigmoid(s) r = Relu(a) h = Mul(q, r)", None),
    ],
)
def test_channels_of_images(middle: str, expected: list[str] | None) -> None:
    text = CONV.replace("MIDDLE", middle).replace("GROUP", "3")
    model = modern(
        text,
        v=normal(0, 6, 1, 3, 3), b=normal(1, 6), w=normal(2, 5, 6, 3, 3), g=normal(3, 6, 1, 1),
        i=normal(4, 6), j=normal(5, 6), m=normal(6, 6), n=normal(7, 6) ** 2 + 1,
    )  # fmt: skip
    if expected is not None:
        assert [op for op, _ in folds(model, "h")] == expected
    assert_equal_when_scaled(model, {"x": normal(8, 2, 3, 9, 9)})


def test_positions_of_a_flattened_image_are_divided_by_the_same() -> None:
    model = modern(
        """g (float[B, 3, 4, 4] x) => (float[B, 5] y) {
            a = Conv<kernel_shape = [3, 3]>(x, v, b)
            r = Relu(a)
            h = Flatten(r)
            y = Gemm(h, w)
        }""",
        v=normal(0, 6, 3, 3, 3), b=normal(1, 6), w=normal(2, 24, 5),
    )  # fmt: skip
    assert folds(model, "h") == [("Conv", 1), ("Conv", 2)]
    assert group_on(model, "h").fold.classes.tolist() == [k // 4 for k in range(24)]
    assert_equal_when_scaled(model, {"x": normal(3, 2, 3, 4, 4)})


def test_a_chain_of_folds_scales_both_axes_of_the_weight_between() -> None:
    text = last("n = LayerNormalization(x, s)", "a = MatMul(n, v)", "h = Relu(a)")
    model = modern(text, **MATRICES, s=normal(3, 6))
    assert folds(model, "n") == [("LayerNormalization", 1)]
    assert folds(model, "h") == [("MatMul", 1)]
    result = assert_equal_when_scaled(model, FEEDS)
    assert sorted(result.graph.initializers) == [
        "s_channel_scaled",
        "v_channel_scaled",
        "w_channel_scaled",
    ]


def test_a_vector_that_others_read_is_copied_and_left_to_them() -> None:
    text = last("k = Mul(o, g)", "a = MatMul(x, v)", "n = Tanh(a)", "h = Mul(n, g)").replace(
        "x) => (float[B, S, 5] y)", "x, float[8] o) => (float[B, S, 5] y, float[8] k)"
    )
    model = modern(text, **MATRICES, g=VECTOR["g"])
    assert folds(model, "h") == [("Mul", 1)]
    result = assert_equal_when_scaled(model, {**FEEDS, "o": normal(5, 8)})
    assert "Mul(o, g) -> k" in graph_text(result)


def refusal(text: str, **constants: NDArray[Any]) -> str:
    """Why the division of ``h`` is not folded."""
    model = modern(text, **MATRICES, **constants)
    group = group_on(model, "h")
    assert group.fold.parameters == ()
    return group.fold.reason


PLAIN = last("a = MatMul(x, v)", "h = Relu(a)")
MORE = PLAIN.replace("] y)", "] y, float[B, S, 8] o)")
GELU = ("d = Mul(a, root)", "e = Erf(d)", "f = Add(e, one)")
NUMBERS = {
    "low": number(-1, np.float32),
    "root": number(0.7, np.float32),
    "one": number(1, np.float32),
    "half": number(0.5, np.float32),
}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PLAIN.replace("] y)", "] y, float[B, S, 8] h)"), "'h' is an output of the model"),
        (PLAIN.replace("] y)", "] y, float[B, S, 8] a)"), "'a' is an output of the model"),
        (MORE.replace("h =", "o = Tanh(a) h ="), "'a' is also read by Tanh"),
        (MORE.replace("y =", "o = Tanh(h) y ="), "'h' is also read by Tanh"),
        (MORE.replace("y =", "o = Mul(h, h) y ="), "'h' is also read by Mul"),
        (last("a = MatMul(x, v)", "h = Tanh(a)"), "Tanh .* does not commute"),
        (last("a = MatMul(x, v)", "h = Clip(a, low)"), "Clip .* does not commute"),
        (last("a = MatMul(x, v)", "h = Mul(a, a)"), "'a' is also read by Mul"),
        (
            last("a = MatMul(x, v)", "s = Sigmoid(a)", "h = Mul(a, s)"),
            "'a' is also read by Sigmoid.*; Sigmoid .* does not commute",
        ),
        (last("a = MatMul(x, v)", *GELU, "m = Mul(a, f)", "h = Mul(m, half)"), "part of a Gelu"),
        (last("a = MatMul(x, v)", *GELU, "m = Mul(a, half)", "h = Mul(m, f)"), "part of a Gelu"),
        (last("a = MatMul(x, v)", *GELU, "m = Mul(f, half)", "h = Mul(a, m)"), "part of a Gelu"),
    ],
)
def test_an_unsafe_fold_is_refused(text: str, reason: str) -> None:
    used = {name: array for name, array in NUMBERS.items() if re.search(rf"\b{name}\)", text)}
    assert re.search(reason, refusal(text, **used))
    assert_equal_when_scaled(modern(text, **MATRICES, **used), FEEDS)


def test_a_weight_that_another_product_reads_is_not_divided() -> None:
    text = MORE.replace("h =", "n = Tanh(x) o = MatMul(n, v) h =")
    assert "'v' is shared" in refusal(text)


def test_a_constant_that_a_caller_may_replace_is_not_divided() -> None:
    text = last("a = MatMul(x, v)", "n = Tanh(a)", "h = Mul(n, g)").replace(
        "x)", "x, float[8] g)", 1
    )
    assert "a caller may replace it" in refusal(text, g=VECTOR["g"])
    # A product commutes all the same, so that the weight in front can take it.
    text = last("a = MatMul(x, v)", "h = Mul(a, g)").replace("x)", "x, float[8] g)", 1)
    model = modern(text, **MATRICES, g=VECTOR["g"])
    assert folds(model, "h") == [("MatMul", 1)]
    assert_equal_when_scaled(model, FEEDS)


def test_a_constant_that_is_an_output_is_not_divided() -> None:
    text = last("a = MatMul(x, v)", "n = Tanh(a)", "h = Mul(n, g)").replace(
        "] y)", "] y, float[8] g)"
    )
    assert "'g' is also an output of the model" in refusal(text, g=VECTOR["g"])


@pytest.mark.parametrize("captured", ["h", "a"])
def test_a_value_that_a_subgraph_captures_is_not_divided(captured: str) -> None:
    branch = f"float[B, S, 8] p) {{ p = Tanh({captured}) }}"
    text = PLAIN.replace("float[B, S, 6] x)", "float[B, S, 6] x, bool c)").replace(
        "] y)", "] y, float[B, S, 8] o)"
    ).replace(
        "y =",
        "o = If (c) <then_branch = t () => (" + branch + ", else_branch = e () => ("
        + branch.replace("p", "q") + "> y =",
    )  # fmt: skip
    assert refusal(text) == f"'{captured}' is read inside of a subgraph"


def test_a_weight_that_a_subgraph_reads_is_not_divided() -> None:
    text = PLAIN.replace("float[B, S, 6] x)", "float[B, S, 6] x, bool c)").replace(
        "] y)", "] y, float[B, S, 8] o)"
    ).replace(
        "y =",
        "o = If (c) <then_branch = t () => (float[B, S, 8] p) { p = MatMul(x, v) }, "
        "else_branch = e () => (float[B, S, 8] q) { m = MatMul(x, v) q = Neg(m) }> y =",
    )  # fmt: skip
    assert "'v' is shared" in refusal(text)


def test_an_input_of_the_model_has_nothing_in_front() -> None:
    model = modern("g (float[N, 8] h) => (float[N, 5] y) { y = MatMul(h, w) }", w=MATRICES["w"])
    assert group_on(model, "h").fold.reason == "'h' is an input of the model"


def test_one_factor_for_all_channels_is_no_scaling() -> None:
    text = last("a = MatMul(x, u)", "r = Relu(a)", "h = Expand(r, shape)")
    text = text.replace("float[B, S, 6] x", "float[2, 3, 6] x")
    reason = refusal(text, u=normal(3, 6, 1), shape=ints(2, 3, 8))
    assert reason == "all its channels would have to be divided by the same"


def test_a_long_way_is_given_up() -> None:
    chain = [f"a{i + 1} = {'Relu' if i % 2 else 'Neg'}(a{i})" for i in range(80)]
    reason = refusal(last("a0 = MatMul(x, v)", *chain, "h = Neg(a80)"))
    assert reason == "the constants are too far away"


CHAINED = ("Relu(@)", "Neg(@)", "Add(@, b)", "Mul(@, g)", "Div(@, g)", "Sub(b, @)")


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    batch=st.integers(1, 3),
    steps=st.integers(1, 5),
    first=st.sampled_from(["n = LayerNormalization(x, s)", "n = RMSNormalization(x, s)"]),
    middle=st.lists(
        st.sampled_from(CHAINED),
        max_size=4,
    ),
)
def test_any_chain_computes_the_same(
    seed: int, batch: int, steps: int, first: str, middle: list[str]
) -> None:
    """Whatever the factors, shapes and operators between two products."""
    lines = [f"a{i + 1} = {op.replace('@', f'a{i}')}" for i, op in enumerate(middle)]
    text = last(first, "a0 = MatMul(n, v)", *lines, f"h = Identity(a{len(middle)})")
    model = modern(text, **MATRICES, **VECTOR, s=normal(7, 6) + 2)
    assert all(group.fold.parameters for group in groups_of(model))
    assert_equal_when_scaled(model, {"x": normal(seed, batch, steps, 6)}, seed)
