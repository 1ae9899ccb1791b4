"""Static INT8: ranges from calibration, weights per channel, biases int32, embedding rows int8.

``requests`` says what to observe, ``error_requests`` which candidates to try (for ``auto``), and
``decide`` turns statistics into a plan. Nothing here runs a model.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from onnxq._version import __version__
from onnxq.algorithms import range_choice
from onnxq.algorithms.selection import Decision, QuantizedTensor, Selection, clip_bounds
from onnxq.algorithms.weight_rounding import rounded_params, row_params
from onnxq.calibration.requests import OutputError, QuantizedInput
from onnxq.errors import InternalError
from onnxq.graph.edit import (
    constant_array,
    consumers,
    node_by_name,
    static_shape,
    value_by_name,
)
from onnxq.numerics.affine import saturates
from onnxq.numerics.schemes import PerAxis, PerTensor, QParams, Scheme
from onnxq.plan import (
    AbsorbedEntry,
    ActivationEntry,
    BiasEntry,
    EmbeddingEntry,
    Plan,
    Reader,
    SiteEntry,
    WeightEntry,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from onnxq.algorithms.range_choice import Candidate, Method
    from onnxq.calibration.requests import Request
    from onnxq.calibration.stats import SiteError, Stats
    from onnxq.graph.sites import Site
    from onnxq.recipe import CalibrationSettings, RuleOutcome

_EMPTY = 1e-12
"""Scale of a channel whose weights are all zero and whose bias needs no greater one."""

_BIAS_MAX = 2**30
"""Greatest bias in units of ``s_x s_w``; the other half of int32 is left for the sum of products,
which integer kernels add without saturation."""


@dataclass(frozen=True, slots=True)
class StaticInt8:
    """What static INT8 is asked to do.

    Attributes:
        selection: What will be quantized.
        activation: The activations' integers.
        weight: The weights' integers; the granularity is set for each weight.
        calibration: How ranges are chosen.
        outcomes: What the recipe's rules say about some sites, by node name.
    """

    selection: Selection
    activation: Scheme
    weight: Scheme
    calibration: CalibrationSettings
    outcomes: Mapping[str, RuleOutcome]

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
                kind, symmetric = rule.activation.type, rule.activation.symmetric
                general = self.activation
                return replace(
                    general,
                    signed=general.signed if kind is None else kind == "int8",
                    symmetric=general.symmetric if symmetric is None else symmetric,
                )
        return self.activation

    def weight_scheme_for(self, site: Site) -> Scheme:
        """The integers of a weight: the rule about its site, else the target's, per channel."""
        rule = self.outcomes.get(site.name)
        override = rule.weight if rule else None
        scheme = replace(self.weight, granularity=PerAxis(site.weight_axis or 0))
        if override is None:
            return scheme
        granularity = PerTensor() if override.granularity == "tensor" else scheme.granularity
        return replace(scheme, bits=override.bits or scheme.bits, granularity=granularity)

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

    def alone_requests(self, model: ir.Model, chosen: Mapping[str, Candidate]) -> list[OutputError]:
        """Output errors of each chosen site when it alone is quantized, weight and activation."""
        sites = {site.name: site for site in self.selection.chosen}
        values = value_by_name(model.graph)
        requests = []
        for tensor, name, index in self._site_readers():
            site = sites[name]
            weight = constant_array(values[site.weight or ""])
            if weight is None:
                continue
            params = rounded_params(np.asarray(weight, np.float32), self.weight_scheme_for(site))
            place = next(i for n, i in consumers(values[site.weight or ""]) if n.name == name)
            activation = QuantizedInput(index, tensor.name, chosen[tensor.root].params)
            quantized = QuantizedInput(place, site.weight or "", params)
            requests.append(OutputError(name, activation, quantized, "alone"))
        return requests

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

    def _site_readers(self) -> list[tuple[QuantizedTensor, str, int]]:
        sites = {site.name for site in self.selection.chosen}
        return [
            (tensor, node, index)
            for tensor in self.selection.tensors
            for node, index in tensor.readers
            if node in sites
        ]


def without_nan(selection: Selection, stats: Stats) -> dict[str, str]:
    """Sites that must stay float because NaN was seen in what they would read, with the reason."""
    bad = {name for name, tensor in stats.tensors.items() if tensor.nan}
    return {
        node: f"NaN was seen in its input {tensor.name!r} during calibration"
        for tensor in selection.tensors
        if tensor.name in bad or tensor.root in bad
        for node, _ in tensor.readers
    }


