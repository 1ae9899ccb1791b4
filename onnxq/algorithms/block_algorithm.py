"""How weights in blocks are quantized: scaled or not, in which ranges, rounded one by one or not.

Three questions, each answered by itself, so that algorithms stack:

=========  ========================  =====================  ====================
name       input channels            range of a block       rounding
=========  ========================  =====================  ====================
rtn        as they are               covers it              to the nearest
mse        as they are               least squares          to the nearest
hqq        as they are               half-quadratic         to the nearest
awq        scaled by activations     clip search            to the nearest
gptq       as they are               covers it              GPTQ
awq+gptq   scaled by activations     clip search            GPTQ
=========  ========================  =====================  ====================

``mse+gptq`` and ``hqq+gptq`` there are too. ``auto`` takes for each layer what errs least on tokens
that were held out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from onnxq.numerics.blockwise import minmax_params
from onnxq.numerics.clip import clipped_params
from onnxq.numerics.hqq import half_quadratic_params

if TYPE_CHECKING:
    from onnxq.numerics.blockwise import Matrix
    from onnxq.numerics.schemes import QParams, Scheme

Ranges = Literal["minmax", "mse", "hqq", "clip"]


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One way to quantize a weight in blocks.

    Attributes:
        name: As the recipe says it.
        scaled: Whether input channels may be scaled by the size of their activations (AWQ).
        ranges: How the range of a block is found.
        compensated: Whether later columns make up for the error of earlier ones (GPTQ).
    """

    name: str
    scaled: bool = False
    ranges: Ranges = "minmax"
    compensated: bool = False

    @property
    def needs_activations(self) -> bool:
        """Whether it works on calibration data only."""
        return self.scaled or self.ranges == "clip" or self.compensated


ALGORITHMS: Final = {
    algorithm.name: algorithm
    for algorithm in (
        Algorithm("rtn"),
        Algorithm("mse", ranges="mse"),
        Algorithm("hqq", ranges="hqq"),
        Algorithm("awq", scaled=True, ranges="clip"),
        Algorithm("gptq", compensated=True),
        Algorithm("mse+gptq", ranges="mse", compensated=True),
        Algorithm("hqq+gptq", ranges="hqq", compensated=True),
        Algorithm("awq+gptq", scaled=True, ranges="clip", compensated=True),
    )
}

WITH_DATA: Final = "awq+gptq"
WITHOUT_DATA: Final = "hqq"
"""What is taken where nothing is asked for. GPTQ behind AWQ takes half as long again and errs less
on every model: on SmolLM2 a quarter of the KL. Without data half-quadratic ranges beside those that
cover each block: +0.2 dB on MiniLM, +1.4 on EfficientNet-Lite0, -0.8 on PP-OCRv6, 2 % more KL on
SmolLM2; of least squares +0.4, +1.2, -1.4 and 9 %."""

AUTO: Final = ("hqq", "mse", "awq", "gptq", "awq+gptq")
"""What ``auto`` chooses from; without activations from those that need none."""


def ranges_of(weight: Matrix, gram: Matrix | None, ranges: Ranges, scheme: Scheme) -> QParams:
    """Scales and zero points of a weight ``[N, K]``.

    Args:
        weight: As it is multiplied, with channel scales in it.
        gram: ``X^T X`` of what it is multiplied by; only ``clip`` looks at it.
        ranges: How ranges are found.
        scheme: The integers.
    """
    match ranges:
        case "minmax":
            return minmax_params(weight, scheme)
        case "mse":
            return clipped_params(weight, None, scheme)
        case "hqq":
            return half_quadratic_params(weight, scheme)
        case "clip":
            return clipped_params(weight, gram, scheme)
