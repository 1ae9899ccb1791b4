"""The guard: tensors that no integers can stand for, and sites that quantizing would ruin.

A tensor is barred where calibration saw NaN, Inf or mask constants in it, where all its values are
below every scale, or where a constant that is added dwarfs what it is added to: one scale for both
leaves nothing of the rest. A site is ruined where its own output, when it alone is quantized,
keeps less than :data:`LEAST_SITE_DB` on calibration samples, whatever the cause is (one huge
weight among useful ones, a bias that widens the scale, activations of very different size).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from onnxq.graph.edit import constant_array, value_by_name
from onnxq.numerics.metrics import sqnr_db

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

    from onnxq.algorithms.selection import Selection
    from onnxq.calibration.requests import OutputError
    from onnxq.calibration.stats import Stats, TensorStats
    from onnxq.graph.sites import Site

LEAST_SITE_DB = 8.0
"""Noise of more than a sixth of the signal. Sites of usable models have 25 dB and more."""

_DWARFS = 64.0
"""A constant this many times wider than the activation leaves it two bits of eight."""

_NAMED = 5

_SMALLEST = 1e-35
"""Scales are normal float32 numbers; values below this use less than seven of eight bits."""


def barred_tensors(model: ir.Model, selection: Selection, stats: Stats) -> dict[str, str]:
    """What was seen in the tensors that must not be quantized, a clause each.

    Args:
        model: The normalized model.
        selection: What would be quantized.
        stats: What was observed of it.
    """
    roots = {tensor.name: tensor.root for tensor in selection.tensors}
    found = {
        name: why
        for name, root in roots.items()
        if root in stats.tensors and (why := _why_barred(stats.tensors[root]))
    }
    return found | _dwarfed(model, selection, stats, roots)


def barred_inputs(sites: Sequence[Site], stats: Stats) -> dict[str, str]:
    """The sites whose input was seen to hold what no integers stand for, with the reason."""
    found = {}
    for site in sites:
        seen = stats.tensors.get(site.activation or "")
        if seen is not None and (why := _why_barred(seen)):
            found[site.name] = f"{why} in its input {site.activation!r}"
    return found


def unseen_beside_damage(sites: Sequence[Site]) -> dict[str, str]:
    """The sites in bodies of a model with NaN or Inf in its weights, with the reason.

    What reaches a body is not observed, and an Inf there would become NaN (:func:`why_ruined`).
    """
    if all(site.finite for site in sites):
        return {}
    why = "weights of the model hold NaN or Inf, and what reaches {} is not observed"
    return {site.name: why.format(site.place) for site in sites if site.activation and site.place}


def too_small(model: ir.Model, selection: Selection) -> dict[str, str]:
    """The sites whose weights are below every scale, with the reason."""
    values = value_by_name(model.graph)
    peaks: dict[str | None, float] = {}
    found = {}
    for site in selection.chosen:
        if site.weight not in peaks:
            peaks[site.weight] = _peak(constant_array(values[site.weight or ""]))
        peak = peaks[site.weight]
        if 0 < peak < _SMALLEST:
            found[site.name] = f"its weights are too small for any scale ({peak:.2g} at the most)"
    return found


def ruined_sites(requests: Sequence[OutputError], stats: Stats) -> dict[str, float]:
    """The sites whose measured output keeps too little, with its SQNR in decibels.

    Args:
        requests: What was measured: each site when it alone is quantized.
        stats: The findings.
    """
    found = {}
    for request in requests:
        error = stats.sites[request.site]
        kept = sqnr_db(error.signal, error.noise[request.label])
        # A NaN is no number above the bound.
        if not kept >= LEAST_SITE_DB:
            found[request.site] = kept
    return found


def why_ruined(sqnr: float, least: float = LEAST_SITE_DB) -> str:
    """Why a site with so many decibels, fewer than the least, stays float.

    Without a number the float output has NaN or Inf in it. There is nothing to measure then; and an
    Inf times a weight that rounds to zero, or rounded to an integer itself, is NaN, where float has
    an Inf that a Tanh or a Clip makes finite again.
    """
    if math.isnan(sqnr):
        return "NaN or infinite values were seen in its output, so that its error is unknown"
    return (
        f"quantizing would ruin it: alone quantized, its output would have {sqnr:.1f} dB, "
        f"less than {least:g} dB"
    )


def kept_float(wanted: Selection, selection: Selection) -> tuple[str, ...]:
    """A warning for each site that calibration kept float, the first few by name.

    Args:
        wanted: What would have been quantized by structure and recipe.
        selection: What is.
    """
    names = {site.name for site in wanted.chosen}
    found = [d for d in selection.decisions if d.site.name in names and not d.quantize]
    warnings = [f"{d.site.name} stays float: {d.reason}" for d in found[:_NAMED]]
    if len(found) > _NAMED:
        rest = len(found) - _NAMED
        warnings.append(f"{rest} more sites stay float; `onnxq inspect MODEL --data DATA` says why")
    return tuple(warnings)


def _peak(array: NDArray[np.generic] | None) -> float:
    if array is None or array.size == 0:
        return 0.0
    return max(float(array.max()), -float(array.min()))


def _why_barred(stats: TensorStats) -> str:
    if stats.nan:
        return "NaN was seen"
    if stats.masked:
        return "infinite values or mask constants were seen"
    peak = max(-stats.low, stats.high)
    if 0 < peak < _SMALLEST:
        return "only values too small for any scale were seen"
    return ""


def _dwarfed(
    model: ir.Model, selection: Selection, stats: Stats, roots: Mapping[str, str]
) -> dict[str, str]:
    """The activations that a constant hides once it is added, and the sums."""
    if not selection.constants:
        return {}
    values = value_by_name(model.graph)
    nodes = {node.name: node for node in model.graph}
    found = {}
    for operand in selection.constants:
        node = nodes[operand.node]
        activation = node.inputs[1 - operand.index]
        root = stats.tensors.get(roots[(activation.name if activation else None) or ""])
        array = constant_array(values[operand.initializer])
        if operand.op != "Add" or root is None or array is None:
            continue
        spread = float(array.max()) - float(array.min()) if array.size else 0.0
        if spread > _DWARFS * (root.high - root.low):
            found[_end(node, roots)] = "a constant that hides all other values was seen"
    return found


def _end(node: ir.Node, roots: Mapping[str, str]) -> str:
    """The quantized tensor behind a node: its output, or that of an absorbed Relu or Clip."""
    value = node.outputs[0]
    while (value.name or "") not in roots:
        value = value.consumers()[0].outputs[0]
    return value.name or ""
