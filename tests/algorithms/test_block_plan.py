"""Groups of weights in blocks, and plans that execute to the dequantized float model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from onnxq.algorithms.block_group import solve_group
from onnxq.algorithms.block_plan import BlockPlanner, BlockSpec, row_divisors
from onnxq.algorithms.lookup_tables import tied_lookups
from onnxq.calibration.collect import collect
from onnxq.calibration.requests import Moments
from onnxq.calibration.stats import Stats
from onnxq.graph.edit import static_shape, value_by_name
from onnxq.graph.opset import raise_opset
from onnxq.graph.sites import find_sites
from onnxq.numerics.packing import unpack_blocks
from onnxq.passes.execute import execute
from onnxq.passes.scale_channels import ScaleChannels
from onnxq.plan import BlockEntry, FoldedEntry, Reader, ScalingEntry
from onnxq.targets import load_target
from tests.passes.block_plans import plan_of
from tests.small_models import normal, normalized, run, source

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from onnxq.algorithms.block_candidates import BlockResult
    from onnxq.algorithms.block_group import GroupResult
    from onnxq.algorithms.block_plan import BlockGroup

SPEC = BlockSpec(4, 16, symmetric=False, algorithm="awq+gptq")
LAYER = """g (float[N, 48] x) => (float[N, 48] y) {
    n = LayerNormalization<axis = -1>(x, g, b)
    gate = MatMul(n, wg) s = Sigmoid(gate) silu = Mul(gate, s)
    up = Gemm<transB = 1>(n, wu, c) e = Mul(silu, up)
    d = MatMul(e, wd)
    y = Add(x, d)
}"""


def layer_weights() -> dict[str, NDArray[np.float32]]:
    """Columns of the up-projection differ, so that scaling them back gains much."""
    large = np.exp(normal(6, 40))
    return {
        "g": np.exp(normal(0, 48)),
        "b": normal(1, 48),
        "wg": normal(2, 48, 40) / 7,
        "wu": normal(3, 40, 48) / 7 * large[:, np.newaxis],
        "c": normal(4, 40),
        "wd": normal(5, 40, 48) / 7,
    }


def planner_of(
    model: ir.Model, spec: BlockSpec = SPEC, without: tuple[str, ...] = ()
) -> BlockPlanner:
    """Of all products but those with one of these weights."""
    sites = find_sites(model)
    products = [site for site in sites if site.candidate and site.activation is not None]
    chosen = {site.name: spec for site in products if site.weight not in without}
    return BlockPlanner(model, sites, chosen)


def members(planner: BlockPlanner) -> list[tuple[str, list[str | None], bool]]:
    """Activation, weights and whether they can be scaled, of each group."""
    return [
        (group.tensor, [site.weight for site in group.sites], group.scaling is not None)
        for group in planner.groups
    ]


def test_products_of_one_activation_are_one_group() -> None:
    planner = planner_of(normalized(LAYER, **layer_weights()))
    assert members(planner) == [("n", ["wg", "wu"], True), ("e", ["wd"], True)]
    assert [group.length for group in planner.groups] == [48, 40]
    assert [group.moment_bytes for group in planner.groups] == [8 * 48**2, 8 * 40**2]
    assert all(group.reason == "" for group in planner.groups)


def test_where_a_member_stays_float_none_is_scaled() -> None:
    planner = planner_of(normalized(LAYER, **layer_weights()), without=("wu",))
    first = planner.groups[0]
    assert members(planner)[0] == ("n", ["wg"], False)
    assert first.reason == "another product that reads its activation stays float"
    assert planner.task(first).classes is None


def test_a_shared_weight_is_not_scaled_and_stored_in_one_way() -> None:
    text = (
        "g (float[N, 32] x) => (float[N, 32] y) { h = MatMul(x, w) r = Tanh(h) y = MatMul(r, w) }"
    )
    model = normalized(text, w=normal(0, 32, 32))
    first, second = (site for site in find_sites(model))
    specs = {
        first.name: BlockSpec(8, 16, symmetric=True, algorithm="rtn"),
        second.name: BlockSpec(4, 32, symmetric=False, algorithm="mse"),
    }
    planner = BlockPlanner(model, (first, second), specs)
    assert members(planner) == [("x", ["w"], False), ("r", ["w"], False)]
    assert "'w' is shared" in planner.groups[0].reason
    assert planner.specs == dict.fromkeys(specs, specs[first.name])


def test_what_no_statistics_fit_is_a_group_of_its_own() -> None:
    text = """g (float[N, 16, 5, 5] z, float[16, N] l, float[M, 32] x, bool c)
              => (float[N, 8, 5, 4] k, float[8, N] y, float[M, 4] o) {
        k = Conv<group = 2>(z, wk)
        y = MatMul(wl, l)
        o = If(c) <
            then_branch = t () => (float[M, 4] p) { p = MatMul(x, wi) },
            else_branch = e () => (float[M, 4] q) { q = MatMul(x, we) }
        >
    }"""
    weights = {"wk": normal(0, 8, 8, 1, 2), "wl": normal(1, 8, 16)}
    model = normalized(text, **weights, wi=normal(2, 32, 4), we=normal(3, 32, 4))
    planner = planner_of(model, BlockSpec(4, 16, symmetric=None, algorithm="auto"))
    assert {weight for _, (weight,), _ in members(planner)} == {"wk", "wl", "wi", "we"}
    for group in planner.groups:
        assert (group.tensor, group.scaling, group.moment_bytes) == ("", None, 0)
        assert group.reason.startswith("no statistics are collected for this ")
        ((name, result),) = planner.by_weight_alone(group).items()
        assert result.label.startswith("hqq")
        assert result.params.scale.shape == (
            {"wk": 8, "wl": 8}.get(name, 4),
            2 if name in ("wi", "we") else 1,
        )
    reasons = [group.reason for group in planner.groups]
    assert sum("If" in reason for reason in reasons) == 2


@pytest.mark.parametrize(
    ("form", "bits", "opset"),
    [("kernel", 2, 1), ("kernel", 8, 1), ("dq", 4, 21), ("dq", 2, 25), ("dq", 8, 21),
     ("folded", 4, 21), ("folded", 2, 25), ("folded", 8, 1)],
)  # fmt: skip
def test_entries_know_the_opset_of_their_form(form: Any, bits: int, opset: int) -> None:
    spec = BlockSpec(bits, 16, symmetric=True, algorithm="rtn", form=form)
    planner = planner_of(normalized(LAYER, **layer_weights()), spec)
    entries, _ = _entries(planner, {}, {})
    assert [entry.minimum_opset for entry in entries] == [opset] * 3


def _entries(
    planner: BlockPlanner, groups: dict[BlockGroup, GroupResult], weights: dict[str, BlockResult]
) -> tuple[tuple[BlockEntry, ...], dict[str, np.ndarray]]:
    """What the stage makes of results: the entries, with all arrays of the plan."""
    for group in planner.groups:
        weights |= planner.by_weight_alone(group) if group not in groups else groups[group].weights
    scalings, factors = planner.scalings(groups)
    scaled = ScaleChannels(scalings, factors)(planner.model.clone()).model
    entries, arrays = planner.blocks(weights, scaled, row_divisors(scalings, factors))
    return entries, {**factors, **arrays}


def solved(
    planner: BlockPlanner, samples: list[dict[str, NDArray[Any]]]
) -> dict[BlockGroup, GroupResult]:
    requests = [Moments(group.tensor, group.window) for group in planner.groups]
    stats = collect(planner.model, requests, source(planner.model, samples), Stats("m", "d"))
    found = {}
    for group in planner.groups:
        moments = stats.tensors[group.tensor].moments[group.window]
        found[group] = solve_group(planner.task(group), moments)
    return found


def stands_for(
    result: BlockResult, factor: NDArray[Any] | None, weight: NDArray[Any]
) -> NDArray[Any]:
    """The float64 weight ``[N, K]`` of the unscaled model that a result stands for."""
    scale = result.params.scale.astype(np.float64).repeat(16, axis=1)[:, : weight.shape[1]]
    zero = result.params.zero_point.astype(np.float64).repeat(16, axis=1)[:, : weight.shape[1]]
    times = np.ones(weight.shape[1]) if factor is None else factor.astype(np.float64)
    if result.packed is None:
        integers = np.clip(np.rint(weight * times / scale) + zero, 0, 15)
    else:
        integers = unpack_blocks(result.packed, 4, 16, weight.shape[1]).astype(np.float64)
    return (integers - zero) * scale / times


@pytest.mark.parametrize("algorithm", ["rtn", "awq", "gptq", "awq+gptq"])
def test_a_plan_executes_to_the_dequantized_float_model(algorithm: str) -> None:
    """The up-projection lies between two scaled activations: its rows and its columns change."""
    weights = layer_weights()
    model = normalized(LAYER, **weights)
    planner = planner_of(model, BlockSpec(4, 16, symmetric=False, algorithm=algorithm))
    samples = [{"x": normal(100 + seed, 60, 48)} for seed in range(10)]
    groups = solved(planner, samples)
    results: dict[str, BlockResult] = {}
    entries, arrays = _entries(planner, groups, results)
    scalings, factors = planner.scalings(groups)
    plan = plan_of(arrays, entries).model_copy(update={"scalings": scalings})
    first, second = (groups[group].factor for group in planner.groups)
    if "awq" in algorithm:
        assert first is not None
        assert second is not None
        divided = row_divisors(scalings, factors)
        up = next(entry for entry in entries if entry.axis == 0)
        np.testing.assert_array_equal(divided[Reader(node=up.node, input=1)], second)
    stored = {
        "wg": stands_for(results["wg"], first, weights["wg"].T).T,
        "wu": stands_for(results["wu"], first, weights["wu"]),
        "wd": stands_for(results["wd"], second, weights["wd"].T).T,
    }
    dequantized = {name: array.astype(np.float32) for name, array in stored.items()}
    expected = run(normalized(LAYER, **{**weights, **dequantized}), samples[0])[0]
    found = run(execute(plan, model), samples[0])[0]
    # Roundings of float32 in between; a weight on the border of two integers would show as 1e-2.
    assert np.linalg.norm(found - expected) <= 1e-4 * np.linalg.norm(expected)
    # And the quantized weights are not those of the float model.
    assert np.linalg.norm(run(model, samples[0])[0] - expected) > 1e-3 * np.linalg.norm(expected)


NET = """g (float[N, 8, 12, 12] x) => (float[N, 24, 6, 6] y) {
    h = Conv<pads = [1, 1, 1, 1]>(x, wa, ba) r = Relu(h)
    y = Conv<strides = [2, 2], auto_pad = "SAME_UPPER">(r, wb)
}"""


def net_weights() -> dict[str, NDArray[Any]]:
    """Channels between the two differ, so that scaling them gains much."""
    large = np.exp(normal(6, 20))
    return {
        "wa": normal(2, 20, 8, 3, 3) / 9 * large[:, np.newaxis, np.newaxis, np.newaxis],
        "ba": normal(3, 20) / 9,
        "wb": normal(4, 24, 20, 3, 3) / 9,
    }


@pytest.mark.parametrize("form", ["dq", "folded"])
@pytest.mark.parametrize("algorithm", ["rtn", "awq", "awq+gptq"])
def test_convolutions_are_quantized_on_their_patches(algorithm: str, form: Any) -> None:
    """The first Conv's rows are divided, through Relu, by what the second's columns gain."""
    weights = net_weights()
    # Integers of 4 bits are ONNX's from this opset on.
    model = raise_opset(normalized(NET, **weights), 21)
    spec = BlockSpec(4, 16, symmetric=False, algorithm=algorithm, form=form)
    planner = planner_of(model, spec)
    assert members(planner) == [("x", ["wa"], True), ("r", ["wb"], True)]
    assert [group.length for group in planner.groups] == [8 * 9, 20 * 9]
    samples = [{"x": normal(100 + seed, 2, 8, 12, 12)} for seed in range(10)]
    groups = solved(planner, samples)
    results: dict[str, BlockResult] = {}
    entries, arrays = _entries(planner, groups, results)
    scalings, _ = planner.scalings(groups)
    plan = plan_of(arrays, entries).model_copy(update={"scalings": scalings})
    second = groups[planner.groups[1]].factor
    assert (second is not None) == ("awq" in algorithm)
    stored = {
        name: stands_for(results[name], groups[group].factor, weights[name].reshape(rows, -1))
        for name, rows, group in zip(("wa", "wb"), (20, 24), planner.groups, strict=True)
    }
    real = {n: a.reshape(weights[n].shape).astype(np.float32) for n, a in stored.items()}
    expected = run(normalized(NET, **{**weights, **real}), samples[0])[0]
    found = run(execute(plan, model), samples[0])[0]
    assert np.linalg.norm(found - expected) <= 1e-4 * np.linalg.norm(expected)
    noise = np.linalg.norm(run(model, samples[0])[0] - expected)
    assert noise > 1e-3 * np.linalg.norm(expected)


def test_convolutions_through_different_windows_are_not_scaled() -> None:
    text = """g (float[N, 16, 9, 9] x) => (float[N, 4, 9, 9] y, float[N, 4, 9, 9] z) {
        y = Conv<pads = [1, 1, 1, 1]>(x, wa)
        z = Conv(x, wb)
    }"""
    planner = planner_of(normalized(text, wa=normal(0, 4, 16, 3, 3), wb=normal(1, 4, 16, 1, 1)))
    assert members(planner) == [("x", ["wa"], False), ("x", ["wb"], False)]
    assert [group.length for group in planner.groups] == [16 * 9, 16]
    reason = "convolutions read its activation through different windows"
    assert [group.reason for group in planner.groups] == [reason] * 2
    # Each is fitted to what it reads all the same.
    groups = solved(planner, [{"x": normal(seed, 2, 16, 9, 9)} for seed in range(5)])
    sides = [next(iter(result.weights.values())).params.scale.shape for result in groups.values()]
    assert sides == [(4, 9), (4, 1)]


def test_rows_are_divided_by_the_factors_of_their_own_channels() -> None:
    folds = (
        FoldedEntry(node="up", input=1, axis=-1),
        FoldedEntry(node="value", input=1, axis=-1, source=0),
        FoldedEntry(node="value", input=2, axis=-1, source=0),
    )
    entry = ScalingEntry(tensor="t", folds=folds, readers=(), weights=(), axes=())
    again = ScalingEntry(tensor="u", folds=folds[:1], readers=(), weights=(), axes=())
    arrays: dict[str, np.ndarray] = {
        "scaling/t/factor": np.asarray([2, 3, 5], np.float64),
        "scaling/t/source/0": np.asarray([2, -1, 0, 0], np.int32),
        "scaling/u/factor": np.asarray([7, 1, 1], np.float32),
    }
    found = row_divisors((entry, again), arrays)
    assert found[Reader(node="up", input=1)].tolist() == [14, 3, 5]
    assert found[Reader(node="value", input=1)].tolist() == [5, 1, 2, 2]
    assert found[Reader(node="value", input=2)].tolist() == [5, 1, 2, 2]


def test_a_table_that_a_product_multiplies_by_is_looked_up_in_its_integers() -> None:
    text = """g (int64[N] i, int64[N] j) => (float[N, 40] y, float[N, 32] e) {
        e = Gather(table, i)
        other = Gather(alone, j)
        s = Add(e, other)
        t = Transpose<perm = [1, 0]>(table)
        y = MatMul(s, t)
    }"""
    table = normal(0, 40, 32)
    model = normalized(text, table=table, alone=normal(1, 9, 32))
    planner = planner_of(model, BlockSpec(4, 16, symmetric=True, algorithm="mse"))
    ((_, _, scaled),) = members(planner)
    assert not scaled
    entries, arrays = _entries(planner, {}, {})
    sites = find_sites(model)
    (lookup,) = tied_lookups(sites, value_by_name(model.graph), entries, load_target("cpu"))
    assert (lookup.bits, lookup.block_size, lookup.symmetric) == (4, 16, True)
    assert lookup.stored == entries[0].initializer
    result = execute(plan_of(arrays, entries, (lookup,)), model)
    shapes = [static_shape(value) for value in result.graph.initializers.values()]
    assert shapes.count((40, 2, 8)) == 1
    rows = np.arange(40) % 9
    feeds = {"i": np.arange(40), "j": rows}
    found, embedded = run(result, feeds)
    # Every row is looked up: they are the weight that the product multiplies by.
    expected = (embedded + normal(1, 9, 32)[rows]) @ embedded.T
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert 0 < np.abs(embedded - table).max() < 0.5


def test_a_table_beside_a_form_that_is_no_kernel_has_no_copy_to_share() -> None:
    text = """g (int64[N] i) => (float[N, 40] y) {
        e = Gather(table, i) t = Transpose<perm = [1, 0]>(table) y = MatMul(e, t)
    }"""
    model = normalized(text, table=normal(0, 40, 32))
    planner = planner_of(model, BlockSpec(4, 16, symmetric=True, algorithm="rtn", form="dq"))
    entries, _ = _entries(planner, {}, {})
    assert (
        tied_lookups(find_sites(model), value_by_name(model.graph), entries, load_target("cpu"))
        == ()
    )
