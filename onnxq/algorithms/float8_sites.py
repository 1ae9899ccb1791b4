"""Sites that a provider runs in FP8 or not, by the shape of their weight.

Which Convs have no kernel is the target's to say (:meth:`onnxq.targets.Float8Rules.why_not`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.graph.edit import constant_tensor, value_by_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from onnxq.graph.sites import Site
    from onnxq.targets import Target


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
        if tensor is not None and (why := rules.why_not(tuple(tensor.shape.numpy()))):
            found[site.name] = f"{target.provider} has no FP8 kernel for a Conv {why}"
    return found
