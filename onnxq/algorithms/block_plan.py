"""The part of a plan that stores weights in blocks: what is quantized jointly, and what came of it.

Products and convolutions of the main graph that read one activation are quantized together, on its
statistics; convolutions through different windows apart. What no statistics fit is quantized by its
weights alone: products inside of subgraphs, weights on the left, of experts, of Conv of several
groups. Where a member of a group stays float, none of them is scaled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from onnxq.algorithms.block_algorithm import ALGORITHMS, AUTO, WITHOUT_DATA, ranges_of
from onnxq.algorithms.block_candidates import BlockResult, WeightTask
from onnxq.algorithms.block_group import GroupTask
from onnxq.algorithms.block_space import MOST_GRAMS
from onnxq.algorithms.scaling_groups import scaling_groups
from onnxq.algorithms.scaling_range import why_out_of_range
from onnxq.graph.conv_windows import window_of
from onnxq.graph.edit import all_nodes_by_name, constant_array, constant_tensor, value_by_name
from onnxq.numerics.schemes import PerBlock, Scheme
from onnxq.plan import BlockEntry, Reader

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from onnxq.algorithms.block_group import GroupResult
    from onnxq.algorithms.scaling_groups import ScalingGroup
    from onnxq.graph.sites import Site
    from onnxq.numerics.channel_major import ChannelMajor
    from onnxq.numerics.windows import Window
    from onnxq.plan import ScalingEntry

_WORTH_A_MUL = 0.1
"""The share of a group's error that scaling must take away where it costs a Mul."""


@dataclass(frozen=True, slots=True)
class BlockSpec:
    """How the weight of one site is to be stored.

    Attributes:
        bits: Width of the integers.
        block_size: Input channels that share a scale.
        symmetric: Whether zero points are fixed; None leaves it to the error.
        algorithm: Its name, or ``auto``.
        form: What is written.
        accuracy_level: How the kernel may compute.
    """

    bits: int
    block_size: int
    symmetric: bool | None
    algorithm: str
    form: Literal["kernel", "dq", "folded"] = "kernel"
    accuracy_level: int = 0

    @property
    def schemes(self) -> tuple[Scheme, ...]:
        """The integers to try."""
        blocks = PerBlock(self.block_size, 1)
        both = (False, True) if self.symmetric is None else (self.symmetric,)
        return tuple(Scheme(self.bits, symmetric=each, granularity=blocks) for each in both)

    def names(self, *, activations: bool) -> tuple[str, ...]:
        """The algorithms to try, with activations known or not."""
        wanted = AUTO if self.algorithm == "auto" else (self.algorithm,)
        if activations:
            return wanted
        usable = tuple(name for name in wanted if not ALGORITHMS[name].needs_activations)
        return usable or (WITHOUT_DATA,)


@dataclass(frozen=True, slots=True, eq=False)
class BlockGroup:
    """Sites that are quantized jointly.

    Attributes:
        sites: The sites; one only where ``tensor`` is empty.
        tensor: The activation that they read, on whose statistics they are quantized; empty where
            no statistics fit them.
        window: How convolutions read it; None where rows are multiplied.
        channels: How many channels the activation has.
        scaling: How it can be scaled; None where it cannot.
        reason: Why it is quantized without statistics, or is not scaled; empty if neither.
    """

    sites: tuple[Site, ...]
    tensor: str
    window: Window | None
    channels: int
    scaling: ScalingGroup | None
    reason: str

    @property
    def moment_bytes(self) -> int:
        """What its statistics take at the most: two Gram matrices."""
        return 2 * 4 * self.length**2 if self.tensor else 0

    @property
    def solving_bytes(self) -> int:
        """What is taken beside them, for a time, when it is solved."""
        return (MOST_GRAMS - 2) * 4 * self.length**2 if self.tensor else 0

    @property
    def taps(self) -> int:
        """How many consecutive input channels of the weights read one channel of the tensor."""
        return 1 if self.window is None else self.window.taps

    @property
    def length(self) -> int:
        """How many input channels the weights have: K."""
        return self.channels * self.taps


