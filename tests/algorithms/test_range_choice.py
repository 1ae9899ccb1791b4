"""Methods and the choice among them; auto takes the one with the least output error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from onnxq.algorithms import range_choice
from onnxq.algorithms.range_choice import Candidate, candidates, choose, error_requests
from onnxq.calibration.collect import collect
from onnxq.calibration.requests import Distribution, Extrema
from onnxq.calibration.stats import SiteError, Stats, TensorStats
from onnxq.numerics.affine import fake_quantize
from onnxq.numerics.histogram import FloatHistogram
from onnxq.numerics.schemes import ACTIVATION_UINT8, FP8
from tests.small_models import Feeds, normal, normalized, source

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxq.algorithms.range_choice import Method


def observed(*samples: NDArray[Any]) -> TensorStats:
    stats = TensorStats(histogram=FloatHistogram())
    assert stats.histogram is not None
    for values in samples:
        seen = stats.histogram.add(values.astype(np.float32))
        stats.elements += values.size
        stats.lows.append(seen.low)
        stats.highs.append(seen.high)
        stats.masked += seen.masked
    return stats


def one(stats: TensorStats, method: Any, percent: float = 99.0) -> Candidate:
    (found,) = candidates(stats, ACTIVATION_UINT8, method, percent)
    return found


def test_extrema_are_enough_for_some_methods() -> None:
    few: list[Method] = ["minmax", "moving-average"]
    all_values: list[Method] = ["percentile", "entropy", "mse", "auto"]
    assert [range_choice.request("t", method) for method in few] == [Extrema("t")] * 2
    assert [range_choice.request("t", method) for method in all_values] == [Distribution("t")] * 4


def test_each_method_gives_its_range() -> None:
    values = np.linspace(-1, 3, 100_001)
    stats = observed(values, values * 2)
    assert (one(stats, "minmax").low, one(stats, "minmax").high) == (-2.0, 6.0)
    average = one(stats, "moving-average")
    assert (average.low, average.high) == pytest.approx((-1.1, 3.3))
    cut = one(stats, "percentile", 98.0)
    pooled = np.concatenate([values, values * 2])
    assert (cut.low, cut.high) == pytest.approx(np.percentile(pooled, [1, 99]), rel=1e-2)
    assert cut.label == "percentile 98"


@pytest.mark.parametrize("method", ["minmax", "moving-average", "percentile", "entropy", "mse"])
def test_a_tensor_without_ordinary_values_gets_a_range(method: str) -> None:
    stats = observed(np.full(10, -np.inf))
    stats.lows, stats.highs = [0.0], [0.0]
    found = one(stats, method)
    assert (found.low, found.high, float(found.params.scale)) == (0.0, 0.0, 1.0)


def test_auto_leaves_out_what_is_the_same() -> None:
    few = candidates(observed(np.ones(8)), ACTIVATION_UINT8, "auto")
    assert [candidate.label for candidate in few] == ["minmax"]
    many = candidates(observed(normal(0, 100_000)), ACTIVATION_UINT8, "auto")
    assert len(many) > 3
    assert many[0].label == "minmax"
    assert len({candidate.label for candidate in many}) == len(many)


GRAPH = "g (float[N, 32] x) => (float[N, 8] y) { y = MatMul(x, w) }"


def auto_choice(
    samples: list[Feeds], w: NDArray[np.float32]
) -> tuple[Candidate, tuple[Candidate, ...], dict[str, float]]:
    """What auto takes for ``x``, the candidates, and an independent measure of each one's error."""
    model = normalized(GRAPH, w=w)
    data = source(model, samples)
    stats = collect(model, [Distribution("x")], data, Stats("m", "d"))
    options = candidates(stats.tensors["x"], ACTIVATION_UINT8, "auto")
    (site,) = (node.name or "" for node in model.graph)
    collect(model, error_requests(site, 0, "x", options), data, stats)
    found = choose(options, stats.tensors["x"], {site: (0, stats.sites[site])})
    rows = np.concatenate([feeds["x"] for feeds in samples])
    errors = {
        option.label: float(
            np.square((fake_quantize(rows, option.params) - rows).astype(float) @ w).sum()
        )
        for option in options
    }
    return found, options, errors


