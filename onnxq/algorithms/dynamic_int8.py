"""Dynamic INT8: int8 weights per channel, activations quantized at run time over their own range.

No calibration is needed. With data, channels are evened out first (channel scaling), which is what
a single range for all channels lacks most, and sites that quantizing would ruin are kept float.
Which operators have a fast kernel the target says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.algorithms.lookup_tables import embeddings
from onnxq.algorithms.recurrent import recurrent_scales, why_recurrent_stays
from onnxq.algorithms.selection import QuantizedTensor, Selection, decide_beside_float
from onnxq.algorithms.weight_rounding import rounded_params
from onnxq.calibration.requests import Extrema, OutputError, QuantizedInput
from onnxq.graph.edit import all_nodes_by_name, constant_array, node_by_name, value_by_name
from onnxq.plan import DynamicEntry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from onnxq.algorithms.static_int8 import Int8Config
    from onnxq.graph.sites import Site
    from onnxq.targets import Target

RECURRENT = "LSTM"
_PRODUCTS = ("MatMul", "Gemm")


def select_dynamic(
    model: ir.Model, sites: Sequence[Site], target: Target, keep_float: Mapping[str, str]
) -> Selection:
    """Choose what is quantized; sites inside subgraphs too, for nothing has to be observed.

    Args:
        model: A normalized model.
        sites: Its sites.
        target: What the provider runs in integers.
        keep_float: Sites that stay float on request, with the reason.
    """
    values, nodes = value_by_name(model.graph), all_nodes_by_name(model)

    def why_not(site: Site) -> str:
        if site.weight_only:
            return site.weight_only
        if site.op in target.dynamic.declined:
            return target.dynamic.declined[site.op]
        if site.op not in target.dynamic.kernels:
            return (
                f"{target.provider} has no integer kernel for {site.op} with activations "
                "quantized at run time"
            )
        return why_recurrent_stays(nodes[site.name]) if site.op == RECURRENT else ""

    decisions = decide_beside_float(model, sites, keep_float, why_not, target)
    tensors: dict[str, QuantizedTensor] = {}
    for decision in decisions:
        site = decision.site
        # Products of the main graph alone: channels are observed, and scaled, there.
        if decision.quantize and site.op in _PRODUCTS and not site.place:
            name = site.activation or ""
            tensor = tensors.setdefault(name, QuantizedTensor(name, name))
            tensor.readers.append((site.name, nodes[site.name].inputs.index(values[name])))
    return Selection(decisions, tuple(tensors.values()), {}, frozenset())


def decide_dynamic(model: ir.Model, config: Int8Config) -> dict[str, Any]:
    """What a plan says of products, recurrent sites and lookups, by field of the plan.

    Args:
        model: The normalized model, channels scaled.
        config: What is quantized, and to which integers.
    """
    values, nodes = value_by_name(model.graph), all_nodes_by_name(model)
    products, recurrent = [], []
    arrays: dict[str, np.ndarray] = {}
    for site in config.selection.chosen:
        name = site.weight or ""
        if site.op in _PRODUCTS:
            scheme = config.weight_scheme_for(site)
            axis = site.weight_axis or 0
            key = f"weight/{name}/scale"
            if key not in arrays:
                weight = np.asarray(constant_array(values[name]), np.float32)
                scale = rounded_params(weight, scheme).scale
                # One scale for the tensor is written once for each output channel.
                arrays[key] = np.array(np.broadcast_to(scale, weight.shape[axis]))
            products.append(
                DynamicEntry(
                    node=site.name,
                    activation=0,
                    weight=nodes[site.name].inputs.index(values[name]),
                    initializer=name,
                    bits=scheme.bits,
                    axis=axis,
                    pairs=scheme.pairs,
                )
            )
        elif site.op == RECURRENT:
            scheme = config.weight_scheme_for(site)
            entry, scales = recurrent_scales(nodes[site.name], scheme)
            recurrent.append(entry)
            # The pass takes the integers of the first that names a weight.
            arrays = {**scales, **arrays}
    tables, rows = embeddings(config.selection.chosen, values, config.weight)
    return {
        "dynamic": tuple(products),
        "recurrent": tuple(recurrent),
        "embeddings": tables,
        "arrays": {**arrays, **rows},
    }


def input_requests(selection: Selection) -> list[Extrema]:
    """What must be seen of the inputs that are quantized at run time, in the main graph."""
    sites = (site for site in selection.chosen if site.activation and not site.place)
    return [Extrema(name) for name in dict.fromkeys(site.activation or "" for site in sites)]


def alone_requests(model: ir.Model, config: Int8Config) -> list[OutputError]:
    """Output errors of each product of the main graph when it alone is quantized."""
    fields = decide_dynamic(model, config)
    sites = {site.name: site for site in config.selection.chosen}
    nodes = node_by_name(model.graph)
    requests = []
    for entry in fields["dynamic"]:
        if entry.node not in nodes:
            continue
        site = sites[entry.node]
        scale = fields["arrays"][f"weight/{entry.initializer}/scale"]
        weight = config.quantized_weight(site, entry.weight, scale)
        activation = QuantizedInput(entry.activation, site.activation or "", None)
        label = f"alone, run time, {config.weight_label(site, scale)}"
        requests.append(OutputError(site.name, activation, weight, label))
    return requests
