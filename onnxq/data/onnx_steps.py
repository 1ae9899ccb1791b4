"""A preprocessing model in front of the model: what it gives, the model is fed.

It has one input, whose type says what it wants:

==============================  ===================================================================
uint8 ``[bytes]``               an encoded image: verified and decoded here, handed on as PNG
uint8 ``[height, width, 3]``    the pixels of an image, in the order RGB; a batch axis may precede
string ``[texts]``              one text
==============================  ===================================================================

An encoded image is never handed on as it came: decoders inside graphs end the process or never
return on some damaged files, so what they get is written anew from the pixels that Pillow decoded.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.data.imaging import as_png, to_color
from onnxq.errors import DataError, ModelError
from onnxq.files import read_regular
from onnxq.runtime.extensions import open_preprocessing

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL import Image

    from onnxq.data.sample import Signature

_MOST_BYTES = 1 << 30


class OnnxSteps:
    """Runs a preprocessing model on one image or text after the other."""

    def __init__(self, path: Path, signature: Signature) -> None:
        """Load the model and see which inputs it feeds.

        Raises:
            DataError: It cannot be read, has not one input, or feeds no input of the model.
            ModelError: ONNX Runtime does not load it.
        """
        self._where = str(path)
        try:
            content = read_regular(path, _MOST_BYTES)
        except OSError as error:
            code, text = "preprocess.unreadable", f"the model cannot be read ({error.strerror})"
            remedy = "Name an .onnx or a .toml file."
            raise DataError(code, text, where=self._where, remedy=remedy) from error
        self.digest = hashlib.sha256(content).hexdigest()
        self._session = open_preprocessing(path)
        self._outputs = self._match(signature)
        if len(self._session.inputs) != 1:
            code = "preprocess.inputs"
            text = f"it has {len(self._session.inputs)} inputs where one image or text is fed"
            remedy = "Make everything else constant."
            raise DataError(code, text, where=self._where, remedy=remedy)
        self._input = self._session.inputs[0]
        self.takes_text = self._input.type_text == "tensor(string)"
        if not self.takes_text and self._rank() not in {1, 3, 4}:
            code, text = (
                "preprocess.inputs",
                f"its input is {self._input.type_text} {list(self._input.shape)}",
            )
            remedy = "It should be uint8 [bytes] or [height, width, 3], or string [texts]."
            raise DataError(code, text, where=self._where, remedy=remedy)

    def _rank(self) -> int:
        return len(self._input.shape) if self._input.dtype == np.uint8 else 0

    def _match(self, signature: Signature) -> dict[str, str]:
        """The model's input for each output that is used."""
        given = [spec.name for spec in self._session.outputs]
        wanted = [spec.name for spec in signature]
        matched = {name: name for name in given if name in wanted}
        required = [spec.name for spec in signature if spec.required]
        if not matched and len(given) == 1 and len(required) == 1:
            matched = {given[0]: required[0]}
        if not matched:
            code = "preprocess.outputs"
            text = f"it gives {', '.join(given)}, the model takes {', '.join(wanted)}"
            remedy = "Name its outputs like the model's inputs."
            raise DataError(code, text, where=self._where, remedy=remedy)
        return matched

    def of_image(self, image: Image.Image, where: str) -> dict[str, NDArray[Any]]:
        """What the model is fed for an image."""
        image = to_color(image, "RGB")
        if self._rank() == 1:
            return self._run(as_png(image), where)
        pixels = np.asarray(image)
        return self._run(pixels if self._rank() == 3 else pixels[np.newaxis], where)

    def of_text(self, text: str, where: str) -> dict[str, NDArray[Any]]:
        """What the model is fed for a text."""
        shape = (1,) * len(self._input.shape)
        return self._run(np.array([text], object).reshape(shape), where)

    def _run(self, value: NDArray[Any], where: str) -> dict[str, NDArray[Any]]:
        try:
            found = self._session.run({self._input.name: value}, list(self._outputs))
        except ModelError as error:
            code, text = "preprocess.run", f"{self._where} fails on it: {error.message}"
            remedy = "Leave it out, or repair the preprocessing model."
            raise DataError(code, text, where=where, remedy=remedy) from error
        return dict(zip(self._outputs.values(), found, strict=True))
