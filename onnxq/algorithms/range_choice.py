"""Range choice: which part of a tensor's values the integers cover.

Each method turns the statistics of one tensor into a range; ``auto`` makes every method's range a
candidate and takes the one with the least error of what reads the tensor: the output of the sites
that it feeds when that input alone is quantized, measured on the calibration data, or, where it
feeds no site, the tensor itself (from its histogram). Errors of single sites are a proxy, so this
choice then competes with each method used everywhere (:func:`uniform`) by the error of the whole
quantized model's output, again on calibration data: ``auto`` is never worse there than any of them.

In FP8 ``auto`` has two candidates, min-max and the least mean squared error, which is no narrower:
what is cut off makes nothing else finer (:mod:`onnxq.numerics.float8`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from onnxq.calibration.requests import (
    Distribution,
    Extrema,
    OutputError,
    QuantizedInput,
    Request,
)
from onnxq.numerics import ranges
from onnxq.numerics.affine import qparams_from_range

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnxq.calibration.stats import SiteError, TensorStats
    from onnxq.numerics.ranges import Range
    from onnxq.numerics.schemes import QParams, Scheme

Method = Literal["minmax", "moving-average", "percentile", "entropy", "mse", "auto"]

DEFAULT_PERCENTILE = 99.999

_AUTO_PERCENTILES = (99.9, 99.99, 99.999)

_WIDE = 32.0
"""A range this many times wider than the central 99.9 % is worth a warning."""

_SAME = 1e-3
"""Candidates whose bounds differ by less, relative to the range, are one."""


@dataclass(frozen=True, eq=False, slots=True)
class Candidate:
    """One possible range of a tensor.

    Attributes:
        label: The method, with its parameter, e.g. ``percentile 99.99``.
        low: Lower end.
        high: Upper end.
        params: What the range gives under the scheme.
        methods: Every method that gave this range, or one that differs by nothing that matters.
    """

    label: str
    low: float
    high: float
    params: QParams
    methods: tuple[str, ...]


def request(tensor: str, method: Method) -> Request:
    """What must be observed of ``tensor`` for ``method``."""
    if method in ("minmax", "moving-average"):
        return Extrema(tensor)
    return Distribution(tensor)


def candidates(
    stats: TensorStats,
    scheme: Scheme,
    method: Method,
    percent: float = DEFAULT_PERCENTILE,
) -> tuple[Candidate, ...]:
    """The ranges that ``method`` allows: one, or several different ones for ``auto``.

    Args:
        stats: What was observed of the tensor.
        scheme: The activation's integers.
        method: How to choose.
        percent: For the percentile method.
    """
    if method != "auto":
        return (_candidate(method, stats, scheme, percent),)
    labels: list[tuple[Method, float]] = [("minmax", 0.0), ("mse", 0.0)]
    if not scheme.floating:
        labels.append(("entropy", 0.0))
        labels += [("percentile", p) for p in _AUTO_PERCENTILES]
        labels.append(("moving-average", 0.0))
    different: list[Candidate] = []
    for name, p in labels:
        new = _candidate(name, stats, scheme, p)
        same = next((place for place, old in enumerate(different) if _same(new, old)), None)
        if same is None:
            different.append(new)
        else:
            old = different[same]
            different[same] = replace(old, methods=(*old.methods, new.label))
    return tuple(different)


def error_requests(
    site: str, index: int, tensor: str, options: Sequence[Candidate]
) -> list[OutputError]:
    """Ask for the output error of ``site`` when its input ``index`` alone is quantized."""
    return [
        OutputError(
            site, QuantizedInput(index, tensor, option.params), None, error_label(index, option)
        )
        for option in options
    ]


def choose(
    options: Sequence[Candidate],
    stats: TensorStats,
    sites: Mapping[str, tuple[int, SiteError]],
) -> Candidate:
    """The candidate with the least error, summed over the sites relative to each site's signal.

    Args:
        options: The candidates.
        stats: What was observed of the tensor.
        sites: For each site that reads it, the input index and the measured errors.
    """
    if len(options) == 1:
        return options[0]
    if sites:
        errors = [
            sum(_relative(error, error_label(index, option)) for index, error in sites.values())
            for option in options
        ]
    else:
        errors = [_own_error(option, stats) for option in options]
    return options[int(np.argmin(np.nan_to_num(errors, nan=np.inf)))]


def uniform(
    candidates: Mapping[str, Sequence[Candidate]],
) -> dict[str, dict[str, Candidate]]:
    """Each method used for every tensor that has the choice: by method, the range of each tensor.

    A tensor without that method, because a rule gives it another one, keeps its only candidate.
    """
    methods = dict.fromkeys(
        method for options in candidates.values() for o in options for method in o.methods
    )
    return {
        method: {
            name: next((o for o in options if method in o.methods), options[0])
            for name, options in candidates.items()
        }
        for method in methods
    }


def warning(tensor: str, stats: TensorStats, chosen: Candidate) -> str | None:
    """A sentence where masks were left out or few values stretch the chosen range, else None."""
    if stats.masked:
        return (
            f"{tensor}: {stats.masked} of {stats.elements} values are infinite or mask constants; "
            "they are left out of the range and saturate"
        )
    if stats.histogram is None or stats.histogram.total == 0:
        return None
    low, high = ranges.percentile(stats.histogram.bins(), 99.9)
    if chosen.high - chosen.low <= _WIDE * (high - low) or high == low:
        return None
    return (
        f"{tensor}: a few outliers stretch the range to [{chosen.low:.4g}, {chosen.high:.4g}], "
        f"99.9 % of its values lie in [{low:.4g}, {high:.4g}]"
    )


def _candidate(method: Method, stats: TensorStats, scheme: Scheme, percent: float) -> Candidate:
    low, high = _range(method, stats, scheme, percent)
    label = f"percentile {percent:g}" if method == "percentile" else method
    return Candidate(label, low, high, qparams_from_range(low, high, scheme), (label,))


def _range(method: Method, stats: TensorStats, scheme: Scheme, percent: float) -> Range:
    if method == "moving-average":
        return ranges.moving_average(np.asarray(stats.lows), np.asarray(stats.highs))
    empty = stats.histogram is None or stats.histogram.total == 0
    if method == "minmax" or empty or stats.histogram is None:
        return ranges.minmax(stats.low, stats.high)
    bins = stats.histogram.bins()
    if method == "percentile":
        return ranges.percentile(bins, percent)
    if method == "entropy":
        return ranges.entropy(bins, scheme)
    return ranges.mse(bins, scheme)


def _same(a: Candidate, b: Candidate) -> bool:
    width = max(b.high - b.low, 1e-38)
    return abs(a.low - b.low) < _SAME * width and abs(a.high - b.high) < _SAME * width


def error_label(index: int, option: Candidate) -> str:
    """Names the error of a site's output when input ``index`` has this range."""
    params = option.params
    integers = f"{params.scheme.label} {float(params.scale):.9g} {int(params.zero_point)}"
    return f"input {index}, {integers}, {option.label}"


def _relative(error: SiteError, label: str) -> float:
    return error.noise[label] / error.signal if error.signal > 0 else 0.0


def _own_error(option: Candidate, stats: TensorStats) -> float:
    if stats.histogram is None or stats.histogram.total == 0:
        return 0.0
    bins = stats.histogram.bins()
    return ranges.mean_squared_error(bins, option.low, option.high, option.params.scheme)
