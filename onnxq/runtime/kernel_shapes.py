"""The sizes of a product or a convolution, and how people write them.

==========================  ======================================================================
``1x4096x4096``             a product: rows of activations, length of the sum, output channels
``conv:1x64x56x56:128x3x3`` a convolution: the image's batch, channels, height and width; then
                            output channels, kernel height and width; padded to the same size
``...:2`` ``...:1:64``      behind it the stride, and behind that the groups (as many as channels:
                            depthwise)
==========================  ======================================================================
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from onnxq.errors import UsageError

_PRODUCT: Final = re.compile(r"(\d+)x(\d+)x(\d+)")
_CONVOLUTION: Final = re.compile(
    r"conv:(\d+)x(\d+)x(\d+)x(\d+):(\d+)x(\d+)x(\d+)(?::(\d+))?(?::(\d+))?"
)
_MOST_ELEMENTS: Final = 1 << 29
"""Of an operand: a float32 weight of 2 GiB is the most that a model file can hold."""


@dataclass(frozen=True, slots=True)
class ProductShape:
    """A product of activations ``[rows, inner]`` and a weight ``[inner, columns]``."""

    rows: int
    inner: int
    columns: int

    def __str__(self) -> str:
        """As people write it."""
        return f"{self.rows}x{self.inner}x{self.columns}"

    @property
    def input(self) -> tuple[int, ...]:
        """The shape of the activations."""
        return self.rows, self.inner

    @property
    def weight(self) -> tuple[int, ...]:
        """The shape of the weight."""
        return self.inner, self.columns

    @property
    def macs(self) -> int:
        """Multiplications and additions of one run."""
        return self.rows * self.inner * self.columns


@dataclass(frozen=True, slots=True)
class ConvShape:
    """A convolution of an image ``[batch, channels, height, width]``.

    Attributes:
        batch: Images.
        channels: Input channels.
        height: Of the image.
        width: Of the image.
        outputs: Output channels.
        kernel: Height and width of the kernel.
        stride: In both directions.
        groups: Groups of channels; as many as ``channels`` where it is depthwise.
    """

    batch: int
    channels: int
    height: int
    width: int
    outputs: int
    kernel: tuple[int, int]
    stride: int = 1
    groups: int = 1

    def __str__(self) -> str:
        """As people write it."""
        image = "x".join(map(str, self.input))
        text = f"conv:{image}:{self.outputs}x{self.kernel[0]}x{self.kernel[1]}"
        if self.groups > 1:
            return f"{text}:{self.stride}:{self.groups}"
        return f"{text}:{self.stride}" if self.stride > 1 else text

    @property
    def input(self) -> tuple[int, ...]:
        """The shape of the image."""
        return self.batch, self.channels, self.height, self.width

    @property
    def weight(self) -> tuple[int, ...]:
        """The shape of the kernel."""
        return self.outputs, self.channels // self.groups, *self.kernel

    @property
    def macs(self) -> int:
        """Multiplications and additions of one run."""
        pixels = -(-self.height // self.stride) * -(-self.width // self.stride)
        inner = self.channels // self.groups * self.kernel[0] * self.kernel[1]
        return self.batch * pixels * self.outputs * inner


Shape = ProductShape | ConvShape

DEFAULT_SHAPES: Final[tuple[Shape, ...]] = (
    ProductShape(1, 4096, 4096),
    ProductShape(128, 768, 3072),
    ConvShape(1, 64, 56, 56, 128, (3, 3)),
    ConvShape(1, 64, 56, 56, 256, (1, 1)),
    ConvShape(1, 128, 56, 56, 128, (3, 3), groups=128),
)
"""A decoder's step, an encoder's layer; a full, a pointwise and a depthwise convolution."""


def parse_shapes(text: str) -> tuple[Shape, ...]:
    """Shapes with commas between them, each once.

    Raises:
        UsageError: One is not written as above, is empty or too large, or its groups do not divide
            its channels.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise _refusal(text, "no shape is given")
    return tuple(dict.fromkeys(map(_parse, names)))


def _parse(text: str) -> Shape:
    product, convolution = _PRODUCT.fullmatch(text), _CONVOLUTION.fullmatch(text)
    if product:
        shape: Shape = ProductShape(*map(int, product.groups()))
    elif convolution:
        n, c, h, w, k, kh, kw, stride, groups = (int(part or 1) for part in convolution.groups())
        if stride and groups and (c % groups or k % groups):
            raise _refusal(text, f"{groups} groups do not divide {c} and {k} channels")
        shape = ConvShape(n, c, h, w, k, (kh, kw), stride, groups)
    else:
        raise _refusal(text, "it is no shape")
    zero = isinstance(shape, ConvShape) and 0 in (shape.stride, shape.groups)
    if zero or 0 in (*shape.input, *shape.weight):
        raise _refusal(text, "a length of it is 0")
    if max(math.prod(shape.input), math.prod(shape.weight)) > _MOST_ELEMENTS:
        raise _refusal(text, f"an operand has more than {_MOST_ELEMENTS:,} elements")
    return shape


def _refusal(text: str, why: str) -> UsageError:
    form = "conv:1x64x56x56:128x3x3[:stride[:groups]]"
    remedy = f"write rows x inner x columns, as 128x768x3072, or {form}"
    return UsageError("runtime.shape", why, where=text, remedy=remedy)
