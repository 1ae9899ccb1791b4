"""Which weights read one activation, so that they are scaled jointly, and where its division goes.

    x W = (x / t) (t W)

Found from the graph alone: all MatMul, Gemm and Conv (of one group) that read a value along the
same axis are one group. Its weights can be scaled if only the group reads them; the division then
goes into constants in front (``graph/channel_folds.py``), or into a Mul. A group that cannot be
scaled still says who reads an activation jointly.

Source: Lin et al., "AWQ: Activation-aware Weight Quantization", MLSys 2024; the groups of its
reference implementation are written down for each architecture.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from onnxq.graph.channel_folds import Fold, find_fold, why_shared
from onnxq.graph.edit import constant_tensor, node_by_name, value_by_name
from onnxq.plan import FoldedEntry, Reader, ScalingEntry

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from onnxq.graph.sites import Site


@dataclass(frozen=True, slots=True, eq=False)
class ScalingGroup:
    """The sites that read one activation along one axis.

    Attributes:
        tensor: The activation's name.
        axis: Its axis that counts channels, from the end.
        sites: The sites, in the order of the graph.
        channels: How many channels K there are.
        readers: The sites' activation inputs.
        weights: The sites' weight inputs.
        axes: The axis of each site's weight that counts input channels.
        reason: Why its weights cannot be scaled; empty if they can.
        fold: Where the division goes; without parameters a Mul is inserted.
    """

    tensor: str
    axis: int
    sites: tuple[Site, ...]
    channels: int
    readers: tuple[Reader, ...]
    weights: tuple[Reader, ...]
    axes: tuple[int, ...]
    reason: str
    fold: Fold

    def unfolded(self, reason: str) -> ScalingGroup:
        """The same group, whose division goes into a Mul."""
        return replace(self, fold=Fold((), np.arange(self.channels), reason=reason))

    def entry(self) -> ScalingEntry:
        """The entry of a plan that scales this group."""
        parameters = self.fold.parameters
        folds = (
            FoldedEntry(node=p.node, input=p.input, axis=p.axis, source=number)
            for p, (number, _) in zip(parameters, self._sources(), strict=True)
        )
        return ScalingEntry(
            tensor=self.tensor,
            axis=self.axis,
            folds=tuple(folds),
            between=self.fold.between,
            readers=self.readers,
            weights=self.weights,
            axes=self.axes,
        )

    def arrays(self, factor: NDArray[np.floating]) -> dict[str, np.ndarray]:
        """The arrays of a plan beside :meth:`entry`.

        Args:
            factor: ``[K]``, positive, equal for all channels of a class of the fold.
        """
        key = f"scaling/{self.tensor}"
        arrays: dict[str, np.ndarray] = {f"{key}/factor": np.asarray(factor, np.float32)}
        for number, source in self._sources():
            if number is not None:
                arrays[f"{key}/source/{number}"] = source
        return arrays

    def _sources(self) -> list[tuple[int | None, NDArray[np.int32]]]:
        """The channels of each parameter, and the number under which they are kept."""
        numbers: dict[bytes, int] = {}
        found: list[tuple[int | None, NDArray[np.int32]]] = []
        plain = np.arange(self.channels, dtype=np.int32)
        for parameter in self.fold.parameters:
            source = parameter.channels.astype(np.int32)
            own = np.array_equal(source, plain)
            number = None if own else numbers.setdefault(source.tobytes(), len(numbers))
            found.append((number, source))
        return found


def scaling_groups(model: ir.Model, sites: Iterable[Site]) -> tuple[ScalingGroup, ...]:
    """The groups among sites, in the order of the graph.

    Args:
        model: A normalized model.
        sites: All of its sites that may be scaled, those that stay float among them: a reader that
            is not scaled along keeps a division from being folded. Lookups, sites in subgraphs,
            Convs of several groups and those that are no candidates are passed over.
    """
    finder = GroupFinder(model)
    found: dict[tuple[str, int], list[Site]] = {}
    for site in sites:
        key = finder.activation(site)
        if key is not None:
            found.setdefault(key, []).append(site)
    return tuple(finder.group(members) for members in found.values())


class GroupFinder:
    """Makes groups of sites of one model.

    Build one and keep it: building it walks the model.
    """

    def __init__(self, model: ir.Model) -> None:
        """Index the main graph."""
        self.model = model
        self.values = value_by_name(model.graph)
        self.nodes = node_by_name(model.graph)

    def activation(self, site: Site) -> tuple[str, int] | None:
        """The activation that a site reads, with the axis of its channels counted from the end.

        None for what no group can hold.
        """
        node = self.nodes.get(site.name)
        name, weight = site.activation, self.values.get(site.weight or "")
        if node is None or weight is None or name not in self.values or not site.candidate:
            return None
        if site.op in {"MatMul", "Gemm"}:
            return name, -1
        tensor = constant_tensor(weight)
        if site.op != "Conv" or tensor is None or node.attributes.get_int("group", 1) != 1:
            return None
        return name, 1 - len(tensor.shape)

    def group(self, sites: Sequence[Site]) -> ScalingGroup:
        """The group of sites that all read one activation along one axis."""
        found = self.activation(sites[0])
        if found is None:
            msg = f"{sites[0].name!r} can be in no group"
            raise ValueError(msg)
        tensor, axis = found
        axes = tuple(1 if site.op == "Conv" else 1 - (site.weight_axis or 0) for site in sites)
        weights = tuple(self._reader(site, site.weight or "") for site in sites)
        readers = tuple(self._reader(site, tensor) for site in sites)
        channels = self._length(sites[0], axes[0])
        labels = np.arange(channels).reshape(-1, *[1] * (-axis - 1))
        own = {(self.nodes[reader.node], reader.input) for reader in readers}
        return ScalingGroup(
            tensor=tensor,
            axis=axis,
            sites=tuple(sites),
            channels=channels,
            readers=readers,
            weights=weights,
            axes=axes,
            reason=self._why_not(sites),
            fold=find_fold(self.values[tensor], labels, own, self.model),
        )

    def _reader(self, site: Site, name: str) -> Reader:
        inputs = self.nodes[site.name].inputs
        return Reader(node=site.name, input=inputs.index(self.values[name]))

    def _length(self, site: Site, axis: int) -> int:
        tensor = constant_tensor(self.values[site.weight or ""])
        return 0 if tensor is None else int(tensor.shape.numpy()[axis])

    def _why_not(self, sites: Sequence[Site]) -> str:
        """Why the weights of these sites cannot be scaled; empty if they can."""
        counts = Counter(site.weight or "" for site in sites)
        reasons = (why_shared(self.values[name], count) for name, count in counts.items())
        return next(filter(None, reasons), "")
