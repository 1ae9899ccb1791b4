"""What an algorithm may ask to be observed while the calibration data streams by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from onnxq.numerics.schemes import QParams
    from onnxq.numerics.windows import Window


Half = Literal[0, 1]
"""The first or the second half of the samples, in their order: what is fitted to one is judged on
the other. Neighbours are often alike (crops of one picture, windows of one text), so that a random
half would know nearly all of the other."""
HALVES: Final[tuple[Half, Half]] = (0, 1)


@dataclass(frozen=True, slots=True)
class Extrema:
    """Least and greatest value of a tensor, for each sample; reduced inside ONNX Runtime."""

    tensor: str


@dataclass(frozen=True, slots=True)
class Distribution:
    """The histogram of every element of a tensor, and its extrema for each sample."""

    tensor: str


@dataclass(frozen=True, slots=True)
class Channels:
    """Least, greatest and mean absolute value of each channel; reduced inside ONNX Runtime.

    Of all samples, and of the first and the second half of them each.

    Attributes:
        tensor: The tensor.
        axis: The channel axis; negative counts from the end.
    """

    tensor: str
    axis: int


@dataclass(frozen=True, slots=True)
class Moments:
    """The Gram matrix and mean magnitudes of an activation's tokens; padding is left out.

    Every fifth sample is held out from what is fitted to; of fewer than five samples the last fifth
    of each one's tokens.

    Attributes:
        tensor: The tensor; its last axis counts channels, all others tokens.
        window: How a convolution reads it: its tokens are patches then, of each sample some
            hundreds at random places. None for a product with its rows.
    """

    tensor: str
    window: Window | None = None


@dataclass(frozen=True, eq=False, slots=True)
class QuantizedInput:
    """One input of a site as it would be after quantizing.

    Attributes:
        index: Which input.
        name: The activation's or the initializer's name.
        params: Its integers; None for uint8 over the range of each run.
        factor: What the values are multiplied by first; it broadcasts against them. None for 1.
    """

    index: int
    name: str
    params: QParams | None
    factor: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False, slots=True)
class OutputError:
    """Squared error of a site's output when the site alone is quantized.

    Attributes:
        site: The node's name.
        activation: The quantized activation; None leaves it float.
        weight: The quantized weight; None leaves it float.
        label: Names this candidate among those of the site.
        half: On which half of the samples it is measured, 0 or 1; None for any of them.
    """

    site: str
    activation: QuantizedInput | None
    weight: QuantizedInput | None
    label: str
    half: Half | None = None


Request = Extrema | Distribution | Channels | Moments | OutputError
