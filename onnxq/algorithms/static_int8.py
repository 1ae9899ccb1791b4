"""Static INT8: ranges from calibration, weights per channel, biases int32, embedding rows int8.

FP8 is the same with other numbers; what has no kernel of it stays float.

``requests`` says what to observe, ``error_requests`` which candidates to try (for ``auto``), and
``decide`` turns statistics into a plan. Nothing here runs a model.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from onnxq.algorithms import range_choice
from onnxq.calibration.requests import OutputError, QuantizedInput
from onnxq.graph.edit import node_by_name, value_by_name
from onnxq.numerics.schemes import PerAxis, PerTensor, QParams, Scheme

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from onnxq.algorithms.range_choice import Candidate, Method
    from onnxq.algorithms.selection import QuantizedTensor, Selection
    from onnxq.calibration.requests import Request
    from onnxq.calibration.stats import SiteError, Stats
    from onnxq.graph.sites import Site
    from onnxq.plan import Decision as SiteDecision
    from onnxq.recipe import ActivationOverride, CalibrationSettings, RuleOutcome
    from onnxq.targets import Target


@dataclass(frozen=True, slots=True)
class Int8Config:
    """What an INT8 scheme is asked to do with what it quantizes.

    Attributes:
        selection: What will be quantized.
        activation: The activations' integers.
        weight: The weights' integers; the granularity is set for each weight.
        calibration: How ranges are chosen.
        outcomes: What the recipe's rules say about some sites, by node name.
        pairwise: Whether weights are bounded in pairs where kernels add two products at once.
        ranges: Whether ranges come from calibration, or from each run as it happens.
        target: Tells along which axis weights have their scales, and what biases are; None for
            output channels and int32.
        decision: What it is called at a site that is quantized.
    """

    selection: Selection
    activation: Scheme
    weight: Scheme
    calibration: CalibrationSettings
    outcomes: Mapping[str, RuleOutcome]
    pairwise: bool = False
    ranges: Literal["calibrated", "run time"] = "calibrated"
    target: Target | None = None
    decision: SiteDecision = "int8"

    def method_for(self, tensor: QuantizedTensor) -> tuple[Method, float]:
        """Method and percentile of one tensor: the first rule about a reader, else the general."""
        rules = self._rules(tensor)
        method = next((r.method for r in rules if r.method), self.calibration.method)
        percents = (r.percentile for r in rules if r.percentile is not None)
        return method, next(percents, self.calibration.percentile)

    def scheme_for(self, tensor: QuantizedTensor) -> Scheme:
        """The integers of one tensor: the first rule about a reader, else the target's."""
        for rule in self._rules(tensor):
            if rule.activation is not None:
                return with_override(self.activation, rule.activation)
        return self.activation

    def weight_scheme_for(self, site: Site) -> Scheme:
        """The integers of a weight: the rule about its site, else the target's, per channel."""
        rule = self.outcomes.get(site.name)
        override = rule.weight if rule else None
        per_tensor = override is not None and override.granularity == "tensor"
        bits = override.bits if override is not None and override.bits else self.weight.bits
        return replace(
            self.weight,
            bits=bits,
            granularity=PerTensor() if per_tensor else PerAxis(self.weight_axis(site)),
            # Narrower ones are within the bound in any case.
            pairs=site.sums if self.pairwise and bits == self.weight.bits else (),
        )

    def weight_axis(self, site: Site) -> int:
        """The axis of a site's weight along which each slice has a scale."""
        wanted = None if self.target is None else self.target.rule(site.op).weight_axis
        return (site.weight_axis or 0) if wanted is None else wanted

    @property
    def float_biases(self) -> bool:
        """Whether biases stay as they are."""
        return self.target is not None and self.target.bias == "float"

    def _rules(self, tensor: QuantizedTensor) -> list[RuleOutcome]:
        return [self.outcomes[node] for node, _ in tensor.readers if node in self.outcomes]

    def roots(self) -> tuple[QuantizedTensor, ...]:
        """The tensors that have a scale of their own."""
        return tuple(tensor for tensor in self.selection.tensors if tensor.root == tensor.name)

    def requests(self) -> list[Request]:
        """What must be observed of the activations."""
        return [range_choice.request(t.name, self.method_for(t)[0]) for t in self.roots()]

    def candidates(self, stats: Stats) -> dict[str, tuple[Candidate, ...]]:
        """The possible ranges of each root tensor."""

        def of(tensor: QuantizedTensor) -> tuple[Candidate, ...]:
            method, percent = self.method_for(tensor)
            found = stats.tensors[tensor.name]
            return range_choice.candidates(found, self.scheme_for(tensor), method, percent)

        # The searches are compiled and release the GIL.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            roots = self.roots()
            return dict(zip((t.name for t in roots), pool.map(of, roots), strict=True))

    def error_requests(self, candidates: Mapping[str, Sequence[Candidate]]) -> list[OutputError]:
        """Output errors to measure, where a tensor has several candidates."""
        requests: list[OutputError] = []
        for tensor, site, index in self._site_readers():
            options = candidates[tensor.root]
            if len(options) > 1:
                requests += range_choice.error_requests(site, index, tensor.name, options)
        return requests

    def alone_requests(
        self,
        model: ir.Model,
        chosen: Mapping[str, Candidate],
        arrays: Mapping[str, NDArray[np.generic]],
    ) -> list[OutputError]:
        """Output errors of each chosen site when it alone is quantized, weight and activation.

        Args:
            model: The normalized model.
            chosen: The range of each root tensor.
            arrays: Those of the plan, which holds the weights' scales as they are written.
        """
        sites = {site.name: site for site in self.selection.chosen}
        values, nodes = value_by_name(model.graph), node_by_name(model.graph)
        requests = []
        for tensor, name, index in self._site_readers():
            site = sites[name]
            weight = values[site.weight or ""]
            scale = np.asarray(arrays[f"weight/{site.weight}/scale"], np.float32)
            quantized = self.quantized_weight(site, nodes[name].inputs.index(weight), scale)
            activation = QuantizedInput(index, tensor.name, chosen[tensor.root].params)
            # Under other scales another error is measured.
            own = self.weight_label(site, scale)
            label = f"alone, {range_choice.error_label(index, chosen[tensor.root])}, {own}"
            requests.append(OutputError(name, activation, quantized, label))
        return requests

    def quantized_weight(
        self, site: Site, index: int, scale: NDArray[np.float32]
    ) -> QuantizedInput:
        """A site's weight, its input ``index``, under scales as a plan holds them."""
        granularity = PerAxis(self.weight_axis(site)) if scale.ndim else PerTensor()
        scheme = replace(self.weight_scheme_for(site), granularity=granularity)
        params = QParams(scale, np.zeros(scale.shape, scheme.dtype), scheme)
        return QuantizedInput(index, site.weight or "", params)

    def weight_label(self, site: Site, scale: NDArray[np.float32]) -> str:
        """Tells a weight's integers from those under other scales."""
        scheme = self.weight_scheme_for(site)
        return f"{scheme.label} {float(scale.sum(dtype=np.float64)):.9g}"

    def choose(
        self, stats: Stats, candidates: Mapping[str, Sequence[Candidate]]
    ) -> dict[str, Candidate]:
        """The chosen range of each root tensor."""
        errors: dict[str, dict[str, tuple[int, SiteError]]] = {}
        for tensor, site, index in self._site_readers():
            if site in stats.sites:
                errors.setdefault(tensor.root, {})[site] = (index, stats.sites[site])
        return {
            name: range_choice.choose(options, stats.tensors[name], errors.get(name, {}))
            for name, options in candidates.items()
        }

    def worst_sites(
        self, stats: Stats, chosen: Mapping[str, Candidate], count: int
    ) -> tuple[str, ...]:
        """The sites whose output suffers most from the chosen range of their activation.

        Only where several ranges were tried is that known.
        """
        shares: dict[str, float] = {}
        for tensor, site, index in self._site_readers():
            label = range_choice.error_label(index, chosen[tensor.root])
            found = stats.sites.get(site)
            if found is not None and label in found.noise and found.signal > 0:
                shares[site] = found.noise[label] / found.signal
        return tuple(sorted(shares, key=lambda name: -shares[name])[:count])

    def _site_readers(self) -> list[tuple[QuantizedTensor, str, int]]:
        sites = {site.name for site in self.selection.chosen}
        return [
            (tensor, node, index)
            for tensor in self.selection.tensors
            for node, index in tensor.readers
            if node in sites
        ]


def with_override(scheme: Scheme, override: ActivationOverride) -> Scheme:
    """The scheme of activations with what the recipe says of it."""
    symmetric = scheme.symmetric if override.symmetric is None else override.symmetric
    if override.type is None:
        return replace(scheme, symmetric=symmetric)
    kind = np.dtype(override.type)
    return replace(scheme, bits=8 * kind.itemsize, signed=kind.kind == "i", symmetric=symmetric)