def outlier_data() -> list[Feeds]:
    """Values around 1, and one of 1000."""
    samples: list[Feeds] = [{"x": normal(i, 50, 32)} for i in range(6)]
    samples[3]["x"][7, 5] = 1000
    return samples


def test_auto_cuts_nothing_off_in_float8() -> None:
    values = np.random.default_rng(0).normal(size=20_000)
    found = candidates(observed(np.append(values, 50.0)), FP8, "auto")
    assert {method for option in found for method in option.methods} == {"minmax", "mse"}
    for option in found:
        assert 50 * 0.999 <= max(-option.low, option.high) <= 100
    (cut,) = candidates(observed(np.append(values, 50.0)), FP8, "percentile", 99.9)
    assert max(-cut.low, cut.high) < 5


def test_auto_clips_an_outlier_that_does_not_matter() -> None:
    w = normal(9, 32, 8)
    w[5] = 0
    found, options, errors = auto_choice(outlier_data(), w)
    assert found.label != "minmax"
    assert found.high < 10
    assert errors[found.label] == pytest.approx(min(errors.values()), rel=1e-3)
    assert errors["minmax"] > 100 * errors[found.label]
    assert "minmax" in [option.label for option in options]


def test_auto_keeps_an_outlier_that_matters() -> None:
    """The tensor's own error would say clip: the output says no, its weight is a hundredfold."""
    w = normal(9, 32, 8)
    w[5] = 100
    found, _, errors = auto_choice(outlier_data(), w)
    assert found.label == "minmax"
    assert errors[found.label] == min(errors.values())


def test_without_sites_the_tensor_itself_decides() -> None:
    values = np.concatenate([normal(0, 100_000), [50.0]])
    stats = observed(values)
    options = candidates(stats, ACTIVATION_UINT8, "auto")
    found = choose(options, stats, {})
    errors = [np.square(fake_quantize(values, o.params) - values).sum() for o in options]
    best = options[int(np.argmin(errors))]
    assert errors[options.index(found)] <= 1.02 * errors[options.index(best)]


def test_an_error_that_is_not_a_number_is_never_the_least() -> None:
    stats = observed(np.concatenate([normal(0, 10_000), [50.0]]))
    options = candidates(stats, ACTIVATION_UINT8, "auto")[:2]
    labels = [request.label for request in error_requests("s", 0, "x", options)]
    error = SiteError(1.0, dict(zip(labels, (np.nan, 5.0), strict=True)))
    assert choose(options, stats, {"s": (0, error)}) is options[1]


def test_several_sites_count_relative_to_their_signal() -> None:
    stats = observed(np.concatenate([normal(0, 10_000), [50.0]]))
    options = candidates(stats, ACTIVATION_UINT8, "auto")[:2]
    labels = [request.label for request in error_requests("s", 0, "x", options)]
    loud = SiteError(1e6, dict(zip(labels, (100.0, 200.0), strict=True)))
    quiet = SiteError(1.0, dict(zip(labels, (0.2, 0.1), strict=True)))
    assert choose(options, stats, {"a": (0, loud)}) is options[0]
    assert choose(options, stats, {"a": (0, loud), "b": (0, quiet)}) is options[1]


def test_outliers_and_masks_are_not_silent() -> None:
    wide = observed(np.concatenate([normal(0, 100_000), [1000.0]]))
    text = range_choice.warning("t", wide, one(wide, "minmax"))
    assert text is not None
    assert "outliers stretch the range" in text
    assert range_choice.warning("t", wide, one(wide, "percentile", 99.0)) is None
    masked = observed(np.asarray([1.0, -np.inf, -3.4e38]))
    text = range_choice.warning("t", masked, one(masked, "minmax"))
    assert text is not None
    assert "2 of 3 values" in text