def decide(
    model: ir.Model,
    config: StaticInt8,
    chosen: Mapping[str, Candidate],
    stats: Stats,
    labels: PlanLabels,
) -> Plan:
    """The plan.

    Args:
        model: The normalized model.
        config: What was asked for.
        chosen: The range of each root tensor.
        stats: What was observed.
        labels: What the plan says of itself.
    """
    selection = config.selection
    builder = _Builder(model, config, chosen)
    for site in selection.chosen:
        if site.activation is None:
            builder.add_embedding(site)
        else:
            builder.add_weight(site)
    builder.finish_weights()
    warnings = [
        text
        for name, candidate in chosen.items()
        if (text := range_choice.warning(name, stats.tensors[name], candidate))
    ]
    return Plan(
        onnxq_version=__version__,
        model_digest=labels.model_digest,
        data_digest=stats.data_digest,
        scheme=labels.scheme,
        target=labels.target,
        minimum_opset=labels.minimum_opset,
        independent=labels.independent,
        sites=site_entries(selection),
        activations=tuple(builder.activation(tensor) for tensor in selection.tensors),
        weights=tuple(builder.weights),
        biases=tuple(builder.biases),
        embeddings=tuple(builder.embeddings),
        absorbed=tuple(builder.absorbed(selection.absorbed)),
        warnings=tuple(warnings),
        arrays=builder.arrays,
    )


@dataclass(frozen=True, slots=True)
class PlanLabels:
    """What a plan says of itself beside the decisions."""

    model_digest: str
    scheme: str
    target: str
    minimum_opset: int
    independent: bool


