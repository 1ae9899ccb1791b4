"""Weight-only INT8: float activations, weights as integers.

Three forms. In blocks (MatMulNBits): one scale for so many consecutive input channels of each
output channel, which the target's kernel multiplies directly. Folded: one scale for each output
channel, multiplied out once when the model is loaded: float's speed and memory from a small file.
As DequantizeLinear: the same, which any tool reads and which runs at each inference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.algorithms.lookup_tables import embeddings
from onnxq.algorithms.selection import Selection, decide_beside_float
from onnxq.algorithms.weight_rounding import rounded_params
from onnxq.calibration.requests import OutputError, QuantizedInput
from onnxq.errors import listed
from onnxq.graph.edit import (
    all_nodes_by_name,
    constant_array,
    node_by_name,
    static_shape,
    value_by_name,
)
from onnxq.numerics.affine import qparams_from_range, weight_range
from onnxq.numerics.schemes import PerAxis, PerBlock, QParams, middle_of
from onnxq.plan import BlockEntry, Reader, WeightEntry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from onnxq.algorithms.static_int8 import Int8Config
    from onnxq.graph.sites import Site
    from onnxq.targets import BlockWidth, Target

BITS = 8
_NAMED = 3
_BECOME_FLOAT = ("MatMul", "Gemm", "Conv", "ConvTranspose")


@dataclass(frozen=True, slots=True)
class BlockForm:
    """How MatMulNBits is used.

    Attributes:
        block_size: Input channels that share a scale.
        accuracy_level: 4 rounds activations to int8, 1 keeps them float32.
    """

    block_size: int
    accuracy_level: int

    @property
    def label(self) -> str:
        """For tables: ``block 128, accuracy level 4``."""
        return f"block {self.block_size}, accuracy level {self.accuracy_level}"


def select_weights(
    model: ir.Model,
    sites: Sequence[Site],
    target: Target,
    keep_float: Mapping[str, str],
    *,
    kernels: bool,
    floats: bool,
) -> Selection:
    """Choose what is quantized; sites inside subgraphs too.

    Args:
        model: A normalized model.
        sites: Its sites.
        target: What kernel it has for weights in blocks.
        keep_float: Sites that stay float on request, with the reason.
        kernels: Whether the target's kernel for weights in blocks may multiply.
        floats: Whether weights may become float before they are multiplied.
    """
    nodes = all_nodes_by_name(model)

    def why_not(site: Site) -> str:
        if floats and site.op in _BECOME_FLOAT:
            return ""
        if kernels:
            return why_no_kernel(site, nodes[site.name], target)
        return f"onnxq does not store the weight of {site.op} as integers"

    return Selection(
        decide_beside_float(model, sites, keep_float, why_not, target), (), {}, frozenset()
    )


def decide_blocks(model: ir.Model, config: Int8Config, form: BlockForm) -> dict[str, Any]:
    """What a plan says of weights in blocks and of lookups, by field of the plan."""
    values, nodes = value_by_name(model.graph), all_nodes_by_name(model)
    entries = []
    arrays: dict[str, np.ndarray] = {}
    for site in _products(config):
        name = site.weight or ""
        place = nodes[site.name].inputs.index(values[name])
        entry = BlockEntry(
            node=site.name,
            activation=1 - place,
            weight=place,
            initializer=name,
            bits=BITS,
            symmetric=True,
            axis=site.weight_axis or 0,
            block_size=form.block_size,
            accuracy_level=form.accuracy_level,
        )
        entries.append(entry)
        key = f"block/{name}/scale"
        if key not in arrays:
            weight = np.asarray(constant_array(values[name]), np.float32)
            matrix = entry.layout(weight.shape).matrix(weight)
            scheme = entry.scheme(PerBlock(entry.block_size, 1))
            low, high = weight_range(matrix, scheme.granularity)
            arrays[key] = qparams_from_range(low, high, scheme).scale
    tables, rows = embeddings(config.selection.chosen, values, config.weight)
    return {
        "blocks": tuple(entries),
        "embeddings": tables,
        "arrays": {**arrays, **rows},
        "warnings": _rules_not_kept(config),
    }


def block_params(
    entry: BlockEntry, shape: tuple[int, ...], arrays: Mapping[str, np.ndarray]
) -> QParams:
    """Scales and zero points of a weight in blocks, along its own axes.

    Args:
        entry: A weight of which one axis is summed over.
        shape: The weight's shape.
        arrays: Those of the plan.
    """
    layout, key = entry.layout(shape), f"block/{entry.initializer}"
    scale = layout.restore(arrays[f"{key}/scale"])
    zero_point = np.full(scale.shape, middle_of(entry.bits), np.uint8)
    if not entry.symmetric:
        zero_point = layout.restore(arrays[f"{key}/zero_point"])
    return QParams(scale, zero_point, entry.scheme(PerBlock(entry.block_size, layout.sums[0])))


def _rules_not_kept(config: Int8Config) -> tuple[str, ...]:
    outcomes = [(site.name, config.outcomes.get(site.name)) for site in _products(config)]
    names = [name for name, outcome in outcomes if outcome is not None and outcome.weight]
    if not names:
        return ()
    named = listed(names, _NAMED)
    return (f"{named}: a rule says how its weight is stored; blocks have 8 bits and own scales",)


def decide_per_channel(
    model: ir.Model, config: Int8Config, *, folded: bool = False
) -> dict[str, Any]:
    """What a plan says of weights with a scale for each output channel, and of lookups.

    Args:
        model: A normalized model.
        config: What is quantized, and to which integers.
        folded: Whether they are multiplied out when the model is loaded, not at each inference.
    """
    values, nodes = value_by_name(model.graph), all_nodes_by_name(model)
    readers: dict[str, list[Reader]] = {}
    first: dict[str, Site] = {}
    for site in _products(config):
        name = site.weight or ""
        first.setdefault(name, site)
        place = nodes[site.name].inputs.index(values[name])
        readers.setdefault(name, []).append(Reader(node=site.name, input=place))
    entries = []
    arrays: dict[str, np.ndarray] = {}
    for name, site in first.items():
        scheme = config.weight_scheme_for(site)
        axis = scheme.granularity.axis if isinstance(scheme.granularity, PerAxis) else None
        weight = np.asarray(constant_array(values[name]), np.float32)
        arrays[f"weight/{name}/scale"] = rounded_params(weight, scheme).scale
        entries.append(
            WeightEntry(
                initializer=name,
                bits=scheme.bits,
                axis=axis,
                readers=tuple(readers[name]),
                pairs=scheme.pairs,
                folded=folded,
            )
        )
    tables, rows = embeddings(config.selection.chosen, values, config.weight)
    return {"weights": tuple(entries), "embeddings": tables, "arrays": {**arrays, **rows}}


def alone_requests(
    model: ir.Model, config: Int8Config, fields: Mapping[str, Any]
) -> list[OutputError]:
    """Output errors of each product of the main graph when its weight alone is quantized.

    Args:
        model: The normalized model.
        config: What is quantized.
        fields: What :func:`decide_blocks` or :func:`decide_per_channel` said.
    """
    nodes = node_by_name(model.graph)
    sites = {site.name: site for site in config.selection.chosen}
    found: list[tuple[str, QuantizedInput]] = []
    for entry in fields.get("blocks", ()):
        shape = static_shape(model.graph.initializers[entry.initializer]) or ()
        params = block_params(entry, shape, fields["arrays"])
        found.append((entry.node, QuantizedInput(entry.weight, entry.initializer, params)))
    for entry in fields.get("weights", ()):
        scale = fields["arrays"][f"weight/{entry.initializer}/scale"]
        found += [
            (reader.node, config.quantized_weight(sites[reader.node], reader.input, scale))
            for reader in entry.readers
        ]
    return [
        OutputError(node, None, weight, f"weight alone, {_label(weight)}")
        for node, weight in found
        if node in nodes
    ]


def _label(weight: QuantizedInput) -> str:
    """Tells a weight's integers from those under other scales."""
    params = weight.params
    if params is None:
        return "float"
    total = float(params.scale.sum(dtype=np.float64))
    return f"{params.scheme.label} of {params.scale.shape} scales {total:.9g}"


