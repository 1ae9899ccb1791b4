"""Weights in float16 or bfloat16, read through a Cast to float32.

Every float32 constant of the main graph that is worth it is stored so, whatever operator reads it,
unless the type would spoil it: finite values that become infinite, more than a tenth of what is not
zero flushed to zero, or an SQNR below 45 dB (numbers below 6e-5 have fewer bits in float16). Where
one of its readers is kept float by the recipe it stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from onnxq.algorithms.selection import Decision
from onnxq.graph.edit import all_nodes_by_name, consumers
from onnxq.graph.float_nodes import is_stored
from onnxq.graph.tensors import chunks
from onnxq.numerics.half import half_fit
from onnxq.plan import HalfWeightEntry

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    import onnx_ir as ir

    from onnxq.graph.sites import Site
    from onnxq.numerics.half import HalfType

MOST_FLUSHED: Final = 0.1
"""More of a weight than this may not become zero. Weights that training let go are often so small:
up to 0.03 of real ones."""

LEAST_DB: Final = 45.0
"""Rounding costs bfloat16 55 dB, in single numbers 48, and float16 73."""


class Fits:
    """Why constants do not fit into a type; each is read once."""

    def __init__(self, half: HalfType, bounded: Container[str] = ()) -> None:
        """Judge for a type; ``bounded`` names the masks, which are bounded before."""
        self.half = half
        self._bounded = bounded
        self._known: dict[str, str] = {}

    def why_not(self, value: ir.Value) -> str:
        """Why an initializer must stay float32; empty if it fits."""
        name = value.name or ""
        if name in self._bounded or value.const_value is None:
            return ""
        if name not in self._known:
            self._known[name] = self._judge(name, value.const_value)
        return self._known[name]

    def _judge(self, name: str, tensor: ir.TensorProtocol) -> str:
        found, kind = half_fit(chunks(tensor.numpy()), self.half), self.half.name
        if found.overflowing:
            return f"{found.overflowing} values of its constant {name!r} are too large for {kind}"
        if found.flushed > MOST_FLUSHED:
            return f"{found.flushed:.0%} of its constant {name!r} would become 0 in {kind}"
        if found.sqnr_db < LEAST_DB:
            return f"its constant {name!r} would keep {found.sqnr_db:.0f} dB in {kind}"
        return ""


def decide_half_weights(
    model: ir.Model, sites: Sequence[Site], kept: Mapping[str, str], fits: Fits
) -> tuple[tuple[HalfWeightEntry, ...], tuple[Decision, ...]]:
    """Which constants are stored in 16 bits, and what that makes of each site.

    Args:
        model: A normalized model.
        sites: Its sites and all other nodes that read what may be stored.
        kept: Nodes that stay float on request, with the reason.
        fits: Judges constants.
    """
    reasons: dict[str, str] = {}
    for name, value in model.graph.initializers.items():
        if is_stored(value, model) and value.uses():
            reasons[name] = _kept_by(value, kept) or fits.why_not(value)
    entries = tuple(
        HalfWeightEntry(initializer=name, type=fits.half.name)
        for name, reason in reasons.items()
        if not reason
    )
    nodes = all_nodes_by_name(model)
    decisions = []
    for site in sites:
        inputs = [value.name or "" for value in nodes[site.name].inputs if value is not None]
        whys = [reasons[name] for name in dict.fromkeys(inputs) if name in reasons]
        stored = not all(whys)
        reason = next(iter(whys), _why_nothing(site, fits.half))
        decisions.append(Decision(site, stored, "" if stored else reason))
    return entries, tuple(decisions)


def _kept_by(value: ir.Value, kept: Mapping[str, str]) -> str:
    return next(
        (kept[name] for node, _ in consumers(value) if (name := node.name or "") in kept), ""
    )


def _why_nothing(site: Site, half: HalfType) -> str:
    """Why a site without a constant that could be stored stays float."""
    if site.weight is None:
        return site.reason or "it has no constant weight"
    return f"its weight is too small to gain from {half.name}, or no float32 constant"
