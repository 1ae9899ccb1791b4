"""Groups of weights on data: within the memory budget, from where an interrupted run stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import Mock

import numpy as np
import pytest

from onnxq.algorithms import block_group
from onnxq.calibration import cache
from onnxq.calibration.collect import collect
from onnxq.pipeline import RunOptions, quantize
from onnxq.plan import plan_digest
from onnxq.recipe import Recipe
from onnxq.stages import block_solver
from tests.small_models import normal, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from onnxq.algorithms.block_group import GroupResult, GroupTask
    from onnxq.numerics.moments import SplitMoments
    from onnxq.pipeline import QuantizeResult
    from tests.small_models import Feeds

CHAIN = """g (float[N, 32] x) => (float[N, 32] y) {
    a = MatMul(x, w0) b = Tanh(a) c = MatMul(b, w1) d = Tanh(c) y = MatMul(d, w2)
}"""
GROUPS = 3
GRAM_BYTES = 2 * 4 * 32 * 32
"""What the statistics of one group take."""


class Interrupted(Exception):  # noqa: N818 - stands for whatever ends a run
    """Ends a run."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where groups are kept while a run goes on."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "onnxq" / "groups"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path / "m.onnx", CHAIN, **{f"w{i}": normal(i, 32, 32) / 6 for i in range(3)})


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Counts the groups that are solved, and ends the run before one more than so many."""

    def count(most: int) -> list[int]:
        calls: list[int] = []

        def solve_group(task: GroupTask, moments: SplitMoments) -> GroupResult:
            if len(calls) == most:
                raise Interrupted
            calls.append(1)
            return block_group.solve_group(task, moments)

        monkeypatch.setattr(block_solver, "solve_group", solve_group)
        return calls

    return count


def samples(start: int = 0) -> list[Feeds]:
    return [{"x": normal(start + seed, 8, 32)} for seed in range(10)]


def convert(
    model: Path, data: list[Feeds], budget: int = 1 << 30, algorithm: str = "awq+gptq"
) -> QuantizeResult:
    recipe = Recipe.model_validate(
        {
            "scheme": "int4",
            "weights": {"algorithm": algorithm, "block_size": 16, "accuracy_level": 1},
            "calibration": {"memory_budget": budget},
        }
    )
    output, options = model.with_name("o.onnx"), RunOptions(timing=None)
    return quantize(model, data, output, recipe=recipe, options=options)


def interrupt(model: Path, data: list[Feeds]) -> None:
    with pytest.raises(Interrupted):
        convert(model, data)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_small_budget_gives_the_same_plan(
    groups: int, model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = Mock(wraps=collect)
    monkeypatch.setattr(block_solver, "collect", passes)
    whole = convert(model, samples())
    assert passes.call_count == 1
    parts = convert(model, samples(), budget=(groups + 2) * GRAM_BYTES + 1)
    assert passes.call_count == 1 + -(-GROUPS // groups)
    assert plan_digest(parts.plan) == plan_digest(whole.plan)
    assert not folder.exists() or not list(folder.iterdir())


@pytest.mark.parametrize("done", [1, 2])
def test_an_interrupted_run_goes_on(
    done: int, model: Path, folder: Path, solved: Callable[[int], list[int]], tmp_path: Path
) -> None:
    solved(done)
    interrupt(model, samples())
    (kept,) = folder.iterdir()
    assert len(list(kept.iterdir())) == done
    calls = solved(9)
    result = convert(model, samples())
    assert len(calls) == GROUPS - done
    assert not kept.exists()
    assert result.calibration is not None
    assert not result.calibration.reused
    # Nothing is left of it, and the plan is that of a run that nobody interrupted.
    calls = solved(9)
    assert plan_digest(convert(model, samples()).plan) == plan_digest(result.plan)
    assert len(calls) == GROUPS


def test_all_groups_may_be_known(
    model: Path, solved: Callable[[int], list[int]], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    def stop(*_: object) -> None:
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(block_solver, "store", stop)
        interrupt(model, samples())
    calls = solved(9)
    result = convert(model, samples())
    assert calls == []
    assert result.calibration is not None
    assert result.calibration.reused
    assert not list(folder.iterdir())


def test_other_data_and_other_settings_start_anew(
    model: Path, folder: Path, solved: Callable[[int], list[int]]
) -> None:
    solved(2)
    interrupt(model, samples())
    calls = solved(9)
    convert(model, samples(50))
    assert len(calls) == GROUPS
    # What was found for other settings of the same data is passed over, and goes with the rest.
    calls = solved(9)
    convert(model, samples(), algorithm="gptq")
    assert len(calls) == GROUPS
    assert not list(folder.iterdir())


@pytest.mark.parametrize("content", [b"", b"{}", bytes(1000), None])
def test_a_damaged_file_counts_as_absent(
    content: bytes | None, model: Path, folder: Path, solved: Callable[[int], list[int]]
) -> None:
    solved(2)
    interrupt(model, samples())
    (kept,) = folder.iterdir()
    first = min(kept.iterdir())
    # None: it ends in the middle.
    first.write_bytes(first.read_bytes()[:200] if content is None else content)
    calls = solved(9)
    result = convert(model, samples())
    assert len(calls) == GROUPS - 1
    solved(9)
    assert plan_digest(convert(model, samples()).plan) == plan_digest(result.plan)


def test_a_cache_that_cannot_be_written_is_no_failure(model: Path, folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    folder.write_text("a file where a folder is wanted")
    assert all(site.decision == "int4" for site in convert(model, samples()).plan.sites)


def test_a_site_that_is_ruined_costs_no_other_group_a_second_solution(
    tmp_path: Path, folder: Path, solved: Callable[[int], list[int]]
) -> None:
    text = """g (float[N, 32] x) => (float[N, 4] y, float[N, 4] z) {
        r = Sqrt(x) y = MatMul(r, w) t = Tanh(x) z = MatMul(t, v)
    }"""
    model = write(tmp_path / "m.onnx", text, w=normal(0, 32, 4), v=normal(1, 32, 4))
    calls = solved(9)
    result = convert(model, samples())
    assert [site.decision for site in result.plan.sites] == ["float", "int4"]
    assert len(calls) == 1
    assert not list(folder.iterdir())


def test_a_product_that_no_token_reaches_is_quantized_by_its_weight(
    tmp_path: Path, solved: Callable[[int], list[int]]
) -> None:
    text = """g (float[N, 32] x) => (float[N, 4] y, float[M, 4] z) {
        y = MatMul(x, w) none = Slice(x, from, from, from) z = MatMul(none, v)
    }"""
    weights: Feeds = {"w": normal(0, 32, 4), "v": normal(1, 32, 4), "from": np.zeros(1, np.int64)}
    calls = solved(9)
    result = convert(write(tmp_path / "m.onnx", text, **weights), samples())
    assert [site.decision for site in result.plan.sites] == ["int4", "int4"]
    assert len(calls) == 1


def test_errors_on_held_out_tokens_are_kept_with_the_statistics(model: Path, folder: Path) -> None:
    result = convert(model, samples(), algorithm="auto")
    stats = cache.load_cached(result.plan.model_digest, result.plan.data_digest)
    for site in result.plan.sites:
        error = stats.sites[site.name]
        labels = [label for label in error.noise if label.startswith("held-out: ")]
        assert {label.split(",")[0].split(": ")[1] for label in labels} >= {"mse", "awq", "gptq"}
        assert all(label.endswith("block 16") for label in labels)
        assert all(0 < error.noise[label] < error.signal for label in labels)
        assert np.isfinite(error.signal)
