"""The part in front of a model, from whatever declares it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from onnxq.bundle.draft import Draft
from onnxq.bundle.image_front import GEOMETRY, ImageFront
from onnxq.bundle.own_part import load_part, outputs_for
from onnxq.bundle.text_front import TextFront
from onnxq.data.image_input import image_input
from onnxq.data.tokenizer_file import read_tokenizer
from onnxq.errors import DataError
from onnxq.graph.edit import NameScope
from onnxq.graph.parts import free_prefix
from onnxq.graph.structure import signature

if TYPE_CHECKING:
    from onnxq.data.declared import Declared
    from onnxq.data.sample import Signature

IMAGE: Final = "image_bytes"
TEXT: Final = "text"
"""What a bundle's input is called, where the model has no value of that name."""


@dataclass(frozen=True, slots=True)
class Front:
    """A part that makes a model's inputs.

    Attributes:
        model: The part.
        geometry: Where pixels of the model's input lie in the image; None where that is not known.
        notes: What the user should know of it.
    """

    model: ir.Model
    geometry: ir.Value | None = None
    notes: tuple[str, ...] = ()


def build_front(core: ir.Model, found: Declared) -> Front:
    """Write the part that makes the inputs of a model.

    Args:
        core: The model.
        found: What is declared.

    Raises:
        DataError: Nothing is declared, or it cannot be put into a graph, or does not fit the model.
    """
    wanted = signature(core)
    if found.model is not None:
        part = load_part(found.model, core, "pre")
        return Front(outputs_for(part, core, str(found.model)))
    draft = Draft(free_prefix(core, "pre"), NameScope(core))
    if found.steps.image is not None and found.tokenizer is not None:
        code, text = "bundle.both", "it declares images and texts, a bundle takes one of them"
        raise DataError(code, text, where=found.where, remedy="Name the file of the one.")
    if found.steps.image is not None:
        return _of_images(draft, found, wanted)
    if found.tokenizer is not None:
        return _of_texts(draft, found, wanted)
    code, text = "bundle.nothing", "it declares neither images nor a tokenizer"
    remedy = "Add [image], or name the tokenizer.json with --tokenizer."
    raise DataError(code, text, where=found.where, remedy=remedy)


def _of_images(draft: Draft, found: Declared, wanted: Signature) -> Front:
    steps = found.steps.image
    if steps is None:
        return Front(draft.model())
    spec = image_input(wanted, steps, found.where)
    front = ImageFront(draft, steps, found.where)
    pixels = front.pixels(draft.input(IMAGE, ir.DataType.UINT8, ["bytes"]))
    height, width = steps.size or ("height", "width")
    shape = [1, steps.channels, height, width]
    if steps.layout == "NHWC":
        shape = [1, height, width, steps.channels]
    draft.output(pixels, spec.name, ir.DataType.from_numpy(np.dtype(steps.dtype)), shape)
    geometry = front.geometry()
    draft.output(geometry, draft.name(GEOMETRY), ir.DataType.FLOAT, [4])
    return Front(draft.model(), geometry)


def _of_texts(draft: Draft, found: Declared, wanted: Signature) -> Front:
    if found.tokenizer is None:
        return Front(draft.model())
    file = read_tokenizer(found.tokenizer, wanted)
    front = TextFront(draft, file, found.steps.text)
    made = front.inputs(draft.input(TEXT, ir.DataType.STRING, [front.axis]))
    for spec in file.wanted.values():
        dtype = ir.DataType.INT64 if spec.dtype is None else ir.DataType.from_numpy(spec.dtype)
        draft.output(made[spec.name], spec.name, dtype, [front.axis, file.fixed or "tokens"])
    return Front(draft.model(), notes=front.notes)
