"""Which weights are long enough for blocks of a size; a shorter one stays float, and says why."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from onnxq.graph.edit import constant_tensor, value_by_name
from onnxq.recipe import WeightOverride

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import onnx_ir as ir

    from onnxq.graph.sites import Site
    from onnxq.recipe import RuleOutcome


def override_of(outcomes: Mapping[str, RuleOutcome], name: str) -> WeightOverride:
    """What a rule says of the weight of a site."""
    outcome = outcomes.get(name)
    return WeightOverride() if outcome is None or outcome.weight is None else outcome.weight


def filled(size: int, channels: int, least: int) -> int:
    """The largest of a block size, its half, its quarter ... that so many input channels fill.

    Where they do not fill the least there is, it is that.
    """
    while size > least and size > channels:
        size //= 2
    return size


def too_short(lengths: Mapping[str, int], sizes: Mapping[str, int]) -> dict[str, str]:
    """The products whose weight has fewer input channels than a block, with the reason.

    Args:
        lengths: Input channels of each site's weight.
        sizes: The block size of each.
    """
    return {
        name: f"its {lengths[name]} input channels are fewer than a block of {size}"
        for name, size in sizes.items()
        if lengths[name] < size
    }


def sizes_that_fit(
    sizes: Iterable[int], lengths: Mapping[str, int], outcomes: Mapping[str, RuleOutcome]
) -> tuple[int, ...]:
    """The block sizes with which at least one weight is stored.

    Args:
        sizes: Those to look at.
        lengths: Input channels of each site's weight.
        outcomes: What the recipe's rules say of each site.
    """
    own = {name: override_of(outcomes, name).block_size for name in lengths}
    return tuple(s for s in sizes if any(lengths[name] >= (own[name] or s) for name in lengths))


def input_channels(model: ir.Model, sites: Iterable[Site]) -> dict[str, int]:
    """How many input channels the weight of each product has, by the site's name."""
    values = value_by_name(model.graph)
    found = {}
    for site in sites:
        value = values.get(site.weight or "")
        tensor = None if value is None else constant_tensor(value)
        if tensor is None or site.activation is None or site.weight_axis is None:
            continue
        shape = tuple(tensor.shape.numpy())
        axes = site.sums or [axis for axis in range(len(shape)) if axis != site.weight_axis]
        found[site.name] = math.prod(shape[axis] for axis in axes)
    return found
