from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from onnxq.calibration.requests import HALVES
from onnxq.calibration.stats import (
    ChannelStats,
    SiteError,
    Stats,
    TensorStats,
    load_stats,
    save_stats,
)
from onnxq.errors import PlanError
from onnxq.numerics.histogram import FloatHistogram
from tests.small_models import normal


def filled(seed: int = 0, samples: int = 3) -> Stats:
    """Statistics with every part; the second sample is masked altogether."""
    tensor = TensorStats(histogram=FloatHistogram())
    for number in range(samples):
        # All above 2, so that a masked sample's 0 is not the least value.
        values = np.abs(normal(seed + number, 50)) + 2
        if number == 1:
            values[:] = np.inf
        assert tensor.histogram is not None
        seen = tensor.histogram.add(values)
        tensor.elements += values.size
        tensor.masked += seen.masked
        tensor.lows.append(seen.low if np.isfinite(seen.low) else 0.0)
        tensor.highs.append(seen.high if np.isfinite(seen.high) else 0.0)
    low, high = normal(seed, 4) - 3, normal(seed, 4) + 3
    magnitude = np.asarray([0.1, 2.0, 1e-30, 4e20])
    tensor.add_channels(-1, 0, ChannelStats(low, high, magnitude, 7))
    tensor.add_channels(-1, 1, ChannelStats(low - 1, high - 1, magnitude / 3, 5))
    extrema = TensorStats(5, [-0.5], [1 / 3], masked=1, nan=2)
    sites = {"a/b": SiteError(0.1, {"minmax": 1e-9, "percentile 99.9": 3.5})}
    tensors = {"hidden": tensor, "odd / name": extrema}
    stats = Stats("sha256:m", "sha256:d", samples, tensors, sites)
    stats.halves[1]["a/b"] = SiteError(0.2, {"scaled 0.5": 1 / 7})
    return stats


def flat(stats: Stats) -> dict[str, Any]:
    """Everything in plain types, for comparison bit by bit."""
    return {
        "keys": (stats.model_digest, stats.data_digest, stats.samples),
        "sites": [
            {name: (site.signal, site.noise) for name, site in stats.errors(half).items()}
            for half in (None, *HALVES)
        ],
        "tensors": {name: _flat_tensor(tensor) for name, tensor in stats.tensors.items()},
    }


def _flat_tensor(tensor: TensorStats) -> dict[str, Any]:
    histogram = tensor.histogram
    return {
        "scalars": (tensor.elements, tensor.masked, tensor.nan, tensor.lows, tensor.highs),
        "histogram": histogram
        and (
            [part.tolist() for part in (histogram.bins().low, histogram.bins().high)],
            histogram.bins().count.tolist(),
            (histogram.minimum, histogram.maximum),
        ),
        "channels": {axis: _flat_channels(c) for axis, c in tensor.channels.items()},
        "halves": {
            axis: {half: _flat_channels(c) for half, c in halves.items()}
            for axis, halves in tensor.halves.items()
        },
    }


def _flat_channels(channel: ChannelStats) -> tuple[Any, ...]:
    arrays = (channel.low, channel.high, channel.magnitude)
    return (*(array.tolist() for array in arrays), channel.rows)


def test_what_is_saved_comes_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "model.stats"
    save_stats(filled(), path)
    assert flat(load_stats(path)) == flat(filled())
    assert [entry.name for entry in path.parent.iterdir()] == ["model.stats"]


def test_nothing_observed_comes_back_too(tmp_path: Path) -> None:
    path = tmp_path / "s"
    stats = Stats("m", "d", 2, {"t": TensorStats(histogram=FloatHistogram())})
    save_stats(stats, path)
    assert flat(load_stats(path)) == flat(stats)


def test_merging_after_loading_is_merging_before_saving(tmp_path: Path) -> None:
    save_stats(filled(0), tmp_path / "a")
    save_stats(filled(9), tmp_path / "b")
    loaded = load_stats(tmp_path / "a")
    loaded.merge(load_stats(tmp_path / "b"))
    direct = filled(0)
    direct.merge(filled(9))
    assert flat(loaded) == flat(direct)


def test_merging_adds_what_the_other_alone_has() -> None:
    first, second = filled(), Stats("sha256:m", "sha256:e", 1)
    second.tensors["new"] = TensorStats(2, [0.0], [1.0])
    second.sites = {"a/b": SiteError(0.4, {"minmax": 1e-9, "mse": 2.0})}
    first.merge(second)
    assert first.samples == 4
    assert first.tensors["new"].high == 1.0
    assert first.sites["a/b"].signal == pytest.approx(0.5)
    assert first.sites["a/b"].noise == {"minmax": 2e-9, "percentile 99.9": 3.5, "mse": 2.0}


def test_statistics_of_two_models_do_not_merge() -> None:
    with pytest.raises(PlanError, match="different models"):
        filled().merge(Stats("sha256:other", "sha256:d"))


def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    save_stats(filled(), path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        save_stats(filled(5), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kept", [0, 5, 40, 400, -1])
def test_a_cut_off_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "s"
    save_stats(filled(), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(PlanError, match="missing or damaged") as caught:
        load_stats(path)
    assert caught.value.where == str(path)
    assert caught.value.remedy


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(PlanError):
            load_stats(path)


def _rewritten(path: Path, old: str, new: str) -> None:
    """The same file with its description changed."""
    with safe_open(path, framework="numpy") as file:
        text = (file.metadata() or {})["onnxq"]
        arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    assert old in text
    changed = text.replace(old, new)
    json.loads(changed)
    save_file(arrays, path, metadata={"onnxq": changed})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"schema_version": 2', '"schema_version": 3'),
        ('"schema_version": 2, ', ""),
        ('"pages": [', '"pages": [512, '),
        ('"pages": [', '"pages": [100000, '),
        ('"pages": [', '"pages": ["a", '),
        ('"channels": {"-1": 12}', '"channels": 7'),
        ('"channels": {"-1": 12}', '"channels": {"-2": 12}'),
        ('"halves": {"-1": {"0": 7', '"halves": {"-2": {"0": 7'),
        ('"halves": {"-1": {"0": 7', '"halves": {"-1": {"0": [7]'),
        ('"halves": [{}, {', '"halves": [{'),
        ('"sites": {"a/b": {', '"sites": {"a/b": 3, "c": {'),
        ('"key": "0"', '"key": "7"'),
        ('"elements": 150', '"elements": "many"'),
    ],
)
def test_a_description_that_does_not_fit_is_refused(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "s"
    save_stats(filled(), path)
    _rewritten(path, old, new)
    with pytest.raises(PlanError):
        load_stats(path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    save_file({"a": np.zeros(2)}, tmp_path / "s")
    with pytest.raises(PlanError):
        load_stats(tmp_path / "s")
