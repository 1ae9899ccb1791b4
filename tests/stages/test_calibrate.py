"""``auto`` competes: the best method of each site against each method for all, on whole models."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from onnxq.algorithms import range_choice
from onnxq.algorithms.channel_scaling import ChannelScaling, Scalings
from onnxq.algorithms.scaling_groups import scaling_groups
from onnxq.calibration import collect as collecting
from onnxq.calibration.cache import load_cached
from onnxq.calibration.requests import HALVES, OutputError
from onnxq.calibration.stats import Stats, TensorStats
from onnxq.passes.execute import execute
from onnxq.recipe import CalibrationMethod, CalibrationSettings, Recipe, Rule
from onnxq.stages import calibrate as stage
from onnxq.stages.calibrate import PER_SITE, Calibrated, calibrate
from onnxq.stages.prepare import prepare
from tests.small_models import Feeds, normal, run, source, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import onnx_ir as ir

    from onnxq.data import DataSource
    from onnxq.plan import Plan
    from onnxq.runtime.session import Optimization

GRAPH = """g (float[N, 16] x) => (float[N, 6] y) {
    a = MatMul(x, w1)
    b = Tanh(a)
    c = Mul(b, k)
    d = MatMul(c, w2)
    e = Softplus(d)
    f = Mul(e, e)
    h = MatMul(f, w3)
    y = Tanh(h)
}"""
UNIFORM: tuple[tuple[CalibrationMethod, float], ...] = (
    ("minmax", 99.0),
    ("mse", 99.0),
    ("entropy", 99.0),
    ("moving-average", 99.0),
    ("percentile", 99.9),
    ("percentile", 99.99),
    ("percentile", 99.999),
)


def model_of(folder: Path, seed: int) -> Path:
    """Layers whose errors add up in the output, after data with heavy tails."""
    return write(
        folder / f"{seed}.onnx",
        GRAPH,
        w1=normal(seed, 16, 32),
        k=np.exp(normal(seed + 1, 32)),
        w2=normal(seed + 2, 32, 32) / 4,
        w3=normal(seed + 3, 32, 6) / 20,
    )


def heavy_tails(seed: int, count: int = 8) -> list[Feeds]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.standard_t(2.5, (20, 16)).astype(np.float32)} for _ in range(count)]


def quiet(step: str, done: int, total: int) -> None:
    """Report nothing."""


def calibrated(model: Path, samples: list[Feeds], recipe: Recipe) -> Calibrated:
    prepared = prepare(model, recipe)
    return calibrate(prepared, source(prepared.model, samples), quiet)


def with_method(method: CalibrationMethod, percentile: float = 99.0) -> Recipe:
    settings = CalibrationSettings(method=method, percentile=percentile)
    return Recipe(channel_scaling="off", calibration=settings)


def error(found: Calibrated, model: Path, samples: list[Feeds]) -> float:
    """Noise over signal of the plan's model."""
    return plan_error(found.plan(independent=False), found.prepared.model, model, samples)


def plan_error(plan: Plan, normalized: ir.Model, model: Path, samples: list[Feeds]) -> float:
    """The same, without the code under test."""
    quantized = execute(plan, normalized)
    signal = noise = 0.0
    for feeds in samples:
        expected = run(model, feeds)[0].astype(float)
        signal += np.square(expected).sum()
        noise += np.square(run(quantized, feeds, "all")[0] - expected).sum()
    return noise / signal


@pytest.mark.parametrize("seed", range(6))
def test_auto_is_never_worse_on_calibration_data_than_a_method_for_all(
    tmp_path: Path, seed: int
) -> None:
    """The slack is for ranges that differ by less than a thousandth, which count as one."""
    model, samples = model_of(tmp_path, seed), heavy_tails(seed)
    auto = error(calibrated(model, samples, with_method("auto")), model, samples)
    others = {
        (method, percentile): error(
            calibrated(model, samples, with_method(method, percentile)), model, samples
        )
        for method, percentile in UNIFORM
    }
    assert auto <= 1.02 * min(others.values())
    assert max(others.values()) > 2 * auto


def test_the_best_of_each_site_does_not_always_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the competition, errors of single sites would have chosen a worse model."""
    won = set()
    for seed in range(6):
        model, samples = model_of(tmp_path, seed), heavy_tails(seed)
        found = calibrated(model, samples, with_method("auto"))
        won.add(found.run.chosen)
        with monkeypatch.context() as patch:
            patch.setattr(range_choice, "uniform", lambda candidates: {})
            alone = calibrated(model, samples, with_method("auto"))
        assert alone.run.chosen == PER_SITE
        assert error(found, model, samples) <= error(alone, model, samples) * (1 + 1e-6)
        if found.run.chosen != PER_SITE:
            assert error(found, model, samples) < error(alone, model, samples)
    assert won - {PER_SITE}


Ranges = dict[str, tuple[float, float]]


def ranges(plan: Plan) -> Ranges:
    return {entry.tensor: (entry.low, entry.high) for entry in plan.activations}


def alike(found: Ranges, expected: Ranges) -> bool:
    """Whether no bound differs by a thousandth of its range: auto takes such ranges for one."""
    return found.keys() == expected.keys() and all(
        np.allclose(found[name], ends, rtol=0, atol=1e-3 * (ends[1] - ends[0]))
        for name, ends in expected.items()
    )


class Trials:
    """Stands in for the whole model's error: counts, and says that certain ranges are best."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, best: Ranges | None = None) -> None:
        self.best = best or {}
        self.plans: list[Plan] = []
        self.samples: set[int] = set()
        monkeypatch.setattr(stage, "trials", self)

    @contextmanager
    def __call__(
        self, model: ir.Model, data: DataSource, optimization: Optimization
    ) -> Iterator[Callable[[Plan], float]]:
        assert optimization == "all"
        self.samples.add(len(data))
        yield self.error

    def error(self, plan: Plan) -> float:
        self.plans.append(plan)
        return 0.1 if alike(ranges(plan), self.best) else 0.5


