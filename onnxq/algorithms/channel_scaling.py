"""Channel scaling: make the channels of an activation alike, so that one scale serves them all.

For the MatMul and Gemm sites that read one activation ``x`` jointly::

    x W = (x / t) (t W),    t_c = max|x_c|^a / max|w_c|^(1 - a),  normalized to geometric mean 1

with the exponent ``a`` chosen for each activation by the error of its sites' outputs on calibration
data, activation and weight both quantized. Not scaling at all is always a candidate. Candidates are
fitted to one half of the samples and judged on the other, both ways round: all scaled channels
reach the end of the range, each at the greatest value that was *seen* of it, and after few rows
many channels exceed that in new samples and are clipped, which no sample that the factors were
fitted to can show. Not scaling is given the range of all samples: one range of all channels hardly
depends on which were seen, and half of few rows would make scaling look better than it is. The
exponent that was chosen is then fitted to all samples.

The division is folded into constants in front (:mod:`.scaling_groups`), unless it would change a
tensor on the way that is quantized itself. Else one Mul is inserted, which costs time, and so only
where it pays: it takes away a fifth of the sites' error, and a share of the error of all groups of
at least half its share of all groups' elements.

Source: Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large
Language Models", ICML 2023; the joint search after Lin et al. (AWQ), MLSys 2024.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from onnxq.algorithms.scaling_groups import GroupFinder
from onnxq.algorithms.weight_rounding import rounded_params
from onnxq.calibration.requests import HALVES, Channels, OutputError, QuantizedInput
from onnxq.graph.edit import constant_array
from onnxq.numerics.affine import qparams_from_range
from onnxq.numerics.classes import class_maximum
from onnxq.numerics.histogram import MASK_MAGNITUDE
from onnxq.numerics.schemes import PerAxis

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir
    from numpy.typing import NDArray

    from onnxq.algorithms.scaling_groups import ScalingGroup
    from onnxq.algorithms.selection import QuantizedTensor
    from onnxq.algorithms.static_int8 import Int8Config
    from onnxq.calibration.requests import Half
    from onnxq.calibration.stats import ChannelStats, Stats
    from onnxq.graph.sites import Site
    from onnxq.numerics.schemes import QParams, Scheme
    from onnxq.plan import ScalingEntry

EXPONENTS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Exponents tried beside not scaling."""

_WORTH_A_MUL = 0.2
_SINGLE_SAMPLE = (
    "channels were not scaled: factors are judged on samples that they were not fitted to, and "
    "there is a single one; give more"
)
_TINY = 1e-30
_SCALED_OPS = ("MatMul", "Gemm")


@dataclass(frozen=True, slots=True)
class Group:
    """The sites that read one activation, and nobody else of the quantized readers.

    Attributes:
        tensor: The activation.
        sites: They all are MatMul or Gemm, and their weights are read by them alone.
        scaling: What they read and where the division goes.
        label: Tells its sites from those of another group on the same activation.
    """

    tensor: QuantizedTensor
    sites: tuple[Site, ...]
    scaling: ScalingGroup
    label: str


