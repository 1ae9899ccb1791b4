"""The sites of a quantized model that stayed float, and why.

What stayed float is read from the file: the site is in no integer kernel, and its weight is still
the float one. Why is what ``inspect`` says of the float model under the scheme that the file names
in its metadata; the reasons of decisions that were measured are not in the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from onnxq import pipeline
from onnxq.errors import OnnxqError
from onnxq.graph.edit import value_by_name
from onnxq.graph.sites import find_already_quantized, find_sites
from onnxq.recipe import Recipe
from onnxq.runtime.kernels import NBITS_OPS, integer_sites

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import onnx_ir as ir

    from onnxq.runtime.kernels import ExecutedNode

_SCHEME: Final = "onnxq.scheme"
_NOT_IN_FILE: Final = (
    "can be quantized: a rule, or what was measured when the model was made, kept it float"
)


@dataclass(frozen=True, slots=True)
class SkippedSite:
    """A site that stayed float.

    Attributes:
        name: The node's name.
        op: Its operator.
        reason: Why.
    """

    name: str
    op: str
    reason: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """What a model left float.

    Attributes:
        sites: The sites, in the order of the graph.
        all_sites: How many sites the float model has.
        scheme: The scheme that the reasons are of; empty if the file names none.
    """

    sites: tuple[SkippedSite, ...]
    all_sites: int
    scheme: str


def find_skipped(
    reference: tuple[Path, ir.Model], other: ir.Model, executed: Sequence[ExecutedNode]
) -> Skipped | None:
    """The sites of the reference that the other model leaves float.

    Args:
        reference: The float model's file, and what it holds, normalized.
        other: The model compared with it.
        executed: The nodes that ONNX Runtime executes of it.

    Returns:
        None if the other model is not quantized, or the reference is.
    """
    path, model = reference
    scheme = other.metadata_props.get(_SCHEME, "")
    if find_already_quantized(model) or not (scheme or find_already_quantized(other)):
        return None
    sites = find_sites(model)
    floating = value_by_name(other.graph)
    weights = {
        site.name: None if site.weight is None else f"{site.weight}_quantized" for site in sites
    }
    fast = integer_sites(executed, weights)
    fast |= {node.name for node in executed if node.op in NBITS_OPS}
    reasons = _reasons(path, scheme)
    found = tuple(
        SkippedSite(site.name, site.op, reasons.get(site.name) or site.reason or _NOT_IN_FILE)
        for site in sites
        if site.name not in fast and (site.weight is None or site.weight in floating)
    )
    return Skipped(found, len(sites), scheme)


def _reasons(path: Path, scheme: str) -> dict[str, str]:
    """Why sites stay float in a scheme, by name; empty where the scheme is not known."""
    try:
        recipe = Recipe.model_validate({"version": 1, "scheme": scheme}) if scheme else Recipe()
        found = pipeline.inspect(path, recipe=recipe)
    except (OnnxqError, ValueError):
        return {}
    return {site.name: site.reason for site in found.sites if site.reason}