class BlockPlanner:
    """Groups of one model's sites, and what a plan says of them."""

    def __init__(
        self, model: ir.Model, sites: Sequence[Site], specs: Mapping[str, BlockSpec]
    ) -> None:
        """Index the model.

        Args:
            model: A normalized model.
            sites: All of its sites.
            specs: How each site whose weight is to be stored in blocks is stored, by name.
        """
        self.model = model
        # Who shares a weight shares its integers.
        first = {
            site.weight: specs[site.name] for site in reversed(tuple(sites)) if site.name in specs
        }
        self.specs = {s.name: first[s.weight] for s in sites if s.name in specs}
        self._values, self._nodes = value_by_name(model.graph), all_nodes_by_name(model)
        self.groups = tuple(self._groups(sites))

    def _groups(self, sites: Sequence[Site]) -> Iterable[BlockGroup]:
        grouped: set[str] = set()
        for group in scaling_groups(self.model, sites):
            stored = [site for site in group.sites if site.name in self.specs]
            members = [site for site in stored if self._plain(site)]
            reason = group.reason
            if len(stored) < len(group.sites):
                reason = "another product that reads its activation stays float"
            elif len(members) < len(stored):
                reason = "of another product that reads its activation no statistics are collected"
            windows: dict[Window | None, list[Site]] = {}
            for site in members:
                windows.setdefault(self._window(site), []).append(site)
            if len(windows) > 1:
                reason = "convolutions read its activation through different windows"
            grouped.update(site.name for site in members)
            for window, own in windows.items():
                scaling = None if reason else group
                yield BlockGroup(tuple(own), group.tensor, window, group.channels, scaling, reason)
        for site in sites:
            if site.name in self.specs and site.name not in grouped:
                where = f" in {site.place}" if site.place else ""
                reason = f"no statistics are collected for this {site.op}{where}"
                yield BlockGroup((site,), "", None, 0, None, reason)

    def _plain(self, site: Site) -> bool:
        """Whether it multiplies rows or patches of its activation by a matrix."""
        return site.op in {"Conv", "Gemm", "MatMul"} and not site.weight_only

    def _window(self, site: Site) -> Window | None:
        if site.op != "Conv":
            return None
        return window_of(self._nodes[site.name], self.layout(site).shape[2:])

    def wants_activations(self, group: BlockGroup) -> bool:
        """Whether an algorithm that works on calibration data only is to be tried."""
        specs = [self.specs[site.name] for site in group.sites]
        names = {name for spec in specs for name in spec.names(activations=True)}
        return any(ALGORITHMS[name].needs_activations for name in names)

    def task(self, group: BlockGroup) -> GroupTask:
        """What is wanted of a group with an activation."""
        weights = {}
        for site in group.sites:
            spec = self.specs[site.name]
            algorithms = tuple(ALGORITHMS[name] for name in spec.names(activations=True))
            weights[site.weight or ""] = WeightTask(self.matrix(site), algorithms, spec.schemes)
        if group.scaling is None:
            return GroupTask(weights)
        scaling, taps = group.scaling, group.taps
        return GroupTask(
            weights,
            np.repeat(scaling.fold.classes, taps),
            least_gain=0.0 if scaling.fold.parameters else _WORTH_A_MUL,
            why_not=lambda factor: why_out_of_range(scaling, factor[::taps], self.model),
        )

    def by_weight_alone(self, group: BlockGroup) -> dict[str, BlockResult]:
        """What becomes of a group without statistics, by weight."""
        return {site.weight or "": self._by_weight_alone(site) for site in group.sites}

    def _by_weight_alone(self, site: Site) -> BlockResult:
        spec = self.specs[site.name]
        name, scheme = spec.names(activations=False)[0], spec.schemes[0]
        params = ranges_of(self.matrix(site), None, ALGORITHMS[name].ranges, scheme)
        return BlockResult(f"{name}, {scheme.label}", params, None)

    def matrix(self, site: Site) -> NDArray[np.float32]:
        """The weight as ``[N, K]``."""
        weight = np.asarray(constant_array(self._values[site.weight or ""]), np.float32)
        return np.ascontiguousarray(self.layout(site).matrix(weight))

    def layout(self, site: Site) -> ChannelMajor:
        """The way from a site's weight to ``[N, K]``."""
        value = self._values[site.weight or ""]
        tensor = constant_tensor(value)
        shape = () if tensor is None else tuple(tensor.shape.numpy())
        return self._entry(site, value).layout(shape)

    def scalings(
        self, results: Mapping[BlockGroup, GroupResult]
    ) -> tuple[tuple[ScalingEntry, ...], dict[str, np.ndarray]]:
        """The entries of a plan that scale channels, and their arrays."""
        entries: list[ScalingEntry] = []
        arrays: dict[str, np.ndarray] = {}
        for group, result in results.items():
            if group.scaling is not None and result.factor is not None:
                entries.append(group.scaling.entry())
                arrays |= group.scaling.arrays(result.factor[:: group.taps])
        return tuple(entries), arrays

    def blocks(
        self,
        results: Mapping[str, BlockResult],
        scaled: ir.Model,
        divisors: Mapping[Reader, NDArray[np.float32]],
    ) -> tuple[tuple[BlockEntry, ...], dict[str, np.ndarray]]:
        """The entries of a plan that store weights in blocks, and their arrays.

        Args:
            results: What became of each weight, by its name in this model.
            scaled: The model with its channels scaled: nodes keep their names, weights do not.
            divisors: What the rows of a weight were divided by for the activation behind it.
        """
        nodes = all_nodes_by_name(scaled)
        entries = []
        arrays: dict[str, np.ndarray] = {}
        for group in self.groups:
            for site in group.sites:
                result = results[site.weight or ""]
                place = self._place(site)
                value = nodes[site.name].inputs[place]
                if value is None:
                    continue
                entry = self._entry(site, value, symmetric=result.params.scheme.symmetric)
                entries.append(entry)
                divisor = divisors.get(Reader(node=site.name, input=place))
                if divisor is not None:
                    divisor = self.layout(site).by_row(divisor, entry.axis)
                arrays |= _arrays(entry.initializer, result, divisor)
        return tuple(entries), arrays

    def _entry(self, site: Site, value: ir.Value, *, symmetric: bool = False) -> BlockEntry:
        spec, place = self.specs[site.name], self._place(site)
        return BlockEntry(
            node=site.name,
            activation=1 - place,
            weight=place,
            initializer=value.name or "",
            bits=spec.bits,
            symmetric=symmetric,
            axis=site.weight_axis or 0,
            sums=tuple(sorted(site.sums)) if site.weight_only else (),
            block_size=spec.block_size,
            accuracy_level=spec.accuracy_level,
            form=spec.form,
        )

    def _place(self, site: Site) -> int:
        return self._nodes[site.name].inputs.index(self._values[site.weight or ""])


def row_divisors(
    entries: Iterable[ScalingEntry], arrays: Mapping[str, np.ndarray]
) -> dict[Reader, NDArray[np.float32]]:
    """What output channels of weights are divided by, because the activation behind them is scaled.

    Args:
        entries: How channels are scaled.
        arrays: The factors.
    """
    found: dict[Reader, NDArray[np.float32]] = {}
    for entry in entries:
        for fold in entry.folds:
            reader = Reader(node=fold.node, input=fold.input)
            found[reader] = found.get(reader, np.float32(1)) * entry.divisor(fold, arrays)
    return found


def _arrays(
    name: str, result: BlockResult, divisor: NDArray[np.float32] | None
) -> dict[str, np.ndarray]:
    """Of one weight. Rows that are divided keep their integers: their scales are divided."""
    params, key = result.params, f"block/{name}"
    scale = params.scale if divisor is None else params.scale / divisor[:, np.newaxis]
    arrays: dict[str, np.ndarray] = {f"{key}/scale": np.asarray(scale, np.float32)}
    if not params.scheme.symmetric:
        arrays[f"{key}/zero_point"] = params.zero_point.astype(np.uint8)
    if result.packed is not None:
        arrays[f"{key}/packed"] = result.packed
    return arrays
