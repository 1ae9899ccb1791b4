"""Blocks over images, sounds and volumes: convolutions, pools, normalization, resizing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tests.whole_graph.blocks import block

if TYPE_CHECKING:
    from tests.whole_graph.draft import Dim, Draft, Shape, Val


def _sizes(x: Val) -> tuple[int, ...] | None:
    """Channels and lengths, where all are numbers above 0."""
    sizes = tuple(dim for dim in x.shape[1:] if isinstance(dim, int) and dim > 0)
    return sizes if len(sizes) == x.rank - 1 else None


def _bias(draft: Draft, inputs: list[Val], channels: int) -> list[Val]:
    return [*inputs, draft.vector(channels)] if draft.chance(0.7) else inputs


@block(3, 4, 5, often=5)
def conv(draft: Draft, x: Val) -> Val | None:
    sizes = _sizes(x)
    if sizes is None:
        return None
    channels, lengths = sizes[0], sizes[1:]
    divisors = [n for n in (1, 1, 2, 3, channels) if channels % n == 0]
    group = draft.pick(divisors)
    filters = group * int(draft.rng.integers(1, 4)) if group > 1 else draft.pick((3, 4, 6, 8))
    kernel = [draft.pick((1, 2, 3)) if size >= 3 else 1 for size in lengths]
    stride = [draft.pick((1, 1, 2)) for _ in lengths]
    weight = draft.weight(
        filters, channels // group, *kernel, fan_in=channels // group * int(np.prod(kernel))
    )
    attributes = {"group": group, "strides": stride, "kernel_shape": kernel}
    padding = draft.pick(("none", "pads", "SAME_UPPER", "SAME_LOWER", "VALID", "dilated"))
    spread = [1] * len(kernel)
    pads = [0] * len(kernel)
    if padding == "dilated":
        spread = [2 if k == 2 else 1 for k in kernel]
        attributes["dilations"] = spread
    elif padding == "pads":
        pads = [1] * len(kernel)
        attributes["pads"] = pads * 2
    elif padding != "none":
        attributes["auto_pad"] = padding
    out = []
    for size, k, s, d, p in zip(lengths, kernel, stride, spread, pads, strict=True):
        if padding.startswith("SAME"):
            out.append(-(-size // s))
        else:
            out.append((size + 2 * p - (d * (k - 1) + 1)) // s + 1)
    if min(out) < 1:
        return None
    made: Shape = (x.shape[0], filters, *out)
    return draft.op("Conv", _bias(draft, [x, weight], filters), made, **attributes)


@block(3, 4, 5)
def conv_transpose(draft: Draft, x: Val) -> Val | None:
    sizes = _sizes(x)
    if sizes is None or np.prod(sizes) > 600:
        return None
    channels, lengths = sizes[0], sizes[1:]
    group = draft.pick([n for n in (1, 1, 2) if channels % n == 0])
    each = draft.pick((1, 2, 3))
    weight = draft.weight(channels, each, *[2] * len(lengths), fan_in=channels // group, axis=1)
    stride = draft.pick((1, 2))
    out = tuple((size - 1) * stride + 2 for size in lengths)
    attributes = {"group": group, "strides": [stride] * len(lengths)}
    inputs = _bias(draft, [x, weight], group * each)
    return draft.op("ConvTranspose", inputs, (x.shape[0], group * each, *out), **attributes)


@block(3, 4, 5, often=1.5)
def pool(draft: Draft, x: Val) -> Val | None:
    sizes = _sizes(x)
    if sizes is None or min(sizes[1:]) < 2:
        return None
    op = draft.pick(("MaxPool", "AveragePool", "LpPool", "MaxPool"))
    out = tuple((size - 2) // 2 + 1 for size in sizes[1:])
    steps = [2] * len(out)
    shape = (x.shape[0], sizes[0], *out)
    if op == "MaxPool" and draft.chance(0.3):
        # What a padded MaxPool becomes in some exporters.
        low = -3.4e38
        x, wider = (
            _padded(draft, x, sizes, low),
            tuple((size + 2 - 2) // 2 + 1 for size in sizes[1:]),
        )
        shape = (x.shape[0], sizes[0], *wider)
    return draft.op(op, [x], shape, kernel_shape=steps, strides=steps)


def _padded(draft: Draft, x: Val, sizes: tuple[int, ...], value: float) -> Val:
    count = len(sizes) - 1
    pads = [0, 0, *[1] * count] * 2
    shape = (x.shape[0], sizes[0], *(size + 2 for size in sizes[1:]))
    if draft.style.opset < 11:
        return draft.op("Pad", [x], shape, pads=pads, value=value)
    return draft.op("Pad", [x, draft.ints(*pads), draft.scalar(value)], shape)


@block(3, 4, 5)
def pad(draft: Draft, x: Val) -> Val | None:
    sizes = _sizes(x)
    if sizes is None or np.prod(sizes) > 600:
        return None
    return _padded(draft, x, sizes, draft.pick((0.0, 0.5)))


@block(3, 4, 5, often=1.2)
def batch_norm(draft: Draft, x: Val) -> Val | None:
    channels = x.shape[1]
    if not isinstance(channels, int) or channels == 0:
        return None
    scale, variance = draft.vector(channels, 0.5, 1.5), draft.vector(channels, 0.5, 1.5)
    shift, mean = draft.vector(channels), draft.vector(channels)
    return draft.op("BatchNormalization", [x, scale, shift, mean, variance], x.shape)


@block(3, 4, 5, often=0.7)
def instance_norm(draft: Draft, x: Val) -> Val | None:
    sizes = _sizes(x)
    if sizes is None or np.prod(sizes[1:]) < 3:
        return None
    inputs = [x, draft.vector(sizes[0], 0.5, 1.5), draft.vector(sizes[0])]
    return draft.op("InstanceNormalization", inputs, x.shape, epsilon=1e-2)


@block(3, 4, 5, often=1.5)
def global_pool(draft: Draft, x: Val) -> Val | None:
    sizes = _sizes(x)
    if sizes is None:
        return None
    op = draft.pick(("GlobalAveragePool", "GlobalMaxPool"))
    ones: tuple[Dim, ...] = (1,) * (x.rank - 2)
    made = draft.op(op, [x], (x.shape[0], sizes[0], *ones))
    return draft.op("Flatten", [made], (x.shape[0], sizes[0]), axis=1)


@block(4)
def resize(draft: Draft, x: Val) -> Val | None:
    sizes = _sizes(x)
    if sizes is None or np.prod(sizes) > 300:
        return None
    shape = (x.shape[0], sizes[0], 2 * sizes[1], 2 * sizes[2])
    scales = draft.constant(np.asarray([1, 1, 2, 2], np.float32))
    if draft.style.opset < 9:
        return draft.op("Upsample", [x], shape, scales=[1.0, 1.0, 2.0, 2.0])
    if draft.style.opset < 10:
        return draft.op("Upsample", [x, scales], shape)
    inputs: list[Val | str] = [x, scales]
    mode = draft.pick(("nearest", "linear"))
    if draft.style.opset >= 11:
        empty: Val | str = ""
        if draft.style.opset < 13:
            empty = draft.constant(np.zeros(0, np.float32))
        inputs = [x, empty, scales]
    return draft.op("Resize", inputs, shape, mode=mode)


@block(4, often=0.6)
def space_to_depth(draft: Draft, x: Val) -> Val | None:
    sizes = _sizes(x)
    if sizes is None or sizes[1] % 2 or sizes[2] % 2:
        return None
    shape = (x.shape[0], 4 * sizes[0], sizes[1] // 2, sizes[2] // 2)
    made = draft.op("SpaceToDepth", [x], shape, blocksize=2)
    if draft.chance(0.5):
        return made
    return draft.op("DepthToSpace", [made], x.shape, blocksize=2)


@block(4, often=0.5)
def fused_conv(draft: Draft, x: Val) -> Val | None:
    sizes = _sizes(x)
    if sizes is None:
        return None
    weight = draft.weight(4, sizes[0], 1, 1, fan_in=sizes[0])
    inputs = [x, weight, draft.vector(4)]
    shape = (x.shape[0], 4, *sizes[1:])
    return draft.op(
        "com.microsoft::FusedConv", inputs, shape, activation="Relu", kernel_shape=[1, 1]
    )
