"""The tensors that float16 would spoil, by what was seen of them in the float model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from onnxq.algorithms.range_sensitive import MOVING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from onnxq.calibration.stats import Stats, TensorStats
    from onnxq.numerics.half import HalfType

SAFE_SHARE: Final = 0.5
"""Values seen beyond this share of the greatest number do not fit: other data may hold values
twice as large as calibration data."""


def unfit_tensors(nodes: Sequence[ir.Node], stats: Stats, half: HalfType) -> dict[ir.Value, str]:
    """What was seen in the tensors that do not fit, those handed on from them among them.

    Args:
        nodes: The nodes that compute with float32, in the order of the graph.
        stats: What was observed.
        half: The type.
    """
    found: dict[ir.Value, str] = {}
    for node in nodes:
        for value in (*node.inputs, *node.outputs):
            if value is None or value in found:
                continue
            seen = stats.tensors.get(value.name or "")
            why = "" if seen is None else _why_unfit(value, seen, half)
            if not why and value.producer() is node and is_handed_on(value):
                why = next((found[v] for v in node.inputs if v in found), "")
            if why:
                found[value] = why
    return found


def is_handed_on(value: ir.Value) -> bool:
    """Whether its producer only hands it on, so that it fits where that one's inputs do."""
    producer = value.producer()
    if producer is None or producer.domain or producer.op_type not in MOVING:
        return False
    return any(source is not None and source.dtype == value.dtype for source in producer.inputs)


def _why_unfit(value: ir.Value, seen: TensorStats, half: HalfType) -> str:
    peak = max(-seen.low, seen.high)
    if seen.masked:
        return f"values beyond every range were seen in {value.name!r}"
    if peak > SAFE_SHARE * half.greatest:
        limit = f"{half.name} ends at {half.greatest:g}"
        return f"values of {peak:.3g} were seen in {value.name!r}, and {limit}"
    if 0 < peak < half.normal:
        return f"only values below {half.normal:.1g} were seen in {value.name!r}"
    return ""
