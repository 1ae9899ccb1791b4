"""Ranges from a histogram: min-max, moving average, percentile, mean squared error, entropy.

Every function takes the occupied :class:`~onnxq.numerics.histogram.Bins` (or extrema) and returns
``(low, high)`` with ``low <= 0 <= high``. Values inside one bin count as evenly spread over it.

Mean squared error of a bin ``[a, b]`` under step ``s`` and representable range ``[L, H]`` is
``(G(b) - G(a)) / (b - a)`` with the antiderivative of the squared error::

    G(x) = s^3 (k/12 + r^3/3),  k = round(x/s), r = x/s - k      for L <= x <= H
    G(x) = G(H) + (x - H)^3 / 3                                  beyond, likewise below L

Sources: percentile and entropy after Migacz, "8-bit Inference with TensorRT", GTC 2017;
MSE after Banner et al., "Post training 4-bit quantization of convolutional networks", NeurIPS 2019
(ACIQ), here by exact search over the measured distribution rather than a fitted one. FP8 has
another grid and another search (:mod:`onnxq.numerics.float8`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxq.numerics import float8
from onnxq.numerics.affine import qparams_from_range
from onnxq.numerics.compiled import compiled
from onnxq.numerics.histogram import Bins

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxq.numerics.schemes import Scheme

Range = tuple[float, float]

_ENTROPY_BINS = 4096
_ENTROPY_STEPS = 64
_SHRINK_STEPS = 28
_FINE_WIDTHS = (0.15, 0.03)
_FINE_STEPS = 17


def minmax(low: float, high: float) -> Range:
    """The whole range, widened to include 0."""
    return min(low, 0.0), max(high, 0.0)


def moving_average(
    lows: NDArray[np.floating], highs: NDArray[np.floating], *, momentum: float = 0.9
) -> Range:
    """Exponential moving average of the extrema of each sample, in order.

    Args:
        lows: Least value of each sample, shape ``(samples,)``.
        highs: Greatest value of each sample, shape ``(samples,)``.
        momentum: How much of the running average is kept at each sample.

    Returns:
        The averages; ``(0, 0)`` without samples.
    """
    return minmax(_ema(lows, momentum), _ema(highs, momentum))


def percentile(bins: Bins, percent: float) -> Range:
    """The central ``percent`` of all values: ``(100 - percent) / 2`` is cut off each tail.

    Args:
        bins: The distribution.
        percent: In (50, 100]; 100 is min-max.
    """
    cumulative = np.concatenate([[0.0], np.cumsum(bins.count)])
    tail = (100.0 - percent) / 200.0 * cumulative[-1]
    low = _quantile(bins, cumulative, tail)
    high = _quantile(bins, cumulative, cumulative[-1] - tail)
    return minmax(low, high)


def mse(bins: Bins, scheme: Scheme) -> Range:
    """The range with the least mean squared quantization error.

    Both ends are shrunk together on a geometric grid, then each alone, twice (an outlier on one
    side must not cost the other side its values); then both and each on finer grids around the
    best. The whole range is always a candidate, so the result is never worse than min-max. Of FP8
    the whole range and wider ones, up to twice as wide, are all there are.
    """
    if scheme.floating:
        low, high = minmax(float(bins.low[0]), float(bins.high[-1]))
        return _least(bins, scheme, [(low * f, high * f) for f in float8.FACTORS.astype(float)])
    bins = _coarsened(bins, scheme)
    low, high = minmax(float(bins.low[0]), float(bins.high[-1]))
    one_sided = scheme.symmetric or low == 0 or high == 0
    alone = [] if one_sided else [(True, False), (False, True)]
    coarse = np.geomspace(1.0, 2.0**-8, _SHRINK_STEPS)
    best = _least(bins, scheme, [(low * f, high * f) for f in coarse])
    for moves_low, moves_high in alone * 2:
        shrunk = [
            (low * f if moves_low else best[0], high * f if moves_high else best[1]) for f in coarse
        ]
        best = _least(bins, scheme, [best, *shrunk])
    for width in _FINE_WIDTHS:
        fine = np.linspace(1 - width, 1 + width, _FINE_STEPS)
        for moves_low, moves_high in [(True, True), *alone]:
            near = [
                (
                    max(best[0] * f, low) if moves_low else best[0],
                    min(best[1] * f, high) if moves_high else best[1],
                )
                for f in fine
            ]
            best = _least(bins, scheme, [best, *near])
    return best


def entropy(bins: Bins, scheme: Scheme) -> Range:
    """The range whose quantized distribution has the least Kullback-Leibler divergence.

    For each candidate the distribution is laid on 4,096 equal bins *of the candidate's own range*
    (a fixed histogram loses its meaning as soon as one outlier stretches it), values outside are
    added to the outermost bins, and the quantized distribution spreads each level's mass evenly
    over the level's occupied bins. With a level for each bin or more (13 bits and up) nothing is
    lost inside a range, so that the whole range is the best one.
    """
    bins = _coarsened(bins, scheme)
    low, high = minmax(float(bins.low[0]), float(bins.high[-1]))
    if low == high:
        return low, high
    levels = scheme.qmax - scheme.qmin + 1
    factors = np.geomspace(1.0, 2.0**-6, _ENTROPY_STEPS)
    divergence = [
        _divergence(bins.low, bins.high, bins.count, low * f, high * f, levels) for f in factors
    ]
    factor = factors[int(np.argmin(divergence))]
    return float(low * factor), float(high * factor)


def mean_squared_error(bins: Bins, low: float, high: float, scheme: Scheme) -> float:
    """Mean squared error of quantizing the distribution with the range ``[low, high]``."""
    params = qparams_from_range(low, high, scheme)
    if scheme.floating:
        return float8.mean_squared_error(bins, float(params.scale))
    bottom, top = params.representable
    total = _squared_error(
        bins.low, bins.high, bins.count, float(params.scale), float(bottom), float(top)
    )
    return float(total) / float(bins.count.sum())


def _coarsened(bins: Bins, scheme: Scheme) -> Bins:
    """The same distribution without bins that are far narrower than any step worth trying.

    Bins are merged up to a 32nd of the step that the central 99.9 % would have. The searches go
    through all bins for each candidate, and most bins lie in the octaves next to 0.
    """
    low, high = percentile(bins, 99.9)
    width = (high - low) / (32 * (scheme.qmax - scheme.qmin))
    if width <= 0:
        return bins
    group = np.floor(bins.centre / width)
    group[bins.high - bins.low > width] += 0.5  # a wide bin is no neighbour's companion
    first = np.flatnonzero(np.diff(group, prepend=-np.inf))
    last = np.append(first[1:], group.size) - 1
    return Bins(bins.low[first], bins.high[last], np.add.reduceat(bins.count, first))


def _least(bins: Bins, scheme: Scheme, candidates: list[Range]) -> Range:
    errors = [mean_squared_error(bins, low, high, scheme) for low, high in candidates]
    low, high = candidates[int(np.argmin(errors))]
    return float(low), float(high)


def _ema(values: NDArray[np.floating], momentum: float) -> float:
    if len(values) == 0:
        return 0.0
    age = np.arange(len(values))[::-1]
    weights = (1 - momentum) * momentum**age
    weights[0] = momentum ** (len(values) - 1)
    return float(weights @ np.asarray(values, np.float64))


def _quantile(bins: Bins, cumulative: NDArray[np.float64], rank: float) -> float:
    index = int(np.searchsorted(cumulative, rank, side="right")) - 1
    index = min(max(index, 0), bins.count.size - 1)
    inside = (rank - cumulative[index]) / bins.count[index]
    return float(bins.low[index] + min(inside, 1.0) * (bins.high[index] - bins.low[index]))


@compiled
def _integral(x: float, step: float, bottom: float, top: float) -> float:
    clipped = min(max(x, bottom), top)
    k = np.rint(clipped / step)
    r = clipped / step - k
    beyond = x - clipped
    return float(step**3 * (k / 12.0 + r**3 / 3.0) + beyond**3 / 3.0)


@compiled
def _squared_error(
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    count: NDArray[np.float64],
    step: float,
    bottom: float,
    top: float,
) -> float:
    total = 0.0
    for i in range(low.size):
        a, b = low[i], high[i]
        if b - a > 1e-9 * max(abs(a), abs(b)):
            spread = _integral(b, step, bottom, top) - _integral(a, step, bottom, top)
            total += count[i] * spread / (b - a)
        else:
            clipped = min(max(a, bottom), top)
            total += count[i] * (a - np.rint(clipped / step) * step) ** 2
    return total


@compiled
def _divergence(
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    count: NDArray[np.float64],
    bottom: float,
    top: float,
    levels: int,
) -> float:
    """KL(P || Q) of one candidate range, in nats."""
    inside, outside = _lay_out(low, high, count, bottom, top)
    reference = inside.copy()
    reference[0] += outside[0]
    reference[-1] += outside[1]
    level_of = np.minimum(np.arange(_ENTROPY_BINS) * levels // _ENTROPY_BINS, levels - 1)
    mass = np.zeros(levels)
    occupied = np.zeros(levels)
    for j in range(_ENTROPY_BINS):
        if reference[j] > 0.0:
            mass[level_of[j]] += inside[j]
            occupied[level_of[j]] += 1.0
    total_p = reference.sum()
    total_q = inside.sum()
    if total_q <= 0.0:
        return np.inf
    divergence = 0.0
    for j in range(_ENTROPY_BINS):
        p = reference[j] / total_p
        if p > 0.0:
            q = mass[level_of[j]] / occupied[level_of[j]] / total_q
            divergence += p * np.log(p / max(q, 1e-12))
    return divergence


@compiled
def _lay_out(
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    count: NDArray[np.float64],
    bottom: float,
    top: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The distribution on equal bins of ``[bottom, top]``, and the counts below and above."""
    width = (top - bottom) / _ENTROPY_BINS
    inside = np.zeros(_ENTROPY_BINS)
    outside = np.zeros(2)
    for i in range(low.size):
        a = (low[i] - bottom) / width
        b = (high[i] - bottom) / width
        if b <= a:  # a single value
            if a < 0.0:
                outside[0] += count[i]
            elif a > _ENTROPY_BINS:
                outside[1] += count[i]
            else:
                inside[min(int(a), _ENTROPY_BINS - 1)] += count[i]
            continue
        density = count[i] / (b - a)
        outside[0] += density * max(min(b, 0.0) - a, 0.0)
        outside[1] += density * max(b - max(a, float(_ENTROPY_BINS)), 0.0)
        first = max(int(np.floor(a)), 0)
        last = min(int(np.floor(b)), _ENTROPY_BINS - 1)
        for j in range(first, last + 1):
            inside[j] += density * max(min(b, j + 1.0) - max(a, float(j)), 0.0)
    return inside, outside
