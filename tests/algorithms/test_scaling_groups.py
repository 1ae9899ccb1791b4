"""Which sites form a group, which of them cannot be scaled, and what stays in a type's range."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.algorithms.scaling_groups import scaling_groups
from onnxq.algorithms.scaling_range import why_out_of_range
from onnxq.graph.sites import find_sites
from tests.foldable import (
    assert_equal_when_scaled,
    decoder_layer_text,
    group_on,
    groups_of,
    ints,
    modern,
    random_factor,
    scaled,
)
from tests.small_models import normal, run

if TYPE_CHECKING:
    from numpy.typing import NDArray


def layer(heads: int = 2) -> ir.Model:
    """A layer of a decoder: norms, attention with a head of values for all, a gated product."""
    return modern(
        decoder_layer_text(8, heads),
        g=normal(0, 8) + 2,
        h=normal(1, 8) + 2,
        wq=normal(2, 8, 4 * heads),
        wk=normal(3, 8, 4),
        wv=normal(4, 8, 4),
        wo=normal(5, 4 * heads, 8),
        wg=normal(6, 8, 16),
        wu=normal(7, 8, 16),
        wd=normal(8, 16, 8),
    )


def test_a_layer_of_a_decoder_has_four_groups_and_all_fold() -> None:
    model = layer()
    found = {group.tensor: [site.output for site in group.sites] for group in groups_of(model)}
    assert found == {"n": ["q", "k", "v"], "a": ["o"], "m": ["gate", "up"], "e": ["d"]}
    assert all(group.fold.parameters and not group.reason for group in groups_of(model))
    result = assert_equal_when_scaled(model, {"x": normal(9, 2, 3, 8)})
    assert len(result.graph) == len(model.graph)


def test_channels_are_counted_along_the_axis_that_products_sum_over() -> None:
    model = modern(
        """g (float[N, 4] x, float[N, 4, 7, 7] z) => (float[N, 3] a, float[N, 2] b,
                                                       float[N, 5, 7, 7] c) {
            a = MatMul(x, w)
            b = Gemm<transB = 1>(x, v, bias)
            c = Conv(z, k)
        }""",
        w=normal(0, 4, 3), v=normal(1, 2, 4), k=normal(2, 5, 4, 1, 1), bias=normal(3, 2),
    )  # fmt: skip
    matrix, image = groups_of(model)
    assert (matrix.tensor, matrix.axis, matrix.axes, matrix.channels) == ("x", -1, (0, 1), 4)
    assert (image.tensor, image.axis, image.axes, image.channels) == ("z", -3, (1,), 4)
    assert_equal_when_scaled(model, {"x": normal(4, 2, 4), "z": normal(5, 2, 4, 7, 7)})


def test_grouped_convolutions_and_lookups_are_passed_over() -> None:
    model = modern(
        """g (float[N, 4, 7, 7] z, int64[N] i) => (float[N, 4, 7, 7] c, float[N, 8] e) {
            c = Conv<group = 2>(z, k)
            e = Gather(t, i)
        }""",
        k=normal(0, 4, 2, 1, 1),
        t=normal(1, 20, 8),
    )
    assert groups_of(model) == ()


TIED = """g (int64[B, S] i) => (float[B, S, 50] y) {
    e = Gather(t, i)
    n = RMSNormalization(e, g)
    MATRIX
}"""


def test_a_tied_head_is_not_scaled() -> None:
    """Its weight is the embedding's table behind a Transpose."""
    text = TIED.replace("MATRIX", "w = Transpose<perm = [1, 0]>(t) y = MatMul(n, w)")
    model = modern(text, t=normal(0, 50, 8), g=normal(1, 8))
    (group,) = groups_of(model)
    assert group.reason.startswith("'t.transpose' is 't' rearranged, which ")
    assert group.fold.parameters


def test_a_weight_that_two_groups_read_is_not_scaled() -> None:
    text = """g (float[N, 8] x) => (float[N, 8] y) {
        h = MatMul(x, w)
        t = Tanh(h)
        y = MatMul(t, w)
    }"""
    reasons = [group.reason for group in groups_of(modern(text, w=normal(0, 8, 8)))]
    assert len(reasons) == 2
    assert all(reason.startswith("'w' is shared") for reason in reasons)


