"""How a Conv reads its input, from its attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from onnxq.numerics.windows import Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

_SAME: Final[dict[str, Literal["front", "behind"]]] = {
    "SAME_LOWER": "front",
    "SAME_UPPER": "behind",
}


def window_of(node: ir.Node, kernel: Sequence[int]) -> Window:
    """The window of a Conv.

    Args:
        node: A Conv.
        kernel: The spatial sizes of its weight.
    """
    attributes, rank = node.attributes, len(kernel)
    auto_pad = attributes.get_string("auto_pad", "NOTSET")
    explicit = auto_pad == "NOTSET"
    return Window(
        kernel=tuple(kernel),
        strides=tuple(attributes.get_ints("strides", [1] * rank)),
        dilations=tuple(attributes.get_ints("dilations", [1] * rank)),
        pads=tuple(attributes.get_ints("pads", [0] * 2 * rank)) if explicit else (0,) * 2 * rank,
        same=_SAME.get(auto_pad, ""),
    )
