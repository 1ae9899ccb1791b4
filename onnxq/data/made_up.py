"""Samples made up from a model's signature, for running it where no data is given.

They show whether a model runs, how fast it is, and whether its outputs are finite; they prove
nothing about its accuracy. Floats are normally distributed; integers lie below the rows of the
table that they are looked up in, else they are 0 or 1; a mask is all ones. A symbolic length is 1
on the first axis and :data:`LENGTH` elsewhere; one name, one length. Past keys and values are
empty, as at the start of a text: the length of a mask over past and present has another name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.data.open import open_data
from onnxq.data.roles import role_of
from onnxq.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxq.data.sample import Signature
    from onnxq.data.source import DataSource
    from onnxq.graph.structure import InputSpec

LENGTH = 32
_IMAGE_LENGTH = 64
_SAMPLES = 4


def made_up(signature: Signature, seed: int = 0) -> DataSource:
    """A few samples that fit the signature.

    Args:
        signature: The model's inputs.
        seed: Seeds the values.

    Raises:
        DataError: An input is no tensor, or its rank is unknown.
    """
    wanted = [spec for spec in signature if spec.required]
    for spec in wanted:
        if spec.dtype is None or not spec.rank_known:
            code, text = "data.cannot_make_up", "the model does not say what it wants here"
            raise DataError(code, text, where=f"input {spec.name!r}", remedy="Give --data.")
    generator = np.random.default_rng(seed)
    samples = [_sample(wanted, generator) for _ in range(_SAMPLES)]
    return open_data(samples, signature)


def _sample(wanted: list[InputSpec], generator: np.random.Generator) -> dict[str, NDArray[Any]]:
    lengths: dict[str, int] = {}
    return {spec.name: _values(spec, _shape(spec, lengths), generator) for spec in wanted}


def _shape(spec: InputSpec, lengths: dict[str, int]) -> tuple[int, ...]:
    shape = []
    for axis, dim in enumerate(spec.shape):
        if isinstance(dim, int):
            shape.append(dim)
            continue
        if axis and role_of(spec) == "past":
            shape.append(0)
            continue
        image = len(spec.shape) == 4 and axis >= 2
        length = 1 if axis == 0 else _IMAGE_LENGTH if image else LENGTH
        shape.append(lengths.setdefault(dim, length) if dim else length)
    return tuple(shape)


def _values(
    spec: InputSpec, shape: tuple[int, ...], generator: np.random.Generator
) -> NDArray[Any]:
    dtype = spec.dtype
    if dtype is None or dtype.kind in "OUT":
        return np.full(shape, "text", np.str_)
    if "mask" in spec.name or dtype.kind == "b":
        return np.ones(shape, dtype)
    if dtype.kind in "iu":
        return generator.integers(0, spec.rows or 2, shape).astype(dtype)
    return generator.normal(size=shape).astype(dtype)
