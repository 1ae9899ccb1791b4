"""The steps that a :class:`Reading` names, opened for one model."""

from __future__ import annotations

import io
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from onnxq.data.declared import declared
from onnxq.data.decode import decode
from onnxq.data.image_input import encoded_input, image_input
from onnxq.data.imaging import as_png, prepare_image
from onnxq.data.onnx_steps import OnnxSteps
from onnxq.data.preprocess import EXAMPLE
from onnxq.data.token_stream import TokenStream, window_for
from onnxq.data.tokenizer import Tokenizer
from onnxq.data.tokenizer_file import read_tokenizer
from onnxq.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from onnxq.data.preprocess import ImageSteps
    from onnxq.data.reading import Reading
    from onnxq.data.sample import Signature
    from onnxq.data.tokenizer_file import TokenizerFile
    from onnxq.graph.structure import InputSpec

    Feeds = dict[str, NDArray[Any]]


class Steps:
    """Makes a model's inputs of images and texts; what is not used is not opened."""

    def __init__(self, reading: Reading, signature: Signature) -> None:
        """Read the file of steps, if it is one.

        Raises:
            DataError: It cannot be read or says something unknown.
        """
        self._signature = signature
        self._image: tuple[ImageSteps, InputSpec] | None = None
        self._found = declared(_path(reading.preprocess), _path(reading.tokenizer))
        self._declared = self._found.steps
        self._is_model = self._found.model is not None
        self._encoded = None if self._found.where else encoded_input(signature)

    @property
    def given(self) -> bool:
        """Whether the user named any steps."""
        return bool(self._found.where)

    @property
    def tokenizes(self) -> bool:
        """Whether the user named a tokenizer."""
        return self._found.tokenizer is not None

    @property
    def text_column(self) -> str:
        """Where the text stands in a table."""
        return self._declared.text.column

    @cached_property
    def packing(self) -> TokenStream | None:
        """What makes windows of texts; None where each text is a sample."""
        if not self.tokenizes or self._takes_text:
            return None
        file, steps = self._tokenizer_file, self._declared.text
        if not window_for(file, self._signature, steps):
            return None
        return TokenStream(file, self._signature, steps)

    def image_digest(self) -> bytes:
        """Of all that an image's arrays depend on beside the image."""
        if self._is_model:
            return self._model.digest.encode()
        image = self._declared.image
        return b"" if image is None else image.model_dump_json().encode()

    def text_digest(self) -> bytes:
        """Of all that a text's arrays depend on beside the text."""
        if self._takes_text:
            return self._model.digest.encode()
        if not self.tokenizes:
            return b""
        return (self.packing or self._tokenizer).digest.encode()

    def image(self, stream: BinaryIO | bytes, where: str) -> Feeds:
        """What the model is fed for an encoded image.

        Raises:
            DataError: It cannot be decoded, or no steps for images are declared.
        """
        self.check_image(where)
        opened = io.BytesIO(stream) if isinstance(stream, bytes) else stream
        return self.pixels(decode(opened, where), where)

    def pixels(self, image: Image.Image, where: str) -> Feeds:
        """What the model is fed for an image that is decoded.

        Raises:
            DataError: No steps for images are declared, or it does not fit them.
        """
        if self._is_model:
            self.check_image(where)
            return self._model.of_image(image, where)
        if self._encoded is not None:
            return {self._encoded.name: as_png(image)}
        steps, spec = self._image_steps(where)
        return {spec.name: prepare_image(image, steps, where)}

    def text(self, text: str, where: str) -> Feeds:
        """What the model is fed for a text.

        Raises:
            DataError: It is too long or empty, or neither a tokenizer nor another way is named.
        """
        if self._takes_text:
            return self._model.of_text(text, where)
        if self.tokenizes:
            return self._tokenizer(text, where)
        string = self._string_input
        if string is None:
            code, why = "data.no_tokenizer", "a text needs a tokenizer to become numbers"
            remedy = "Give --tokenizer with the model's tokenizer.json or the folder that holds it."
            raise DataError(code, why, where=where, remedy=remedy)
        return {string.name: np.array([text], object).reshape((1,) * len(string.shape))}

    def text_notes(self) -> tuple[str, ...]:
        """What became of texts so far."""
        if not self.tokenizes or self._takes_text:
            return ()
        return self._tokenizer.notes

    def check_image(self, where: str) -> None:
        """Refuse to read images where it is not declared how, or not as the model wants it.

        Raises:
            DataError: With a remedy that shows a whole file.
        """
        if self._is_model:
            if self._model.takes_text:
                code, text = (
                    "preprocess.inputs",
                    f"{self._found.where} takes texts, these are images",
                )
                raise DataError(code, text, where=where, remedy="Give one that takes images.")
        elif self._encoded is None:
            self._image_steps(where)

    def _image_steps(self, where: str) -> tuple[ImageSteps, InputSpec]:
        """The declared steps and the input they are for, which must agree."""
        if self._image is None:
            steps = self._declared.image
            if steps is None:
                code = "data.no_preprocess"
                text = "how an image becomes the model's input is not declared"
                remedy = f"Give --preprocess with a TOML file of such lines: {EXAMPLE}"
                raise DataError(code, text, where=where, remedy=remedy)
            self._image = steps, image_input(self._signature, steps, self._found.where)
        return self._image

    @cached_property
    def _model(self) -> OnnxSteps:
        return OnnxSteps(self._found.model or Path(), self._signature)

    @property
    def _takes_text(self) -> bool:
        return self._is_model and self._model.takes_text

    @cached_property
    def _tokenizer_file(self) -> TokenizerFile:
        return read_tokenizer(self._found.tokenizer or Path(), self._signature)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer(self._tokenizer_file, self._declared.text)

    @cached_property
    def _string_input(self) -> InputSpec | None:
        """The only input, if it takes strings: texts need no tokenizer then."""
        required = [spec for spec in self._signature if spec.required]
        if len(required) != 1 or required[0].dtype is None or not required[0].rank_known:
            return None
        return required[0] if required[0].dtype.kind in "OUT" else None


def _path(named: str | Path | None) -> Path | None:
    return None if named is None else Path(named)
