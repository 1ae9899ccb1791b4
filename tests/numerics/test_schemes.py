"""Schemes: which integers there are."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq.errors import InternalError
from onnxq.numerics.affine import qparams_from_range
from onnxq.numerics.schemes import ACTIVATION_UINT8, WEIGHT_INT8, Scheme


@pytest.mark.parametrize("bits", range(2, 17))
def test_integers_of_each_width(bits: int) -> None:
    unsigned, signed = Scheme(bits=bits), Scheme(bits=bits, signed=True)
    assert (unsigned.qmin, unsigned.qmax) == (0, 2**bits - 1)
    assert (signed.qmin, signed.qmax) == (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    narrow = Scheme(bits=bits, signed=True, symmetric=True, narrow=True)
    assert narrow.qmin == -narrow.qmax
    for scheme in (unsigned, signed, narrow):
        info = np.iinfo(scheme.dtype)
        assert info.bits == (8 if bits <= 8 else 16)
        assert info.min <= scheme.qmin < scheme.qmax <= info.max


@pytest.mark.parametrize("bits", [-1, 0, 1, 17, 32])
def test_other_widths_are_refused(bits: int) -> None:
    with pytest.raises(InternalError) as caught:
        Scheme(bits=bits)
    assert caught.value.code == "numerics.bits"


def test_named_schemes() -> None:
    assert (ACTIVATION_UINT8.label, ACTIVATION_UINT8.dtype.name) == ("uint8", "uint8")
    assert (WEIGHT_INT8.label, WEIGHT_INT8.dtype.name) == ("int8 symmetric", "int8")
    assert (WEIGHT_INT8.qmin, WEIGHT_INT8.qmax) == (-127, 127)
    assert Scheme(bits=4, signed=True).label == "int4"


def test_representable_is_what_the_outermost_integers_stand_for() -> None:
    low, high = qparams_from_range(
        np.asarray([-64.0, 0.0]), np.asarray([191.0, 510.0]), ACTIVATION_UINT8
    ).representable
    assert low.tolist() == [-64.0, 0.0]
    assert high.tolist() == [191.0, 510.0]