def test_a_weight_that_its_group_reads_twice_is_scaled() -> None:
    model = modern(
        """g (float[N, 8] x) => (float[N, 3] y, float[N, 3] z) {
            y = Gemm(x, w, a)
            z = Gemm(x, w, b)
        }""",
        w=normal(0, 8, 3), a=normal(1, 3), b=normal(2, 3),
    )  # fmt: skip
    (group,) = groups_of(model)
    assert group.reason == ""
    result = assert_equal_when_scaled(model, {"x": normal(3, 4, 8)})
    assert [name for name in result.graph.initializers if name[0] == "w"] == ["w_channel_scaled"]


def test_sites_that_are_left_out_keep_what_they_read() -> None:
    model = layer()
    sites = [site for site in find_sites(model) if site.output != "k"]
    groups = {group.tensor: group for group in scaling_groups(model, sites)}
    assert "'n' is also read by MatMul" in groups["n"].fold.reason
    feeds = {"x": normal(9, 2, 3, 8)}
    result = scaled(model, list(groups.values()))
    np.testing.assert_allclose(run(result, feeds)[0], run(model, feeds)[0], rtol=1e-3, atol=1e-4)


def test_many_channels_of_a_source_keep_one_array_for_each_map() -> None:
    group = group_on(layer(), "a")
    arrays = group.arrays(random_factor(group, 0))
    assert list(arrays) == ["scaling/a/factor", "scaling/a/source/0"]
    assert arrays["scaling/a/source/0"].tolist() == [0, 1, 2, 3]
    (fold,) = group.entry().folds
    assert (fold.input, fold.axis, fold.source) == (1, -1, 0)


def half(model: ir.Model, name: str, array: NDArray[np.float16]) -> None:
    """Put a float16 constant where another is, and a float16 activation behind it."""
    value = model.graph.initializers[name]
    value.const_value, value.type = ir.Tensor(array, name=name), ir.TensorType(ir.DataType.FLOAT16)


@pytest.mark.parametrize(
    ("gamma", "factor", "reason"),
    [
        (40000.0, 0.5, "'g' would overflow FLOAT16"),
        (40000.0, 0.7, ""),
        (1e-4, 2.0, "'g' would underflow FLOAT16"),
        (1e-4, 1.5, ""),
        (0.0, 2.0, ""),
        (1.0, 0.0, "the factors of 'n' are not all positive numbers"),
        (1.0, np.inf, "the factors of 'n' are not all positive numbers"),
        (1.0, np.nan, "the factors of 'n' are not all positive numbers"),
    ],
)
def test_float16_constants_stay_in_range(gamma: float, factor: float, reason: str) -> None:
    model = layer()
    half(model, "g", np.full(8, gamma, np.float16))
    factors = np.ones(8)
    factors[3] = factor
    assert why_out_of_range(group_on(model, "n"), factors, model) == reason


def test_small_weights_beside_large_ones_may_lose_bits() -> None:
    model = layer()
    weight = np.full((8, 4), 1e-4, np.float16)
    weight[0] = 1
    half(model, "wv", weight)
    group = group_on(model, "a")
    factor = np.full(8, 4.0)
    assert why_out_of_range(group, factor, model) == ""
    weight[0] = 1e-4
    half(model, "wv", weight)
    assert why_out_of_range(group, factor, model) == "'wv' would underflow FLOAT16"


def test_weights_that_are_multiplied_stay_in_range_too() -> None:
    model = layer()
    group, factor = group_on(model, "e"), np.full(16, 3.0)
    half(model, "wd", np.full((16, 8), 30000, np.float16))
    assert why_out_of_range(group, factor, model) == "'wd' would overflow FLOAT16"


def test_an_activation_stays_in_range() -> None:
    model = layer()
    group, peaks = group_on(model, "n"), np.full(8, 30000.0)
    factor = np.full(8, 0.25)
    assert why_out_of_range(group, factor, model, peaks) == ""
    values = {value.name: value for node in model.graph for value in node.outputs}
    values["n"].type = ir.TensorType(ir.DataType.FLOAT16)
    assert why_out_of_range(group, factor, model, peaks) == "'n' would overflow FLOAT16"


def test_rows_that_were_one_vector_share_the_weight_behind_and_not_the_columns_in_front() -> None:
    text = """g (float[N, 8] x) => (float[N, 2, 3] y) {
        a = MatMul(x, v)
        h = Reshape(a, s)
        y = MatMul(h, w)
    }"""
    model = modern(text, v=normal(0, 8, 8), w=normal(1, 4, 3), s=ints(0, 2, 4))
    group = group_on(model, "h")
    assert [p.channels.tolist() for p in group.fold.parameters] == [[0, 1, 2, 3, 0, 1, 2, 3]]
    assert_equal_when_scaled(model, {"x": normal(2, 3, 8)})
