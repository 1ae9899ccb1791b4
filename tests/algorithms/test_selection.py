"""What is quantized, by structure alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from onnxq.algorithms.selection import Selection, select
from onnxq.algorithms.view import clip_bounds
from onnxq.graph.sites import find_sites
from onnxq.targets import load_target
from tests.small_models import normal, normalized

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGE = "float[N, 4, 8, 8]"


def chosen(
    body: str,
    outputs: str,
    weights: dict[str, NDArray[np.float32]],
    *,
    keep: str = "",
    inputs: str = f"{IMAGE} x",
) -> Selection:
    """The selection for a graph; ``keep`` is the output of a site that shall stay float."""
    model = normalized(f"g ({inputs}) => ({outputs}) {{ {body} }}", **weights)
    sites = find_sites(model)
    kept = {site.name: "asked for" for site in sites if site.output == keep}
    return select(model, sites, load_target("cpu"), kept)


def kernels(names: str) -> dict[str, NDArray[np.float32]]:
    return {name: normal(seed, 4, 4, 1, 1) for seed, name in enumerate(names)}


def roots(selection: Selection) -> dict[str, str]:
    return {tensor.name: tensor.root for tensor in selection.tensors}


def reasons(selection: Selection) -> dict[str, str]:
    return {decision.site.output: decision.reason for decision in selection.decisions}


def test_each_decision_has_a_reason_or_quantizes() -> None:
    body = "c = Conv(x, w) d = Conv(c, v) y = Tanh(d)"
    found = chosen(body, f"{IMAGE} y", kernels("wv"), keep="c")
    assert reasons(found) == {"c": "asked for", "d": ""}
    assert [site.output for site in found.chosen] == ["d"]
    assert list(roots(found)) == ["c", "d"]


def test_moved_data_share_the_scale_through_several_nodes() -> None:
    body = """
        c = Conv(x, w)
        p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(c)
        t = Transpose<perm = [0, 1, 3, 2]>(p)
        d = Conv(t, v)
        y = Tanh(d)
    """
    found = chosen(body, "float[N, 4, 4, 4] y", kernels("wv"))
    assert roots(found) == {"x": "x", "c": "c", "p": "c", "t": "c", "d": "d"}


def test_a_node_with_a_float_reader_behind_it_does_not_join() -> None:
    """Add would need a quantized output that a float node alone reads: pure cost."""
    body = "a = Conv(x, w) b = Conv(x, v) s = Add(a, b) y = Tanh(s)"
    found = chosen(body, f"{IMAGE} y", kernels("wv"))
    assert list(roots(found)) == ["x", "a", "b"]


def test_a_node_with_a_float_input_does_not_join() -> None:
    body = "a = Conv(x, w) t = Tanh(x) s = Add(a, t) d = Conv(s, v) y = Tanh(d)"
    found = chosen(body, f"{IMAGE} y", kernels("wv"))
    assert "t" not in roots(found)
    readers = {t.name: t.readers for t in found.tensors}
    assert readers["s"] == [(site.name, 0) for site in found.chosen if site.activation == "s"]


def test_a_region_that_one_output_keeps_out_stays_out_as_a_whole() -> None:
    """s is an output, so the first Add must not join, and the second not for lack of its input."""
    body = "a = Conv(x, w) b = Conv(x, v) s = Add(a, b) t = Add(s, a) d = Conv(t, u) y = Tanh(d)"
    found = chosen(body, f"{IMAGE} y, {IMAGE} s", kernels("wvu"))
    tensors = {t.name: len(t.readers) for t in found.tensors}
    assert "s" not in tensors
    assert tensors["t"] == 1


@pytest.mark.parametrize(
    ("activation", "absorbed"),
    [
        ("Relu(c)", True),
        ("Clip(c, zero, six)", True),
        ("Clip(c, minus, six)", True),
        ("Clip(c, one, six)", False),
        ("Clip(c, minus, minus)", False),
        ("Clip(c)", True),
        ("Clip(c, k, six)", False),
        ("LeakyRelu(c)", False),
        ("HardSwish(c)", False),
    ],
)
def test_only_clips_around_zero_are_absorbed(activation: str, absorbed: bool) -> None:
    body = f"c = Conv(x, w) r = {activation} d = Conv(r, v) y = Tanh(d)"
    constants = {
        name: np.asarray(value, np.float32)
        for name, value in {"zero": 0, "six": 6, "minus": -3, "one": 1}.items()
        if f" {name}" in activation
    }
    inputs = f"{IMAGE} x" + (", float k" if " k" in activation else "")
    found = chosen(body, f"{IMAGE} y", {**kernels("wv"), **constants}, inputs=inputs)
    assert bool(found.absorbed) == absorbed
    assert set(found.absorbed.values()) == ({"r"} if absorbed else set())


@pytest.mark.parametrize("name", ["lo", "hi"])
def test_a_clip_whose_bound_a_caller_may_replace_is_not_absorbed(name: str) -> None:
    body = "c = Conv(x, w) r = Clip(c, lo, hi) d = Conv(r, v) y = Tanh(d)"
    constants = {"lo": np.asarray(0, np.float32), "hi": np.asarray(6, np.float32)}
    weights = {**kernels("wv"), **constants}
    found = chosen(body, f"{IMAGE} y", weights, inputs=f"{IMAGE} x, float {name}")
    assert not found.absorbed
    assert chosen(body, f"{IMAGE} y", weights).absorbed


def test_a_gemm_keeps_its_relu_unless_all_behind_it_read_integers() -> None:
    body = "a = Gemm(x, w) r = Relu(a) b = Gemm(r, v) y = Add(b, r)"
    weights = {"w": normal(0, 4, 4), "v": normal(1, 4, 4)}
    inputs = "float[N, 4] x"
    found = chosen(body, "float[N, 4] y", weights, inputs=inputs)
    assert not found.absorbed
    body = "a = Gemm(x, w) r = Relu(a) y = Gemm(r, v)"
    found = chosen(body, "float[N, 4] y", weights, inputs=inputs)
    assert list(found.absorbed.values()) == ["r"]


@pytest.mark.parametrize("outputs", [f"{IMAGE} y, {IMAGE} c", f"{IMAGE} y, {IMAGE} r"])
def test_a_conv_with_a_kept_output_is_declined(outputs: str) -> None:
    body = "c = Conv(x, w) r = Relu(c) d = Conv(r, v) y = Tanh(d)"
    found = chosen(body, outputs, kernels("wv"))
    assert "must keep its value" in reasons(found)["c"]
    assert not found.absorbed


def test_an_operator_without_integer_kernel_is_declined() -> None:
    body = "y = ConvTranspose(x, w)"
    found = chosen(body, f"{IMAGE} y", kernels("w"))
    assert reasons(found)["y"]
    assert found.tensors == ()


def test_bounds_of_a_clip() -> None:
    model = normalized(
        "g (float[N] x, float k) => (float[N] p, float[N] q, float[N] r)"
        "{ p = Clip(x, , six) q = Relu(x) r = Clip(x, k) }",
        six=np.asarray(6, np.float32),
    )
    found = {node.outputs[0].name: clip_bounds(node) for node in model.graph}
    assert found["p"] == (-np.inf, 6.0)
    assert found["q"] == (0.0, np.inf)
    assert np.isnan(found["r"][0])


def test_the_bounds_of_a_clip_that_a_caller_may_replace_are_unknown() -> None:
    model = normalized(
        "g (float[N] x, float hi) => (float[N] y) { y = Clip(x, lo, hi) }",
        lo=np.asarray(0, np.float32),
        hi=np.asarray(6, np.float32),
    )
    low, high = clip_bounds(model.graph[0])
    assert low == 0
    assert np.isnan(high)


@pytest.mark.parametrize(("rows", "quantized"), [(511, False), (512, True)])
def test_a_table_below_a_mebibyte_stays_float(rows: int, quantized: bool) -> None:
    found = chosen(
        "e = Gather(t, i) y = Tanh(e)",
        "float[N, 512] y",
        {"t": normal(0, rows, 512)},
        inputs="int64[N] i",
    )
    (decision,) = found.decisions
    assert decision.quantize is quantized
    assert ("its table is too small" in decision.reason) is not quantized


def test_a_great_table_whose_rows_are_an_output_stays_float() -> None:
    found = chosen(
        "e = Gather(t, i)", "float[N, 512] e", {"t": normal(0, 512, 512)}, inputs="int64[N] i"
    )
    assert "must keep its value" in reasons(found)["e"]
