"""Samples made up from a model's signature, for running it where no data is given.

They show whether a model runs, how fast it is, and whether its outputs are finite; they prove
nothing about its accuracy. Floats are normally distributed; integers lie below the rows of the
table that they are looked up in, else they are 0 or 1; a mask is all ones. A symbolic length is 1
on the first axis and :data:`LENGTH` elsewhere; one name, one length. Past keys and values are
empty, as at the start of a text. A sum of names is as long as they are together, and so is
``total_sequence_length``, which decoders with a cache call past and sequence. What takes the bytes
of an image gets a PNG of noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.data.extras import require
from onnxq.data.image_input import encoded_input
from onnxq.data.imaging import as_png
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
_SUMS = {"total_sequence_length": "past_sequence_length + sequence_length"}
_ENCODED_LENGTH = 640


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
    encoded = encoded_input(signature)
    if encoded is not None:
        return open_data([{encoded.name: _png(generator)} for _ in range(_SAMPLES)], signature)
    samples = [_sample(wanted, generator) for _ in range(_SAMPLES)]
    return open_data(samples, signature)


def _sample(wanted: list[InputSpec], generator: np.random.Generator) -> dict[str, NDArray[Any]]:
    lengths = {
        dim: 0
        for spec in wanted
        if role_of(spec) == "past"
        for dim in spec.shape[1:]
        if isinstance(dim, str)
    }
    return {spec.name: _values(spec, _shape(spec, lengths), generator) for spec in wanted}


def _png(generator: np.random.Generator) -> NDArray[np.uint8]:
    pillow = require("PIL.Image", "made-up inputs")
    shape = (_ENCODED_LENGTH, _ENCODED_LENGTH, 3)
    return as_png(pillow.fromarray(generator.integers(0, 256, shape, dtype=np.uint8)))


def _shape(spec: InputSpec, lengths: dict[str, int]) -> tuple[int, ...]:
    shape = []
    for axis, dim in enumerate(spec.shape):
        if isinstance(dim, int):
            shape.append(dim)
            continue
        parts = _SUMS.get(dim or "", dim or "").split(" + ")
        if len(parts) > 1:
            shape.append(sum(lengths.setdefault(part, LENGTH) for part in parts))
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