@pytest.mark.parametrize(("method", "percentile"), UNIFORM)
def test_the_method_with_the_least_error_is_taken_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: CalibrationMethod, percentile: float
) -> None:
    model, samples = model_of(tmp_path, 0), heavy_tails(0)
    expected = ranges(
        calibrated(model, samples, with_method(method, percentile)).plan(independent=False)
    )
    trials = Trials(monkeypatch, expected)
    found = calibrated(model, samples, with_method("auto"))
    assert alike(ranges(found.plan(independent=False)), expected)
    assert expected.keys() == {"x", "c", "f"}
    assert len(trials.plans) >= 4
    assert sorted(found.stats.trials.values())[:2] == [0.1, 0.5]


def test_among_equals_the_best_of_each_site_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Trials(monkeypatch)
    found = calibrated(model_of(tmp_path, 0), heavy_tails(0), with_method("auto"))
    assert found.run.chosen == PER_SITE


def test_a_rules_method_stands_whatever_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a tensor has one candidate only, each method for all leaves it that."""
    model, samples = model_of(tmp_path, 0), heavy_tails(0)
    site = prepare(model, Recipe()).sites[1].name
    trials = Trials(monkeypatch)
    rule = Rule(match=(site,), calibration="minmax")
    found = calibrated(model, samples, with_method("auto").model_copy(update={"rules": (rule,)}))
    methods = {e.tensor: e.method for e in found.plan(independent=False).activations}
    assert methods["c"] == "minmax"
    assert {e.method for plan in trials.plans for e in plan.activations if e.tensor == "c"} == {
        "minmax"
    }


def test_no_model_is_tried_where_there_is_no_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = Trials(monkeypatch)
    found = calibrated(model_of(tmp_path, 0), heavy_tails(0), with_method("mse"))
    assert (trials.plans, found.stats.trials) == ([], {})
    assert {e.method for e in found.plan(independent=False).activations} == {"mse"}


def test_trials_run_on_few_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = Trials(monkeypatch)
    calibrated(model_of(tmp_path, 0), heavy_tails(0, 40), with_method("auto"))
    assert trials.samples == {stage.ERROR_SAMPLES}


@pytest.mark.parametrize("scaling", ["auto", "off"])
def test_a_second_run_tries_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scaling: str
) -> None:
    model, samples = model_of(tmp_path, 1), heavy_tails(1)
    recipe = with_method("auto").model_copy(update={"channel_scaling": scaling})
    first = calibrated(model, samples, recipe)
    trials = Trials(monkeypatch)
    second = calibrated(model, samples, recipe)
    assert trials.plans == []
    assert (first.run.reused, second.run.reused) == (False, True)
    assert second.run.chosen == first.run.chosen
    assert second.stats.trials == first.stats.trials
    assert len(first.stats.trials) > 1
    one, two = first.plan(independent=False), second.plan(independent=False)
    assert one.model_dump() == two.model_dump()
    for key, array in one.arrays.items():
        np.testing.assert_array_equal(array, two.arrays[key])


def test_another_recipe_tries_only_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site that is kept float makes other models: what was tried before is no answer."""
    model, samples = model_of(tmp_path, 1), heavy_tails(1)
    before = calibrated(model, samples, with_method("auto")).stats.trials
    prepared = prepare(model, Recipe())
    rule = Rule(match=(prepared.sites[0].name,), keep="float")
    trials = Trials(monkeypatch)
    calibrated(model, samples, with_method("auto").model_copy(update={"rules": (rule,)}))
    assert len(trials.plans) > 1
    # Few samples: all of them are compared on, and the key names both choices.
    digest = source(prepared.model, samples).digest()
    known = load_cached(prepared.digest, f"{digest} {digest}").trials
    assert before.items() < known.items()


