"""Sites that a provider runs in FP8 or not, by the shape of their weight.

A Conv has no kernel where its weight ``[out, in, taps...]`` has few channels, numbers of channels
that cannot be padded alike, or a large window; depthwise ones read one channel a group. What the
bounds are is the target's to say (:class:`onnxq.targets.Float8Rules`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from onnxq.graph.edit import constant_tensor, value_by_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from onnxq.graph.sites import Site
    from onnxq.targets import Float8Rules, Target


def without_float8(model: ir.Model, sites: Sequence[Site], target: Target) -> dict[str, str]:
    """The Convs that the target has no FP8 kernel for, with the reason.

    Args:
        model: A normalized model.
        sites: Its sites.
        target: What the provider runs.
    """
    rules = target.float8
    if rules is None:
        return {}
    values = value_by_name(model.graph)
    found = {}
    for site in sites:
        value = values.get(site.weight or "") if site.op == "Conv" else None
        tensor = None if value is None else constant_tensor(value)
        if tensor is not None and (why := _why_not(tuple(tensor.shape.numpy()), rules)):
            found[site.name] = f"{target.provider} has no FP8 kernel for a Conv {why}"
    return found


def _why_not(shape: tuple[int, ...], rules: Float8Rules) -> str:
    made, read, *window = shape
    channels = f"of {read} input channels a group and {made} outputs"
    least, multiple, taps = rules.least_channels, rules.channel_multiple, math.prod(window)
    if min(made, read) < least:
        return f"{channels}, fewer than {least}"
    if made % multiple != read % multiple:
        return f"{channels}, which differ modulo {multiple}"
    if rules.most_taps is not None and taps > rules.most_taps:
        return f"with a window of {taps} positions, more than {rules.most_taps}"
    return ""
