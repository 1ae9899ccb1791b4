"""How numbers are quantized: granularity, scheme and parameters, as frozen types.

A :class:`Scheme` says which integers there are and which numbers share a scale;
:class:`QParams` are the scales and zero points that a range gives under a scheme.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from onnxq.errors import InternalError
from onnxq.numerics import float8

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class PerTensor:
    """One scale for the whole tensor."""


@dataclass(frozen=True, slots=True)
class PerAxis:
    """One scale for each index along ``axis`` (per channel)."""

    axis: int


@dataclass(frozen=True, slots=True)
class PerBlock:
    """One scale for each ``size`` consecutive elements along ``axis``; the last may be ragged."""

    size: int
    axis: int


Granularity = PerTensor | PerAxis | PerBlock


Number = Literal["integer", "float8e4m3fn"]
"""What real numbers are rounded to: integers, or FP8 (:mod:`onnxq.numerics.float8`)."""

PAIR_LIMIT = 128
"""Two products of uint8 by int8 fit into the 16 bits that ``VPMADDUBSW`` adds them in if the
magnitudes of the two int8 add up to no more: 255 · 128 = 32,640, where 32,767 is the greatest."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """The integers, or numbers of 8 bits, that stand for real numbers.

    Attributes:
        bits: Width n of the integers, 2 to 16.
        signed: Whether they run from ``-2^(n-1)`` or from 0.
        symmetric: Whether the zero point is fixed in the middle (0 if signed, ``2^(n-1)`` if not)
            and the range is ``[-amax, amax]``.
        granularity: Which elements share a scale.
        narrow: Leave out the lowest integer, so that the range of a symmetric signed scheme is
            ``[-(2^(n-1) - 1), 2^(n-1) - 1]``; usual for weights.
        pairs: Axes that a kernel sums products over, in its order: of two neighbours, the first and
            second, third and fourth, ..., the magnitudes add up to :data:`PAIR_LIMIT` at most.
            Empty where no such pair is bounded.
        number: What the numbers are; FP8 is symmetric, signed, and has 8 bits.
    """

    bits: int = 8
    signed: bool = False
    symmetric: bool = False
    granularity: Granularity = PerTensor()
    narrow: bool = False
    pairs: tuple[int, ...] = ()
    number: Number = "integer"

    def __post_init__(self) -> None:
        """Refuse widths outside 2 to 16, and FP8 of any form but its own."""
        if not 2 <= self.bits <= 16:
            code, text = "numerics.bits", f"{self.bits} bits; onnxq quantizes to 2 to 16"
            raise InternalError(code, text)
        plain = self.bits == 8 and self.signed and self.symmetric and not self.pairs
        if self.floating and not plain:
            code, text = "numerics.float8", "FP8 is symmetric and signed, and has 8 bits"
            raise InternalError(code, text)

    @property
    def floating(self) -> bool:
        """Whether the numbers are floating-point."""
        return self.number != "integer"

    @property
    def qmin(self) -> int:
        """The lowest integer, or number."""
        if self.floating:
            return -float8.GREATEST
        return (-(1 << (self.bits - 1)) if self.signed else 0) + int(self.narrow)

    @property
    def qmax(self) -> int:
        """The highest integer, or number."""
        if self.floating:
            return float8.GREATEST
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy type that holds the integers, one to an element (unpacked)."""
        if self.floating:
            return float8.E4M3
        width = 16 if self.bits > 8 else 8
        return np.dtype(f"{'int' if self.signed else 'uint'}{width}")

    @property
    def type_name(self) -> str:
        """ONNX's name of the type that holds them, unpacked."""
        return self.number if self.floating else self.dtype.name

    @property
    def label(self) -> str:
        """A short name for tables, e.g. ``uint8`` or ``int8 symmetric``."""
        if self.floating:
            return self.number
        symmetric = " symmetric" if self.symmetric else ""
        pairs = f" in pairs along {list(self.pairs)}" if self.pairs else ""
        return f"{'int' if self.signed else 'uint'}{self.bits}{symmetric}{pairs}"


def middle_of(bits: int) -> int:
    """The zero point of symmetric unsigned integers."""
    return 1 << (bits - 1)


ACTIVATION_UINT8 = Scheme(bits=8, signed=False)
"""Asymmetric uint8 per tensor: what integer kernels take for activations."""

WEIGHT_INT8 = Scheme(bits=8, signed=True, symmetric=True, narrow=True)
"""Symmetric int8 in [-127, 127]; give it a granularity with :func:`dataclasses.replace`."""

FP8 = Scheme(bits=8, signed=True, symmetric=True, number="float8e4m3fn")
"""FP8 (E4M3FN), one scale; give it a granularity with :func:`dataclasses.replace`."""


@dataclass(frozen=True, eq=False, slots=True)
class QParams:
    """Scales and zero points.

    Attributes:
        scale: float32, positive and normal; shape ``()`` per tensor, ``(C,)`` per axis, the blocked
            tensor's shape with the blocked axis divided (rounded up) per block.
        zero_point: The scheme's type, the same shape as ``scale``; 0 in FP8.
        scheme: What they belong to.
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[Any]
    scheme: Scheme

    @property
    def key(self) -> tuple[bytes, bytes, Scheme]:
        """What tells these integers from others."""
        return self.scale.tobytes(), self.zero_point.tobytes(), self.scheme

    @property
    def representable(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The least and the greatest real number that the integers stand for, elementwise."""
        offset = self.zero_point.astype(np.int32)
        low = (self.scheme.qmin - offset).astype(np.float32) * self.scale
        high = (self.scheme.qmax - offset).astype(np.float32) * self.scale
        return low, high