def test_statistics_of_all_values_that_scaling_divides_are_taken_anew(tmp_path: Path) -> None:
    text = """g (float[N, 6] x) => (float[N, 4] y) {
        a = MatMul(x, v)
        h = Abs(a)
        y = MatMul(h, w)
    }"""
    prepared = prepare(
        write(tmp_path / "m.onnx", text, v=normal(0, 6, 8), w=normal(1, 8, 4)), Recipe()
    )
    found = {group.tensor: group for group in scaling_groups(prepared.model, prepared.sites)}
    seen = Stats(prepared.digest, "data", 1)
    for name in ("x", "a", "h", "y"):
        seen.tensors[name] = TensorStats(1, [-1.0], [1.0])
    entry, arrays = found["h"].entry(), found["h"].arrays(np.full(8, 2.0))
    assert entry.folds
    after = stage.scaled(stage.Stage(prepared, seen), Scalings((entry,), arrays), "data")
    assert set(after.stats.tensors) == {"x", "y"}


POOLED = "g (float[N, 256] x) => (float[N, 20] y) { y = MatMul(x, w) }"


def pooled(seed: int, count: int, rows: int = 1) -> list[Feeds]:
    """What a classifier reads: features of many sizes, half of them zero, heavy tails."""
    rng = np.random.default_rng(seed)
    size = np.exp(normal(0, 256))
    return [
        {"x": (size * np.maximum(rng.standard_t(5, (rows, 256)), 0)).astype(np.float32)}
        for _ in range(count)
    ]


def fitted_and_judged_alike(
    model: Path, samples: list[Feeds], recipe: Recipe
) -> tuple[stage.Stage, Scalings]:
    """What would be chosen if factors were judged on the samples that they were fitted to."""
    prepared = prepare(model, recipe)
    seen = stage.Stage(prepared, Stats(prepared.digest, "alike"))
    observe = stage.Observer(prepared, source(prepared.model, samples), quiet)
    scaling = ChannelScaling(prepared.model, prepared.config(prepared.select({})))
    observe(seen, scaling.requests(), "calibrate")
    for tensor in seen.stats.tensors.values():
        tensor.halves[-1] = dict.fromkeys(HALVES, tensor.channels[-1])
    observe(seen, scaling.error_requests(seen.stats), "scale channels")
    return seen, scaling.choose(seen.stats)


@pytest.mark.parametrize("seed", [0, 1])
def test_channels_known_from_few_rows_are_not_scaled(tmp_path: Path, seed: int) -> None:
    """Scaled by these samples' peaks, their error is less, and that of new ones far greater."""
    model = write(tmp_path / "m.onnx", POOLED, w=normal(1, 256, 20))
    samples, new = pooled(seed, 48), pooled(99, 64)
    settings = CalibrationSettings(method="minmax")
    off = Recipe(channel_scaling="off", calibration=settings)
    found = calibrated(model, samples, Recipe(calibration=settings))
    assert found.scalings.entries == ()
    seen, tempting = fitted_and_judged_alike(model, samples, off)
    assert [entry.tensor for entry in tempting.entries] == ["x"]
    prepared = stage.scaled(seen, tempting, "alike").prepared
    scaled = calibrate(prepared, source(prepared.model, samples), quiet)
    assert error(scaled, model, samples) < error(found, model, samples) / 2
    assert error(scaled, model, new) > 2 * error(found, model, new)


def test_channels_known_from_many_rows_are_scaled(tmp_path: Path) -> None:
    model = write(tmp_path / "m.onnx", POOLED, w=normal(1, 256, 20))
    samples, judged = pooled(0, 32, rows=400), pooled(9, 32)
    settings = CalibrationSettings(method="minmax")
    found = calibrated(model, samples, Recipe(calibration=settings))
    off = calibrated(model, samples, Recipe(channel_scaling="off", calibration=settings))
    assert [entry.tensor for entry in found.scalings.entries] == ["x"]
    plan = found.plan(independent=False)
    scaled = plan_error(plan, off.prepared.model, model, judged)
    assert scaled < 0.3 * error(off, model, judged)


def test_a_single_sample_scales_nothing_and_says_so(tmp_path: Path) -> None:
    model = write(tmp_path / "m.onnx", POOLED, w=normal(1, 256, 20))
    found = calibrated(model, pooled(0, 1, rows=400), Recipe())
    assert found.scalings.entries == ()
    (warning,) = found.plan(independent=False).warnings
    assert "channels were not scaled" in warning
    assert "a single" in warning


@pytest.mark.parametrize(("count", "halves"), [(7, (4, 3)), (40, (16, 16))])
def test_each_half_is_judged_on_its_own_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, halves: tuple[int, int]
) -> None:
    seen: list[tuple[set[object], list[int]]] = []
    collect = collecting.collect

    def watched(
        model: ir.Model, requests: list[Any], data: DataSource, *more: Any, **named: Any
    ) -> Stats:
        if all(isinstance(request, OutputError) for request in requests):
            seen.append(({request.half for request in requests}, list(data.positions)))
        return collect(model, requests, data, *more, **named)

    monkeypatch.setattr(stage, "collect", watched)
    model = write(tmp_path / "m.onnx", POOLED, w=normal(1, 256, 20))
    calibrated(model, pooled(0, count), Recipe())
    (first, ones), (second, twos) = seen[:2]
    assert (first, second) == ({0}, {1})
    assert (len(ones), len(twos)) == halves
    assert max(ones) < (count + 1) // 2 <= min(twos)
