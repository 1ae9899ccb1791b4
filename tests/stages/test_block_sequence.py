"""Groups solved on data: behind the quantized prefix, after an interruption, within range."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxq.algorithms.block_group import GroupResult, solve_group
from onnxq.algorithms.block_plan import BlockPlanner, BlockSpec
from onnxq.calibration.cache import load_cached
from onnxq.numerics.packing import unpack_blocks
from onnxq.passes.execute import execute
from onnxq.recipe import Recipe
from onnxq.stages import block_solver
from onnxq.stages.block_prefix import Prefix
from onnxq.stages.block_solver import solve
from onnxq.stages.blocks import blocks
from onnxq.stages.prepare import prepare
from onnxq.stages.task import Task
from tests.foldable import decoder_layer_text, modern
from tests.small_models import normal, run, source, write

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxq.algorithms.block_candidates import BlockResult
    from onnxq.algorithms.block_group import GroupTask
    from onnxq.numerics.moments import SplitMoments
    from onnxq.stages.block_solver import Solved
    from tests.small_models import Feeds

CHAIN = """g (float[N, 32] x) => (float[N, 32] y) {
    a = MatMul(x, u) h = Tanh(a) b = MatMul(h, v) t = Tanh(b) y = MatMul(t, w)
}"""
WEIGHTS = {name: normal(seed, 32, 32) for seed, name in enumerate("uvw")}
ALGORITHMS = ("rtn", "awq", "gptq", "awq+gptq")


def samples(count: int = 10) -> list[Feeds]:
    wide = np.exp(normal(99, 32))
    return [{"x": normal(100 + seed, 24, 32) * wide} for seed in range(count)]


def task_of(path: Path, data: list[Feeds], **weights: Any) -> Task:
    settings = {"block_size": 16, "accuracy_level": 1, **weights}
    recipe = Recipe.model_validate({"scheme": "int4", "weights": settings})
    prepared = prepare(path, recipe)
    return Task(
        prepared=prepared,
        data=source(prepared.model, data),
        samples=None,
        macs={},
        independent=False,
        min_sqnr=None,
        timing=None,
        report=lambda _, __, ___: None,
    )


def planner_of(task: Task, algorithm: str, bits: int = 4) -> BlockPlanner:
    spec = BlockSpec(bits, 16, symmetric=False, algorithm=algorithm, accuracy_level=1)
    sites = task.prepared.sites
    return BlockPlanner(task.prepared.model, sites, {s.name: spec for s in sites if s.candidate})


def solved(path: Path, algorithm: str, *, sequential: bool) -> Solved:
    task = task_of(path, samples(), sequential=sequential, algorithm=algorithm)
    return solve(task, planner_of(task, algorithm))


def by_tensor(found: Solved) -> dict[str, GroupResult]:
    return {group.tensor: result for group, result in found.groups.items()}


def real(weight: NDArray[Any], result: GroupResult, name: str) -> NDArray[np.float64]:
    """What the integers of ``[K, N]`` stand for, channels no more scaled; in float64."""
    found: BlockResult = result.weights[name]
    factor = np.ones(len(weight)) if result.factor is None else result.factor.astype(np.float64)
    scale, zero = (
        np.repeat(part.astype(np.float64), 16, axis=1)
        for part in (found.params.scale, found.params.zero_point)
    )
    if found.packed is None:
        integers = np.clip(np.rint(weight.T * factor / scale) + zero, 0, 15)
    else:
        integers = unpack_blocks(found.packed, 4, 16, len(weight)).astype(np.float64)
    return np.asarray(((integers - zero) * scale / factor).T)


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    return write(tmp_path / "chain.onnx", CHAIN, **WEIGHTS)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_statistics_come_from_behind_the_quantized_prefix(chain: Path, algorithm: str) -> None:
    found = by_tensor(solved(chain, algorithm, sequential=True))
    held_out = np.concatenate([f["x"] for f in samples()[4::5]]).astype(np.float64)
    behind, plain = held_out, held_out
    for tensor, name in zip("xht", "uvw", strict=True):
        signal = float(((behind @ WEIGHTS[name]) ** 2).sum())
        assert found[tensor].signals[name] == pytest.approx(signal, rel=1e-4)
        behind = np.tanh(behind @ real(WEIGHTS[name], found[tensor], name))
        plain = np.tanh(plain @ WEIGHTS[name])
        # Otherwise nothing would be shown.
        signal_of_float = float(((plain @ WEIGHTS[name]) ** 2).sum())
        assert abs(float(((behind @ WEIGHTS[name]) ** 2).sum()) / signal_of_float - 1) > 1e-3


def test_by_default_statistics_come_from_the_float_model(chain: Path) -> None:
    found = by_tensor(solved(chain, "awq", sequential=False))
    plain = np.concatenate([f["x"] for f in samples()[4::5]]).astype(np.float64)
    for tensor, name in zip("xht", "uvw", strict=True):
        signal = float(((plain @ WEIGHTS[name]) ** 2).sum())
        assert found[tensor].signals[name] == pytest.approx(signal, rel=1e-4)
        plain = np.tanh(plain @ WEIGHTS[name])


def test_the_first_chunk_is_the_same_either_way(chain: Path) -> None:
    one, other = (
        by_tensor(solved(chain, "awq+gptq", sequential=each))["x"] for each in (True, False)
    )
    assert_same(one, other)


def assert_same(one: GroupResult, other: GroupResult) -> None:
    assert one.exponent == other.exponent
    assert one.signals == other.signals
    for name, weight in one.weights.items():
        assert weight.label == other.weights[name].label
        np.testing.assert_array_equal(weight.params.scale, other.weights[name].params.scale)
        np.testing.assert_array_equal(weight.packed, other.weights[name].packed)


def decoder_layer(path: Path) -> Path:
    """Norms, attention with a head of values for all, a gated product: every kind of fold."""
    text = decoder_layer_text(32, heads=2)
    shapes = {"wq": (32, 32), "wk": (32, 16), "wv": (32, 16), "wo": (32, 32)}
    shapes |= {"wg": (32, 48), "wu": (32, 48), "wd": (48, 32)}
    weights = {name: normal(seed, *shape) / 6 for seed, (name, shape) in enumerate(shapes.items())}
    weights |= {"g": np.exp(normal(20, 32)), "h": np.exp(normal(21, 32))}
    onnx.save(ir.serde.serialize_model(modern(text, **weights)), path)
    return path


@pytest.mark.parametrize("algorithm", ["awq", "awq+gptq"])
def test_the_prefix_computes_what_the_written_model_does(tmp_path: Path, algorithm: str) -> None:
    """Scaling is folded into constants of the one and undone in the other."""
    path = decoder_layer(tmp_path / "layer.onnx")
    feeds = [{"x": normal(seed, 2, 6, 32) * np.exp(normal(7, 32))} for seed in range(10)]
    task = task_of(path, feeds, algorithm=algorithm, sequential=True)
    written = execute(blocks(task).plan, task.prepared.model)
    planner = planner_of(task, algorithm)
    found, prefix = solve(task, planner), Prefix(planner)
    assert sum(result.factor is not None for result in found.groups.values()) > 1
    for group, result in found.groups.items():
        for site in group.sites:
            prefix.put(site, result.weights[site.weight or ""], result.factor)
    for sample in feeds[:3]:
        plain, expected, got = (
            run(model, sample)[0] for model in (task.prepared.model, written, prefix.model)
        )
        assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()
        assert np.abs(got - plain).max() > 1e-2 * np.abs(plain).max()


def test_products_without_statistics_are_in_the_prefix_from_the_beginning(tmp_path: Path) -> None:
    text = """g (float[N, 32, 5, 5] x) => (float[N, 5, 5, 32] y) {
        c = Conv<kernel_shape = [1, 1]>(x, k)
        t = Transpose<perm = [0, 2, 3, 1]>(c)
        y = MatMul(t, w)
    }"""
    kernel = normal(0, 32, 32, 1, 1)
    path = write(tmp_path / "m.onnx", text, k=kernel, w=normal(1, 32, 32))
    feeds = [{"x": normal(seed, 2, 32, 5, 5)} for seed in range(10)]
    signals = []
    for sequential in (True, False):
        task = task_of(path, feeds, sequential=sequential)
        found = solve(task, planner_of(task, "rtn"))
        signals.append(by_tensor(found)["t"].signals["w"])
    rounded = real(kernel[:, :, 0, 0].T, of_weight(found, "k"), "k").T[:, :, None, None]
    seen = [
        np.einsum("oi,nihw->nhwo", k[:, :, 0, 0], f["x"])
        for k in (rounded, kernel)
        for f in feeds[4::5]
    ]
    expected = [
        sum(((t @ normal(1, 32, 32)) ** 2).sum() for t in part) for part in (seen[:2], seen[2:])
    ]
    assert signals == pytest.approx(expected, rel=1e-4)
    assert signals[0] != pytest.approx(signals[1], rel=1e-3)


def of_weight(found: Solved, name: str) -> GroupResult:
    """The result of a weight that was quantized without statistics."""
    return GroupResult(None, 0.0, "", {name: found.weights[name]}, {}, {})


class InterruptedRunError(Exception):
    """Stands for whatever ends a run."""


class Counted:
    """Solves groups until there were too many."""

    def __init__(self, most: int) -> None:
        self.calls, self.most = 0, most

    def __call__(self, task: GroupTask, moments: SplitMoments) -> GroupResult:
        if self.calls == self.most:
            raise InterruptedRunError
        self.calls += 1
        return solve_group(task, moments)


@pytest.mark.parametrize("sequential", [True, False])
def test_an_interrupted_run_goes_on(
    chain: Path, monkeypatch: pytest.MonkeyPatch, *, sequential: bool
) -> None:
    complete = solved(chain, "awq+gptq", sequential=sequential)
    complete.forget()
    whole = by_tensor(complete)
    monkeypatch.setattr(block_solver, "solve_group", Counted(2))
    with pytest.raises(InterruptedRunError):
        solved(chain, "awq+gptq", sequential=sequential)
    rest = Counted(3)
    monkeypatch.setattr(block_solver, "solve_group", rest)
    found = by_tensor(solved(chain, "awq+gptq", sequential=sequential))
    assert rest.calls == 1
    assert found.keys() == whole.keys()
    for tensor, result in whole.items():
        assert_same(found[tensor], result)


@pytest.mark.parametrize("sequential", [True, False])
def test_what_one_way_found_is_nothing_to_the_other(
    chain: Path, monkeypatch: pytest.MonkeyPatch, *, sequential: bool
) -> None:
    monkeypatch.setattr(block_solver, "solve_group", Counted(2))
    with pytest.raises(InterruptedRunError):
        solved(chain, "awq", sequential=sequential)
    every = Counted(3)
    monkeypatch.setattr(block_solver, "solve_group", every)
    solved(chain, "awq", sequential=not sequential)
    assert every.calls == 3


@pytest.mark.parametrize("kept", [True, False])
def test_what_was_found_behind_another_prefix_is_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, kept: bool
) -> None:
    """A Conv of two groups has no statistics, and is in front of all that have some."""
    text = """g (float[N, 32, 6, 6] x) => (float[N, 32, 6, 6] y) {
        a = Conv<group = 2>(x, u) b = Tanh(a) y = Conv(b, v)
    }"""
    path = write(tmp_path / "m.onnx", text, u=normal(0, 32, 16, 1, 1), v=normal(1, 32, 32, 1, 1))
    task = task_of(path, [{"x": normal(seed, 2, 32, 6, 6)} for seed in range(6)], sequential=True)
    first, second = task.prepared.sites
    spec = BlockSpec(4, 16, symmetric=False, algorithm="gptq", form="dq")
    specs = {first.name: replace(spec, bits=2), second.name: spec}
    before = BlockPlanner(task.prepared.model, task.prepared.sites, specs)
    solve(task, before)
    calls = Counted(1)
    monkeypatch.setattr(block_solver, "solve_group", calls)
    other = {**specs, first.name: spec} if kept else {second.name: spec}
    solve(task, BlockPlanner(task.prepared.model, task.prepared.sites, other))
    assert calls.calls == 1


def test_errors_of_the_two_ways_are_kept_apart(chain: Path) -> None:
    for sequential in (True, False):
        solved(chain, "rtn", sequential=sequential)
    task = task_of(chain, samples())
    known = load_cached(task.prepared.digest, source(task.prepared.model, samples()).digest())
    site = next(site for site in task.prepared.sites if site.weight == "v")
    assert set(known.sites[site.name].noise) == {
        "held-out: rtn, uint4, block 16",
        "held-out: rtn, uint4, block 16, sequential",
    }


def test_a_site_that_is_ruined_stays_float_in_the_prefix(tmp_path: Path) -> None:
    ruinous = normal(0, 32, 32)
    ruinous[[3, 20]] = 1e6
    path = write(tmp_path / "m.onnx", CHAIN, **{**WEIGHTS, "u": ruinous})
    data = samples()
    for sample in data:
        sample["x"][:, [3, 20]] = 0
    task = task_of(path, data, sequential=True)
    found = solve(task, planner_of(task, "rtn", bits=8))
    assert [site.weight for site in task.prepared.sites if site.name in found.ruined] == ["u"]
    plain = np.tanh(np.concatenate([f["x"] for f in data[4::5]]).astype(np.float64) @ ruinous)
    signal = float(((plain @ WEIGHTS["v"]) ** 2).sum())
    assert by_tensor(found)["h"].signals["v"] == pytest.approx(signal, rel=1e-4)


@pytest.mark.parametrize(
    ("constant", "magnitude", "reason"),
    [
        (3e38, 0.01, "'c' would overflow FLOAT"),
        (1.2e-38, 0.5, "'c' would underflow FLOAT"),
        (1.0, 0.5, ""),
    ],
)
def test_scaling_that_leaves_the_range_is_not_taken(
    tmp_path: Path, constant: float, magnitude: float, reason: str
) -> None:
    """One channel of the constant that would take the division is extreme, and what it scales."""
    text = "g (float[N, 32] x) => (float[N, 32] y) { n = Mul(x, c) y = MatMul(n, w) }"
    spread = np.exp(normal(5, 32)) * np.float32(0.01 if constant < 1 else 1)
    factor = np.ones(32, np.float32)
    factor[3], spread[3] = constant, magnitude / constant
    path = write(tmp_path / "m.onnx", text, c=factor, w=normal(6, 32, 32))
    task = task_of(path, [{"x": normal(seed, 24, 32) * spread} for seed in range(10)])
    (result,) = by_tensor(solve(task, planner_of(task, "awq"))).values()
    assert result.reason == reason
    assert (result.factor is None) == bool(reason)
    (entry,) = blocks(task).plan.blocks
    assert entry.bits == 4