class _Builder:
    def __init__(
        self, model: ir.Model, config: StaticInt8, chosen: Mapping[str, Candidate]
    ) -> None:
        self.config = config
        self.chosen = chosen
        self.roots = {tensor.name: tensor.root for tensor in config.selection.tensors}
        self.nodes = node_by_name(model.graph)
        self.values = value_by_name(model.graph)
        self.sites: dict[str, list[Site]] = {}
        self.weights: list[WeightEntry] = []
        self.biases: list[BiasEntry] = []
        self.embeddings: list[EmbeddingEntry] = []
        self.arrays: dict[str, np.ndarray] = {}

    def add_embedding(self, site: Site) -> None:
        name = site.weight or ""
        key = f"embedding/{name}/scale"
        if key not in self.arrays:
            scheme = replace(self.config.weight, bits=8, granularity=PerAxis(0))
            self.arrays[key] = row_params(self._array(name), scheme).scale
        self.embeddings.append(EmbeddingEntry(node=site.name, initializer=name))

    def add_weight(self, site: Site) -> None:
        self.sites.setdefault(site.weight or "", []).append(site)

    def finish_weights(self) -> None:
        for name, sites in self.sites.items():
            scheme = self.config.weight_scheme_for(sites[0])
            axis = scheme.granularity.axis if isinstance(scheme.granularity, PerAxis) else None
            params = rounded_params(self._array(name), scheme)
            scale = self._with_room_for_biases(params, sites)
            self.arrays[f"weight/{name}/scale"] = scale
            readers = tuple(
                Reader(node=site.name, input=self._index(site.name, name)) for site in sites
            )
            entry = WeightEntry(initializer=name, bits=scheme.bits, axis=axis, readers=readers)
            self.weights.append(entry)
            for site in sites:
                self._add_bias(site, scale)

    def activation(self, tensor: QuantizedTensor) -> ActivationEntry:
        candidate = self.chosen[tensor.root]
        params = candidate.params
        return ActivationEntry(
            tensor=tensor.name,
            bits=params.scheme.bits,
            signed=params.scheme.signed,
            scale=float(params.scale),
            zero_point=int(params.zero_point),
            method=candidate.label,
            low=candidate.low,
            high=candidate.high,
            readers=tuple(Reader(node=node, input=index) for node, index in tensor.readers),
        )

    def absorbed(self, wanted: Mapping[str, str]) -> list[AbsorbedEntry]:
        """The nodes that quantizers perform; where one saturates elsewhere the node stays.

        A symmetric range does not saturate at 0, nor that of a tensor that is always 0 at 6.
        """
        return [
            AbsorbedEntry(node=name, op=self.nodes[name].op_type)
            for name, tensor in wanted.items()
            if saturates(self._params(tensor), *clip_bounds(self.nodes[name]))
        ]

    def _with_room_for_biases(self, params: QParams, sites: Sequence[Site]) -> np.ndarray:
        """Widen scales where a bias would not fit into int32 in units of ``s_x s_w``.

        A channel without weights, which has no range of its own, takes the scale of its bias.
        """
        scale = params.scale.astype(np.float64)
        if scale.ndim:
            weight = self._array(sites[0].weight or "")
            others = tuple(i for i in range(weight.ndim) if i != sites[0].weight_axis)
            scale[~weight.any(axis=others)] = _EMPTY
        for site in sites:
            bias = self._bias_of(site)
            if bias is not None:
                unit = float(self._params(site.activation or "").scale)
                values = np.abs(self._array(bias.initializer).astype(np.float64)).reshape(-1)
                needed = values / unit / _BIAS_MAX
                scale = np.maximum(scale, needed if scale.ndim else needed.max(initial=0))
        # One scale for the tensor comes out of the arithmetic as a scalar.
        return np.asarray(scale, np.float32)

    def _add_bias(self, site: Site, weight_scale: np.ndarray) -> None:
        bias = self._bias_of(site)
        if bias is None:
            return
        scale = np.asarray(self._params(site.activation or "").scale * weight_scale)
        values = self._array(bias.initializer).astype(np.float64).reshape(-1)
        integers = np.clip(np.rint(values / scale), -_BIAS_MAX, _BIAS_MAX).astype(np.int32)
        self.arrays[f"bias/{bias.node}/scale"] = scale.astype(np.float32)
        self.arrays[f"bias/{bias.node}/integers"] = integers
        self.biases.append(bias)

    def _bias_of(self, site: Site) -> BiasEntry | None:
        """The site's bias, or that of the Add with which ONNX Runtime will merge a MatMul.

        It merges ``MatMul -> Add(bias[N])`` into a Gemm before it looks at Q/DQ where the
        activation has two axes or a static shape; with a float bias that Gemm is a float one.
        """
        if site.bias is not None:
            index = self._index(site.name, site.bias)
            return BiasEntry(node=site.name, input=index, initializer=site.bias)
        value = self.values[site.activation or ""]
        merges = static_shape(value) or (value.shape is not None and value.shape.rank() == 2)
        readers = consumers(self.values[site.output])
        if site.op != "MatMul" or not merges or len(readers) != 1:
            return None
        node, index = readers[0]
        other = node.inputs[1 - index] if node.op_type == "Add" else None
        array = constant_array(other)
        if other is None or array is None or not other.is_initializer():
            return None
        channels = self._array(site.weight or "").shape[1]
        if array.shape not in ((channels,), (1, channels)) or other.is_graph_input():
            return None
        return BiasEntry(node=node.name or "", input=1 - index, initializer=other.name or "")

    def _params(self, tensor: str) -> QParams:
        return self.chosen[self.roots[tensor]].params

    def _index(self, node: str, value: str) -> int:
        return next(i for n, i in consumers(self.values[value]) if n.name == node)

    def _array(self, name: str) -> np.ndarray:
        constant = self.values[name].const_value
        if constant is None:
            code, text = "plan.weight", f"{name} is no constant"
            raise InternalError(code, text)
        return constant.numpy()


def site_entries(selection: Selection) -> tuple[SiteEntry, ...]:
    """What a plan says of each site."""
    return tuple(_site_entry(decision) for decision in selection.decisions)


def worst_sites(stats: Stats, count: int) -> list[str]:
    """The sites whose output suffers most from quantizing their activation, as far as measured."""
    least = {
        name: min(error.noise.values()) / error.signal
        for name, error in stats.sites.items()
        if error.noise and error.signal > 0
    }
    return sorted(least, key=lambda name: -least[name])[:count]


def _site_entry(decision: Decision) -> SiteEntry:
    site = decision.site
    return SiteEntry(
        name=site.name,
        op=site.op,
        decision="int8" if decision.quantize else "float",
        reason=decision.reason,
        macs=site.macs,
    )