@dataclass(frozen=True, slots=True)
class Scalings:
    """What was chosen.

    Attributes:
        entries: Those of a plan.
        arrays: The plan's arrays beside them.
        warnings: Why nothing was chosen where that has to do with the data.
    """

    entries: tuple[ScalingEntry, ...] = ()
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class ChannelScaling:
    """The choice of factors for every activation that can be scaled."""

    def __init__(self, model: ir.Model, config: Int8Config) -> None:
        """Find the groups."""
        self.config = config
        self.finder = GroupFinder(model)
        self.quantized = {tensor.name for tensor in config.selection.tensors}
        self.sites = {site.name: site for site in config.selection.chosen}
        self._weight_peaks: dict[str, NDArray[np.float64]] = {}
        groups = (self._group(tensor) for tensor in config.selection.tensors)
        self.groups = tuple(group for group in groups if group is not None)

    def requests(self) -> list[Channels]:
        """The extrema of each channel."""
        return [Channels(group.tensor.name, -1) for group in self.groups]

    def error_requests(self, stats: Stats) -> list[OutputError]:
        """The output error of each site under each exponent, and without scaling.

        On each half of the samples, scaled as fitted to the other.
        """
        return [
            request
            for group in self.groups
            if _usable(group, stats)
            for half in HALVES
            for exponent in (None, *EXPONENTS)
            for request in self._error_requests(group, exponent, stats, half)
        ]

    def choose(self, stats: Stats) -> Scalings:
        """The factors that pay, as a plan holds them."""
        usable = [group for group in self.groups if _usable(group, stats)]
        before = {g.tensor.name: self._error(g, None, stats) for g in usable}
        elements = {g.tensor.name: _elements(g, stats) for g in usable}
        all_elements, all_error = max(sum(elements.values()), 1), sum(before.values())
        entries: list[ScalingEntry] = []
        arrays: dict[str, np.ndarray] = {}
        for group in usable:
            name = group.tensor.name
            errors = {exponent: self._error(group, exponent, stats) for exponent in EXPONENTS}
            best = min(EXPONENTS, key=lambda exponent: errors[exponent])
            gain = before[name] - errors[best]
            share = elements[name] / all_elements
            pays = gain >= max(_WORTH_A_MUL * before[name], share / 2 * all_error)
            if gain > 0 and (group.scaling.fold.parameters or pays):
                entries.append(group.scaling.entry())
                channels = stats.tensors[name].channels[-1]
                arrays |= group.scaling.arrays(self._factor(group, best, channels))
        # All groups are seen in the same samples.
        unjudged = any(not _judged(group, stats) for group in self.groups)
        return Scalings(tuple(entries), arrays, (_SINGLE_SAMPLE,) if unjudged else ())

    def _group(self, tensor: QuantizedTensor) -> Group | None:
        readers = [self.sites.get(node) for node, _ in tensor.readers]
        sites = tuple(site for site in readers if site is not None)
        names = {site.name for site in sites}
        # Sites of one weight share its readers.
        weights = {site.weight: site.readers for site in sites}
        alone = all(names.issuperset(readers) for readers in weights.values())
        scaled = all(site.op in _SCALED_OPS for site in sites)
        integer = tensor.name in self.config.selection.made
        if not sites or len(sites) < len(readers) or not (alone and scaled) or integer:
            return None
        members = hashlib.sha256("\0".join(site.name for site in sites).encode()).hexdigest()
        label = f"among {len(sites)} sites {members[:16]}"
        scaling = self.finder.group(sites)
        if self._disturbs(scaling):
            scaling = scaling.unfolded("what is quantized on the way would change")
        return Group(tensor, sites, scaling, label)

    def _disturbs(self, scaling: ScalingGroup) -> bool:
        """Whether folding makes channels unequal that share one scale."""
        if self.quantized.intersection(scaling.fold.between):
            return True
        folded = {self.sites.get(parameter.node) for parameter in scaling.fold.parameters}
        granularities = [
            self.config.weight_scheme_for(site).granularity for site in folded if site is not None
        ]
        return any(not isinstance(granularity, PerAxis) for granularity in granularities)

    def _error_requests(
        self, group: Group, exponent: float | None, stats: Stats, half: Half
    ) -> list[OutputError]:
        seen = stats.tensors[group.tensor.name]
        channels = seen.channels[-1] if exponent is None else seen.halves[-1][_other(half)]
        factor = self._factor(group, exponent, channels)
        inverse = np.reciprocal(factor)
        params = None
        if self.config.ranges == "calibrated":
            low, high = (channels.low / factor).min(), (channels.high / factor).max()
            scheme = self.config.scheme_for(group.tensor)
            params = qparams_from_range(min(float(low), 0.0), max(float(high), 0.0), scheme)
        labels = self._labels(group, exponent)
        # Searched once for all sites of a weight, which then is in the probe once, too.
        rounded: dict[tuple[str, Scheme], QParams] = {}
        requests = []
        for site in group.sites:
            name, scheme = site.weight or "", self.config.weight_scheme_for(site)
            column = factor.reshape((-1, 1) if _input_axis(site) == 0 else (1, -1))
            if (name, scheme) not in rounded:
                rounded[name, scheme] = rounded_params(self._weight(site) * column, scheme)
            index = self._index(site, group.tensor.name)
            activation = QuantizedInput(index, group.tensor.name, params, inverse)
            weight = QuantizedInput(self._index(site, name), name, rounded[name, scheme], column)
            label = labels[site.name]
            requests.append(OutputError(site.name, activation, weight, label, half))
        return requests

    def _labels(self, group: Group, exponent: float | None) -> dict[str, str]:
        """What was measured of each site: under other integers or beside others it is another."""
        integers = f"{self.config.scheme_for(group.tensor).label} {self.config.ranges}"
        scaled = "unscaled, all seen" if exponent is None else f"scaled {exponent:g}"
        labels = {}
        for site in group.sites:
            weight = self.config.weight_scheme_for(site)
            granularity = type(weight.granularity).__name__
            weights = f"{weight.label} {granularity}"
            labels[site.name] = f"{scaled}, {integers}, {weights}, {group.label}"
        return labels

    def _error(self, group: Group, exponent: float | None, stats: Stats) -> float:
        """Sum over the sites of the error relative to the site's signal."""
        labels = self._labels(group, exponent)
        total = 0.0
        for site in group.sites:
            halves = [stats.halves[half][site.name] for half in HALVES]
            signal = sum(found.signal for found in halves)
            noise = sum(found.noise[labels[site.name]] for found in halves)
            total += noise / signal if signal > 0 else 0.0
        return total

    def _factor(
        self, group: Group, exponent: float | None, channels: ChannelStats
    ) -> NDArray[np.float32]:
        peaks = np.maximum(np.abs(channels.low), np.abs(channels.high)).astype(np.float64)
        if exponent is None:
            return np.ones(peaks.size, np.float32)
        # Channels that have to be divided by the same have their peaks in common.
        classes = group.scaling.fold.classes
        peaks, weights = class_maximum(peaks, classes), class_maximum(self._peaks(group), classes)
        ratio = peaks**exponent / np.maximum(weights, _TINY) ** (1 - exponent)
        # A channel that is always zero, or that no weight reads, has nothing to even out.
        usable = (peaks > 0) & (weights > 0)
        if not usable.any():
            return np.ones(peaks.size, np.float32)
        mean = np.exp(np.mean(np.log(ratio[usable])))
        return np.where(usable, np.clip(ratio / mean, 1e-3, 1e3), 1.0).astype(np.float32)

    def _peaks(self, group: Group) -> NDArray[np.float64]:
        """The greatest magnitude of each input channel in all weights, looked up once a group."""
        name = group.tensor.name
        if name not in self._weight_peaks:
            one_a_weight = {site.weight: site for site in group.sites}.values()
            self._weight_peaks[name] = np.max(list(map(self._input_peaks, one_a_weight)), axis=0)
        return self._weight_peaks[name]

    def _input_peaks(self, site: Site) -> NDArray[np.float64]:
        peaks: NDArray[np.float64] = np.abs(self._weight(site)).max(axis=1 - _input_axis(site))
        return peaks

    def _weight(self, site: Site) -> NDArray[np.float32]:
        return np.asarray(constant_array(self.finder.values[site.weight or ""]), np.float32)

    def _index(self, site: Site, value: str) -> int:
        return self.finder.nodes[site.name].inputs.index(self.finder.values[value])


def _elements(group: Group, stats: Stats) -> int:
    """Elements of the activation over all samples: what a Mul would have to go through."""
    channels = stats.tensors[group.tensor.name].channels[-1]
    return channels.rows * int(channels.low.size)


def _other(half: Half) -> Half:
    return 1 if half == 0 else 0


def _usable(group: Group, stats: Stats) -> bool:
    """Whether candidates can be judged, and extrema are ordinary numbers: no NaN, Inf or mask."""
    channels = stats.tensors[group.tensor.name].channels[-1]
    peaks = np.maximum(np.abs(channels.low), np.abs(channels.high))
    return _judged(group, stats) and bool(np.all(peaks < MASK_MAGNITUDE))


def _judged(group: Group, stats: Stats) -> bool:
    """Whether both halves of the samples are known."""
    return len(stats.tensors[group.tensor.name].halves.get(-1, {})) == len(HALVES)


def _input_axis(site: Site) -> int:
    return 1 - (site.weight_axis or 0)
