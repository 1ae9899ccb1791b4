"""The benchmarks run: each one's machinery, tiny, on the shipped model with four samples."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from models.score import Metric
from onnxq.runtime.timing import Ratio, TimingSettings
from tests.benchmarks import (
    block_kernels,
    calibration_cost,
    common,
    fashion,
    fusions,
    half,
    lint_repair,
    lint_rules,
    methods,
    peer_settings,
    peers,
    weight_only,
)
from tests.benchmarks.common import FailedError, Workload, in_own_process, write_samples
from tests.benchmarks.peer_tasks import Reader, Variant
from tests.small_models import normal, write

if TYPE_CHECKING:
    from pathlib import Path

TIMING = TimingSettings(rounds=1, runs=2, warmup=0, threads=1, seconds=0.0)


@pytest.fixture
def work(tmp_path: Path) -> Workload:
    calibration = write_samples(fashion.DATA / "calibration.npy", "image", 4, tmp_path / "c")
    evaluation = write_samples(fashion.DATA / "test.npy", "image", 4, tmp_path / "e")
    return Workload("fashion_resnet", fashion.MODEL, calibration, evaluation)


def test_peers_compares_times_and_lists_what_failed(
    work: Workload, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    variants = (
        Variant("peer one", "percentile", preprocess=True, symmetric=False, at_a_time=2),
        Variant("peer none", "minmax", op_types=("Conv",), at_a_time=3),
    )
    floating, onnxq, one, none = peers.compare(work, variants, TIMING, tmp_path)
    assert (floating.name, onnxq.name, one.name) == ("float", "onnxq", "peer one")
    for result in (onnxq, one):
        assert not result.failed
        assert result.sqnr_db is not None
        assert result.sqnr_db > 5
        assert result.integer_kernels == 10
        assert result.faster is not None
        assert result.peak_rss_bytes
    assert "not divisible" in none.failed
    peers.report(work, (floating, onnxq, one, none))
    printed = capsys.readouterr().out
    assert "4 calibration samples" in printed
    assert "peer none failed: ValueError" in printed

    written = tmp_path / "figures.json"
    common.write_json(written, "peers", {"timing": TIMING, "models": {"m": (onnxq, none)}})
    document = json.loads(written.read_text())
    assert document["models"]["m"][0]["integer_kernels"] == 10
    assert {"machine", "versions", "benchmark"} <= set(document)


def test_half_measures_each_form_and_the_peer(work: Workload, tmp_path: Path) -> None:
    found = {result.form: result for result in half.compare(work, TIMING, tmp_path)}
    assert found.keys() == {"float", "peer", *(" ".join(form) for form in half.FORMS)}
    assert found["float16 weights"].casts == 0
    assert 1.8 < found["float16 weights"].smaller < 2
    assert (found["float16 weights"].sqnr_db or 0) > (found["bfloat16 weights"].sqnr_db or 0) > 20
    assert all(len(half.row(result)) == len(half.COLUMNS) for result in found.values())


def test_tasks_scores_float_each_quantized_model_and_the_peer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = """g (float[B, 32] x) => (float[B, 64] y) {
        a = MatMul(x, w)
        b = Relu(a)
        y = MatMul(b, v)
    }"""
    model = write(tmp_path / "m.onnx", text, w=normal(0, 32, 64), v=normal(1, 64, 64))
    np.save(tmp_path / "x.npy", normal(2, 8, 32))
    parts = [write_samples(tmp_path / "x.npy", "x", 8, tmp_path / part) for part in "ce"]
    scored: list[Path] = []

    def score(name: str, path: Path) -> tuple[Metric, ...]:
        scored.append(path)
        return (Metric("hits", len(scored) / 10, digits=1),)

    few = {name: weight_only.TASK_ROWS[name] for name in ("int8-weights", "int4, block 32, awq")}
    monkeypatch.setattr(weight_only, "TASK_ROWS", few)
    monkeypatch.setattr(weight_only, "TASK_MODELS", {"small": (False,)})
    monkeypatch.setattr(weight_only, "score", score)
    rows = weight_only.at_task(Workload("small", model, parts[0], parts[1]), tmp_path)
    assert [row.name for row in rows] == ["float", *few, "peer, int4, block 128, tables float"]
    assert [row.metrics[0].value for row in rows] == [0.1, 0.2, 0.3, 0.4]
    assert rows[0].sqnr_db is None
    assert all((row.sqnr_db or 0) > 10 for row in rows[1:])
    assert all(row.file_bytes < rows[0].file_bytes for row in rows[1:])
    weight_only.show_tasks({"small": rows})
    printed = capsys.readouterr().out
    assert "hits" in printed
    assert "int4, block 32, awq" in printed


def test_the_settings_follow_the_kind_of_model() -> None:
    assert peer_settings.variants_for(fashion.MODEL) == peer_settings.IMAGES
    for variants in (peer_settings.TEXTS, peer_settings.IMAGES):
        names = [variant.name for variant in variants]
        assert len(set(names)) == len(names)
        assert all(names)


def test_calibration_cost_measures_time_and_memory(
    work: Workload, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = calibration_cost.Bench(work, tmp_path)
    bench.repeat(("percentile",), calibration_cost.Repetitions(ours=1, peer=1))
    assert list(bench.costs) == [
        "onnxq percentile",
        "peer percentile",
        "peer percentile, 8 at a time",
    ]
    assert all(cost.times_float[0] > 0 for cost in bench.costs.values())
    memory = bench.memory(("percentile",), {4: work.calibration})
    calibration_cost.report(bench)
    calibration_cost.report_memory(memory, (4,))
    assert "fashion_resnet, 4 samples" in capsys.readouterr().out


def test_methods_gives_each_its_own_result(work: Workload, tmp_path: Path) -> None:
    found = methods.compare(work, ("minmax", "auto"), tmp_path)
    assert [result.method for result in found] == ["minmax", "auto"]
    assert all((result.sqnr_db or 0) > 5 for result in found)
    assert "auto" in methods.METHODS


def test_fusions_times_both_forms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text = """g (float[1, L, 8] x) => (float[1, L, 8] y) {
        a = MatMul(x, w)
        s = Add(a, x)
        n = LayerNormalization<axis = -1, epsilon = 1e-12>(s, g, b)
        m = MatMul(n, v)
        t = Add(n, m)
        y = LayerNormalization<axis = -1, epsilon = 1e-12>(t, g, b)
    }"""
    weights = {"w": normal(0, 8, 8), "v": normal(1, 8, 8), "g": normal(2, 8), "b": normal(3, 8)}
    model = write(tmp_path / "m.onnx", text, **weights)
    np.save(tmp_path / "x.npy", normal(4, 8, 5, 8))
    parts = [write_samples(tmp_path / "x.npy", "x", 8, tmp_path / part) for part in "ce"]
    found = fusions.compare(Workload("blocks", model, parts[0], parts[1]), TIMING, tmp_path)
    assert [result.form for result in found] == ["float", "int8"]
    for result in found:
        assert (result.fused_nodes, result.apart_nodes) == (2, 0)
        assert result.faster.median == pytest.approx(result.fused_ms / result.apart_ms)
    common.show("blocks", fusions.COLUMNS, [fusions.row(result) for result in found])
    assert "x faster apart" in capsys.readouterr().out


@pytest.mark.parametrize("rule", lint_rules.DUELS)
def test_lint_rules_times_both_forms(rule: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = lint_rules.compare(rule, TIMING)
    assert result.longer.median == pytest.approx(result.found_us / result.instead_us)
    common.show("forms", lint_rules.COLUMNS, [lint_rules.row(result)])
    assert "times as long" in capsys.readouterr().out


def test_lint_repair_gives_the_same_numbers(
    work: Workload, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = lint_repair.compare(work, TIMING, tmp_path)
    assert "int8-activations" in result.rules
    assert result.sqnr_db == float("inf")
    assert result.integer[1] > result.integer[0]
    common.show("repaired", lint_repair.COLUMNS, [lint_repair.row(result)])
    assert "equal" in capsys.readouterr().out


def test_fashion_measures_accuracy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    test = tmp_path / "test"
    test.mkdir()
    for name in ("test.npy", "test_labels.npy"):
        np.save(test / name, np.load(fashion.DATA / name)[:20])
    found = fashion.run(test, tmp_path, TIMING).verification
    assert found is not None
    assert found.fidelity.float_accuracy is not None
    assert fashion.row(20, found)[0] == "20"


@pytest.mark.parametrize(
    ("task", "arguments", "reason"),
    [
        ("peer_tasks:run_float", {"model": "no", "data": "no", "threads": 1}, "NoSuchFile"),
        ("test_smoke:die", {}, "Killed"),
    ],
)
def test_a_task_that_fails_gives_its_reason(
    task: str, arguments: dict[str, Any], reason: str
) -> None:
    with pytest.raises(FailedError, match=reason):
        in_own_process(task, arguments)


def die() -> None:
    """End this process as a lack of memory would."""
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def test_the_reader_goes_on_where_it_is_told(work: Workload) -> None:
    reader = Reader(str(work.calibration))
    assert len(reader) == 4
    reader.set_range(start_index=1, end_index=3)
    seen = []
    while (feeds := reader.get_next()) is not None:
        seen.append(feeds)
    rows = np.load(fashion.DATA / "calibration.npy", mmap_mode="r")
    np.testing.assert_array_equal(seen[0]["image"], rows[1:2])
    assert len(seen) == 2


def test_a_spread_reads_as_median_and_range() -> None:
    assert common.spread([3.0, 1.0, 2.0]) == Ratio(2.0, 1.0, 3.0)
    assert common.times(Ratio(2.0, 1.0, 3.0), 1) == "2.0 (1.0 to 3.0)"
    assert common.number(None) == "-"
    assert common.megabytes(2e6) == "2"


def test_block_kernels_times_products_and_lookups() -> None:
    products = block_kernels.products(32, 8)
    assert len(products) == 1 + 3 * 2 * 5
    few = dict(list(products.items())[:2])
    floating, blocks = block_kernels.compare(few, normal(0, 2, 32), TIMING)
    assert floating.faster.median == 1
    assert blocks.microseconds > 0
