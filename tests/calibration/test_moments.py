"""Gram matrices of a real run against numpy: which tokens count, and which are held out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from onnxq.calibration.collect import collect, unknown
from onnxq.calibration.requests import Moments
from onnxq.calibration.stats import Stats, load_stats, save_stats
from tests.small_models import normalized, source

if TYPE_CHECKING:
    from pathlib import Path


GRAPH = """g (float[b, s, 3] x, int64[b, s] attention_mask)
    => (float[b, s, 3] y, int64[b, s] seen) {
    hidden = Add(x, x)
    y = Relu(hidden)
    seen = Identity(attention_mask)
}"""


def samples(count: int, *, masked: bool) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(count)
    found: list[dict[str, np.ndarray]] = []
    for _ in range(count):
        mask = np.ones((2, 10), np.int64)
        if masked:
            mask[1, 6:] = 0
        x = random.normal(size=(2, 10, 3)).astype(np.float32)
        found.append({"x": x, "attention_mask": mask})
    return found


@pytest.mark.parametrize("count", [1, 3, 5, 11])
@pytest.mark.parametrize("masked", [False, True])
def test_every_token_counts_once_but_padding(count: int, *, masked: bool) -> None:
    model = normalized(GRAPH)
    feeds = samples(count, masked=masked)
    data = source(model, feeds)
    stats = collect(model, [Moments("hidden")], data, Stats("m", "d"))
    moments = stats.tensors["hidden"].moments[None]
    rows = [2 * f["x"][f["attention_mask"].astype(bool)] for f in feeds]
    if count >= 5:
        held = rows[4::5]
        fitted = [r for i, r in enumerate(rows) if i % 5 != 4]
    else:
        held = [r[len(r) - len(r) // 5 :] for r in rows]
        fitted = [r[: len(r) - len(r) // 5] for r in rows]
    for part, wanted in ((moments.fitted, fitted), (moments.held_out, held)):
        every = np.concatenate(wanted).astype(np.float64)
        assert part.tokens == len(every)
        np.testing.assert_allclose(part.take(), every.T @ every, rtol=1e-5, atol=1e-5)
    every = np.concatenate(rows)
    np.testing.assert_allclose(moments.magnitude, np.abs(every).mean(axis=0), rtol=1e-5)


def test_they_are_known_in_memory_and_left_out_of_the_file(tmp_path: Path) -> None:
    model = normalized(GRAPH)
    data = source(model, samples(2, masked=False))
    stats = collect(model, [Moments("hidden")], data, Stats("m", "d"))
    assert unknown([Moments("hidden")], stats) == []
    save_stats(stats, tmp_path / "stats")
    assert unknown([Moments("hidden")], load_stats(tmp_path / "stats")) == [Moments("hidden")]
