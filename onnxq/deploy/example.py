"""An example of each input of a model, of the right type and shape; the values say nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.data.image_input import encoded_input
from onnxq.data.made_up import made_up
from onnxq.data.roles import role_of
from onnxq.errors import ModelError
from onnxq.graph.structure import signature

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from onnxq.graph.structure import InputSpec

_TOKENS = 8
_IMAGE = 224


def example_inputs(model: ir.Model) -> dict[str, NDArray[Any]]:
    """Arrays by input name: zeros, masks of ones, texts, a PNG; open lengths are filled in.

    Raises:
        ModelError: An input is no tensor, or its rank is unknown.
    """
    wanted = signature(model)
    if encoded_input(wanted) is not None:
        return dict(next(iter(made_up(wanted))).feeds)
    lengths: dict[str, int] = {}
    return {spec.name: _array(spec, lengths) for spec in wanted if spec.required}


def _array(spec: InputSpec, lengths: dict[str, int]) -> NDArray[Any]:
    if not spec.rank_known or spec.dtype is None:
        code, text = "deploy.input_type", f"input {spec.name!r} is no tensor of a known rank"
        raise ModelError(code, text, where=spec.name, remedy="declare its type in the model")
    role = role_of(spec)
    shape = []
    for axis, dim in enumerate(spec.shape):
        if isinstance(dim, int):
            shape.append(dim)
        elif role == "past" and axis:
            shape.append(0)
        else:
            image = len(spec.shape) == 4 and axis >= 2
            length = 1 if axis == 0 else _IMAGE if image else _TOKENS
            shape.append(lengths.setdefault(dim, length) if dim else length)
    if spec.dtype.kind in "OUT":
        return np.full(shape, "text", object)
    return np.full(shape, int(role == "mask"), spec.dtype)