def forms(width: BlockWidth, block_size: int | None, level: int) -> tuple[BlockForm, ...]:
    """The forms to measure, the fastest first.

    Args:
        width: What the target does with integers of this width.
        block_size: The only block size wanted; None for all of the target's.
        level: The accuracy level.
    """
    sizes = width.block_sizes if block_size is None else (block_size,)
    return tuple(BlockForm(size, level) for size in sizes)


def why_no_kernel(site: Site, node: ir.Node, target: Target) -> str:
    """Why the target's kernel for weights in blocks does not take a product; empty if it does.

    Args:
        site: The product.
        node: Its node.
        target: What kernel there is.
    """
    rules = target.blocks
    if rules is None or site.op not in rules.ops:
        return (
            f"{target.provider} has no kernel for {site.op} with integer weights and float "
            "activations; a DequantizeLinear in front of it would run at every inference"
        )
    left = bool(node.inputs) and node.inputs[0] is not None and node.inputs[0].name == site.weight
    weight, activation = (_rank(node.inputs[index]) for index in ((0, 1) if left else (1, 0)))
    if weight != 2:
        return f"its weight has {weight} dimensions; {rules.kernel} multiplies by a matrix"
    if activation is not None and activation < 2:
        return f"its input has {activation} dimension; {rules.kernel} wants 2 or more"
    if left and activation is None:
        return (
            f"its input, on the right of its weight, has an unknown rank; {rules.kernel} wants it"
        )
    last = static_shape(node.inputs[0 if left else 1]) or (0,)
    if rules.even and last[-1] % 2:
        return f"its last dimension, {last[-1]}, is odd; {target.name} packs two integers in a byte"
    return ""


def _rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else value.shape.rank()


def _products(config: Int8Config) -> list[Site]:
    return [site for site in config.selection.chosen if site.activation is not None]
