"""Build the plan of static INT8: scales of weights, int32 biases, rows of tables, Q/DQ, what goes.

Nothing is chosen here but what follows from the chosen ranges: weights are rounded to the nearest
with their best scales, and biases are stored in units of activation scale times weight scale. FP8
differs in its numbers; targets that have it keep biases and tables float.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq._version import __version__
from onnxq.algorithms import range_choice
from onnxq.algorithms.constants import constant_params, formed
from onnxq.algorithms.lookup_tables import embeddings
from onnxq.algorithms.view import clip_bounds
from onnxq.algorithms.weight_rounding import rounded_params
from onnxq.errors import InternalError, listed
from onnxq.graph.edit import (
    constant_array,
    consumers,
    node_by_name,
    static_shape,
    value_by_name,
)
from onnxq.numerics.affine import quantize, saturates
from onnxq.numerics.schemes import PerAxis, QParams, Scheme
from onnxq.plan import (
    AbsorbedEntry,
    ActivationEntry,
    BiasEntry,
    ConstantEntry,
    Plan,
    Reader,
    SiteEntry,
    WeightEntry,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from onnxq.algorithms.constants import ConstantOperand
    from onnxq.algorithms.range_choice import Candidate
    from onnxq.algorithms.selection import QuantizedTensor, Selection
    from onnxq.algorithms.static_int8 import Int8Config
    from onnxq.calibration.stats import Stats
    from onnxq.graph.sites import Site
    from onnxq.plan import Decision as SiteDecision

_EMPTY = 1e-12
"""Scale of a channel whose weights are all zero and whose bias needs no greater one."""

_COARSE = 2.0
"""A weight scale that a bias widens by more than this is worth a warning."""

_NAMED = 5
"""So many nodes are named in one warning."""

_BIAS_MAX = 2**30
"""Greatest bias in units of ``s_x s_w``; the other half of int32 is left for the sum of products,
which integer kernels add without saturation."""


Rounded = dict[tuple[str, Scheme], QParams]
"""The best scales of weights by name and scheme."""


def decide(
    model: ir.Model,
    config: Int8Config,
    chosen: Mapping[str, Candidate],
    stats: Stats,
    labels: PlanLabels,
    rounded: Rounded | None = None,
) -> Plan:
    """The plan.

    Args:
        model: The normalized model.
        config: What was asked for.
        chosen: The range of each root tensor.
        stats: What was observed.
        labels: What the plan says of itself.
        rounded: The best scales of weights, as far as an earlier plan of this model needed them;
            it is added to. They depend on no range.
    """
    selection = config.selection
    builder = _Builder(model, config, chosen, {} if rounded is None else rounded)
    for site in selection.chosen:
        if site.activation is not None:
            builder.add_weight(site)
    builder.finish_weights()
    tables, scales = embeddings(selection.chosen, builder.values, config.weight)
    warnings = [
        text
        for name, candidate in chosen.items()
        if (text := range_choice.warning(name, stats.tensors[name], candidate))
    ]
    fields = {
        "data_digest": stats.data_digest,
        "activations": tuple(builder.activation(tensor) for tensor in selection.tensors),
        "weights": tuple(builder.weights),
        "biases": tuple(builder.biases),
        "constants": tuple(builder.constant(operand) for operand in selection.constants),
        "embeddings": tables,
        "absorbed": tuple(builder.absorbed(selection.absorbed)),
        "warnings": (*warnings, *builder.warnings),
        "arrays": {**builder.arrays, **scales},
    }
    return assemble(labels, selection, config.decision, fields)


def assemble(
    labels: PlanLabels, selection: Selection, decision: SiteDecision, fields: Mapping[str, Any]
) -> Plan:
    """A plan of these entries.

    Args:
        labels: What it says of itself.
        selection: What is quantized, and why the rest is not.
        decision: What it is called at a site that is quantized.
        fields: Entries, arrays and warnings, by the plan's own names.
    """
    sites = tuple(
        SiteEntry(
            name=d.site.name,
            op=d.site.op,
            decision=decision if d.quantize else "float",
            reason=d.reason,
            macs=d.site.macs,
        )
        for d in selection.decisions
    )
    return Plan(
        onnxq_version=__version__,
        model_digest=labels.model_digest,
        scheme=labels.scheme,
        target=labels.target,
        minimum_opset=labels.minimum_opset,
        independent=labels.independent,
        sites=sites,
        **{"data_digest": "", **fields},
    )


@dataclass(frozen=True, slots=True)
class PlanLabels:
    """What a plan says of itself beside the decisions."""

    model_digest: str
    scheme: str
    target: str
    minimum_opset: int
    independent: bool


def _saturating(candidate: Candidate, low: float, high: float) -> Candidate:
    """The candidate, its scale a float32 smaller where only that makes a Clip redundant.

    In 255 steps the bounds of [-1, 1] lie 127.5 from 0 on either side: the rounding of the scale
    decides whether both fall on the outermost integers, or one inside.
    """
    params = candidate.params
    if params.scheme.floating or saturates(params, low, high):
        return candidate
    smaller = replace(params, scale=np.asarray(np.nextafter(params.scale, np.float32(0))))
    return replace(candidate, params=smaller) if saturates(smaller, low, high) else candidate


class _Builder:
    def __init__(
        self,
        model: ir.Model,
        config: Int8Config,
        chosen: Mapping[str, Candidate],
        rounded: Rounded,
    ) -> None:
        self.rounded = rounded
        self.config = config
        self.roots = {tensor.name: tensor.root for tensor in config.selection.tensors}
        self.nodes = node_by_name(model.graph)
        self.chosen = dict(chosen)
        for name, tensor in config.selection.absorbed.items():
            root = self.roots[tensor]
            self.chosen[root] = _saturating(self.chosen[root], *clip_bounds(self.nodes[name]))
        self.values = value_by_name(model.graph)
        self.sites: dict[str, list[Site]] = {}
        self.weights: list[WeightEntry] = []
        self.biases: list[BiasEntry] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.widened: dict[str, tuple[float, str]] = {}
        self.warnings: list[str] = []

    def add_weight(self, site: Site) -> None:
        self.sites.setdefault(site.weight or "", []).append(site)

    def finish_weights(self) -> None:
        for name, sites in self.sites.items():
            # Depthwise and other readers may share a weight: a bound that one needs holds for all.
            site = next((site for site in sites if site.sums), sites[0])
            scheme = self.config.weight_scheme_for(site)
            axis = scheme.granularity.axis if isinstance(scheme.granularity, PerAxis) else None
            weight = self._array(name)
            if axis is not None and any(self._is_wide(site) for site in sites):
                # Counted from the end, the axis keeps ONNX Runtime from making MatMulNBits of a
                # MatMul with float activations, which rounds them to 8 bits in blocks.
                axis -= weight.ndim
            found = [(site, self._bias_of(site, weight.shape)) for site in sites]
            biases = [(site, bias) for site, bias in found if bias is not None]
            if (name, scheme) not in self.rounded:
                self.rounded[name, scheme] = rounded_params(weight, scheme)
            params = self.rounded[name, scheme]
            scale = self._with_room_for_biases(
                params, weight, self.config.weight_axis(sites[0]), biases
            )
            if weight.any():
                self._note_widened(name, sites, scale / params.scale)
            self._warn_of_readers(name, sites)
            self.arrays[f"weight/{name}/scale"] = scale
            readers = tuple(
                Reader(node=site.name, input=self._index(site.name, name)) for site in sites
            )
            entry = WeightEntry(
                initializer=name,
                bits=scheme.bits,
                axis=axis,
                readers=readers,
                pairs=scheme.pairs,
                number=scheme.number,
            )
            self.weights.append(entry)
            for site, bias in biases:
                self._add_bias(site, bias, scale)
        self._warn_of_biases()

    def _warn_of_readers(self, name: str, sites: Sequence[Site]) -> None:
        quantized = {site.name for site in sites}
        floating = [reader for reader in sites[0].readers if reader not in quantized]
        if floating:
            named = listed(floating, _NAMED)
            self.warnings.append(
                f"{name}: stored twice, as integers and float, because {named} "
                "reads it and stays float"
            )

    def _warn_of_biases(self) -> None:
        """One sentence for all: a model of many dead channels has dozens of such weights."""
        if not self.widened:
            return
        name, (peak, site) = max(self.widened.items(), key=lambda item: item[1][0])
        others = len(self.widened) - 1
        beside = f"; {others} more of the weights likewise, by less" if others else ""
        self.warnings.append(
            f"{name}: a channel's scale is {peak:.3g} times wider than its values need, because "
            f"the bias of {site} would not fit into int32{beside}"
        )

    def _note_widened(self, name: str, sites: Sequence[Site], widened: np.ndarray) -> None:
        peak = float(widened.max(initial=1))
        if peak > _COARSE:
            self.widened[name] = peak, sites[0].name

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
            number=params.scheme.number,
        )

    def constant(self, operand: ConstantOperand) -> ConstantEntry:
        """A constant; which ones can be quantized was decided by the selection."""
        value, form = self.values[operand.initializer], operand.form
        params = constant_params(value, form, self.config.activation)
        if params is None:
            code, text = "plan.constant", f"{operand.initializer} cannot be quantized"
            raise InternalError(code, text)
        exact = formed(np.asarray(self._array(operand.initializer), np.float32), form)
        self.arrays[f"constant/{operand.node}/integers"] = quantize(exact, params)
        return ConstantEntry(
            node=operand.node,
            input=operand.index,
            initializer=operand.initializer,
            form=form,
            op=operand.op,
            scale=float(params.scale),
            zero_point=int(params.zero_point),
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

    def _with_room_for_biases(
        self,
        params: QParams,
        weight: np.ndarray,
        axis: int | None,
        biases: Sequence[tuple[Site, BiasEntry]],
    ) -> np.ndarray:
        """Widen scales where a bias would not fit into int32 in units of ``s_x s_w``.

        A channel without weights, which has no range of its own, takes the scale of its bias.
        """
        scale = params.scale.astype(np.float64)
        if scale.ndim:
            others = tuple(i for i in range(weight.ndim) if i != axis)
            scale[~weight.any(axis=others)] = _EMPTY
        for site, bias in biases:
            unit = float(self._params(site.activation or "").scale)
            values = np.abs(self._array(bias.initializer).astype(np.float64)).reshape(-1)
            needed = values / unit / _BIAS_MAX
            scale = np.maximum(scale, needed if scale.ndim else needed.max(initial=0))
        # One scale for the tensor comes out of the arithmetic as a scalar.
        return np.asarray(scale, np.float32)

    def _add_bias(self, site: Site, bias: BiasEntry, weight_scale: np.ndarray) -> None:
        scale = np.asarray(self._params(site.activation or "").scale * weight_scale)
        values = self._array(bias.initializer).astype(np.float64).reshape(-1)
        integers = np.clip(np.rint(values / scale), -_BIAS_MAX, _BIAS_MAX).astype(np.int32)
        self.arrays[f"bias/{bias.node}/scale"] = scale.astype(np.float32)
        self.arrays[f"bias/{bias.node}/integers"] = integers
        self.biases.append(bias)

    def _bias_of(self, site: Site, weight: tuple[int, ...]) -> BiasEntry | None:
        """The site's bias, or that of the Add with which ONNX Runtime will merge a MatMul.

        It merges ``MatMul -> Add(bias[N])`` into a Gemm before it looks at Q/DQ where the
        activation has two axes or a static shape; with a float bias that Gemm is a float one.
        """
        if self._is_wide(site) or self.config.float_biases:
            return None
        if site.bias is not None:
            index = self._index(site.name, site.bias)
            return BiasEntry(node=site.name, input=index, initializer=site.bias)
        value = self.values[site.activation or ""]
        rank = 0 if value.shape is None else value.shape.rank()
        merges = rank == 2 or (rank > 2 and static_shape(value) is not None)
        readers = consumers(self.values[site.output])
        if site.op != "MatMul" or not merges or len(readers) != 1:
            return None
        node, index = readers[0]
        is_add = node.op_type == "Add" and not node.domain and node.name in self.nodes
        other = node.inputs[1 - index] if is_add else None
        array = constant_array(other)
        if other is None or array is None or not other.is_initializer():
            return None
        # NaN and Inf have no integers.
        if not np.isfinite(array).all():
            return None
        channels = weight[1]
        if array.shape not in ((channels,), (1, channels)) or other.is_graph_input():
            return None
        return BiasEntry(node=node.name or "", input=1 - index, initializer=other.name or "")

    def _is_wide(self, site: Site) -> bool:
        """Whether its activation has integers that no kernel multiplies, so that it runs in float.

        Its bias then stays float: in units of so small a scale it would not fit into int32.
        """
        return self._params(site.activation or "").scheme.bits > 8

    def _params(self, tensor: str) -> QParams:
        return self.chosen[self.roots[tensor]].params

    def _index(self, node: str, value: str) -> int:
        return self.nodes[node].inputs.index(self.values[value])

    def _array(self, name: str) -> np.ndarray:
        constant = self.values[name].const_value
        if constant is None:
            code, text = "plan.weight", f"{name} is no constant"
            raise InternalError(code, text)
        return constant.numpy()
