"""Which of a model's inputs an image is for, and whether the declared steps make what it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxq.errors import DataError

if TYPE_CHECKING:
    from onnxq.data.preprocess import ImageSteps
    from onnxq.data.sample import Signature
    from onnxq.graph.structure import InputSpec


def image_input(signature: Signature, steps: ImageSteps, where: str) -> InputSpec:
    """The input that images are for, which the steps fit.

    Args:
        signature: The model's inputs.
        steps: The declared steps.
        where: The file that declares them, for messages.

    Raises:
        DataError: It is not clear which, or no image could make the steps fit it.
    """
    spec = _chosen(signature, steps, where)
    _check_declared(steps, spec, where)
    return spec


def encoded_input(signature: Signature) -> InputSpec | None:
    """The only input, if it takes the bytes of an encoded image: uint8 ``[bytes]``."""
    required = [spec for spec in signature if spec.required]
    if len(required) != 1 or not required[0].rank_known or required[0].dtype != np.uint8:
        return None
    shape = required[0].shape
    # As many numbers each time are no file.
    return required[0] if len(shape) == 1 and not isinstance(shape[0], int) else None


def _chosen(signature: Signature, steps: ImageSteps, where: str) -> InputSpec:
    names = [spec.name for spec in signature]
    if steps.input is not None:
        found = next((spec for spec in signature if spec.name == steps.input), None)
        if found is None:
            code, text = "preprocess.input", f"the model has no input {steps.input!r}"
            remedy = f"Its inputs: {', '.join(map(repr, names))}."
            raise DataError(code, text, where=where, remedy=remedy)
        return found
    required = [spec for spec in signature if spec.required] or list(signature)
    likely = [spec for spec in required if len(spec.shape) == 4 or not spec.rank_known]
    chosen = required if len(required) == 1 else likely
    if len(chosen) != 1:
        code, text = "preprocess.input", "which of the model's inputs the image is for is not said"
        remedy = f"Add to [image]: input = one of {', '.join(map(repr, names))}."
        raise DataError(code, text, where=where, remedy=remedy)
    return chosen[0]


def _check_declared(steps: ImageSteps, spec: InputSpec, where: str) -> None:
    """Refuse what no image could make fit, before any is read."""
    if spec.dtype is not None and spec.dtype != np.dtype(steps.dtype):
        code, text = "preprocess.dtype", f"it makes {steps.dtype}, {spec.name!r} is {spec.dtype}"
        raise DataError(code, text, where=where, remedy=f'Say dtype = "{spec.dtype}".')
    if not spec.rank_known:
        return
    height, width = steps.size or (None, None)
    made: tuple[int | None, ...] = (1, height, width, steps.channels)
    if steps.layout == "NCHW":
        made = (1, steps.channels, height, width)
    if len(spec.shape) == 4 and all(
        have == want or not isinstance(want, int) or have is None
        for have, want in zip(made, spec.shape, strict=True)
    ):
        _check_sized(steps, spec, where)
        return
    shown = ", ".join("?" if length is None else str(length) for length in made)
    wanted = ", ".join("?" if length is None else str(length) for length in spec.shape)
    code, text = "preprocess.shape", f"it makes [{shown}], {spec.name!r} is [{wanted}]"
    remedy = "Adapt layout, color, resize or crop; onnxq feeds one image at a time."
    raise DataError(code, text, where=where, remedy=remedy)


def _check_sized(steps: ImageSteps, spec: InputSpec, where: str) -> None:
    sides = spec.shape[2:] if steps.layout == "NCHW" else spec.shape[1:3]
    fixed = [side for side in sides if isinstance(side, int)]
    if fixed and steps.size is None:
        code, text = "preprocess.size", f"{spec.name!r} is {fixed} pixels, images vary"
        remedy = f"Declare a resize and crop = {fixed}, say." if len(fixed) == 2 else "Resize them."
        raise DataError(code, text, where=where, remedy=remedy)
