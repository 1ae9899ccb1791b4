"""What becomes of a model's outputs, as a TOML file or as a checkpoint says it.

Exactly one of three tables; what it does not use stays an output as it was::

    version = 1

    [classes]                # of a classifier: the likeliest, the first the best
    top = 5
    scores = "softmax"       # or "sigmoid", or "none" where the model gives probabilities
    labels = "labels.txt"    # a line a class, beside this file; or ["cat", "dog"]; may be left out
    output = "logits"        # only where the model has several outputs

    [embedding]              # of a sentence encoder: one vector a text
    pool = "mean"            # over the tokens that the mask keeps; or "first", "max", "none"
    normalize = true         # to length 1

    [boxes]                  # of a detector: boxes in pixels of the image, upright
    format = "cxcywh"        # or "xyxy": four numbers of each box, in pixels of the model's input
    channels = "first"       # [1, 4 + classes, boxes]; or "last": [1, boxes, 4 + classes]
    objectness = false       # a fifth number that scores are multiplied with
    min_score = 0.25
    max_overlap = 0.45       # intersection over union above which the worse of two is dropped
    most = 300
    labels = "labels.txt"

A checkpoint's folder or its ``config.json`` says it too: ``id2label`` makes classes with labels,
``modules.json`` of a sentence encoder its pooling. An ``.onnx`` that reads the model's outputs by
name does anything else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from onnxq.errors import DataError
from onnxq.settings import SettingsFile

if TYPE_CHECKING:
    from pathlib import Path


def _several(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Labels = Annotated[str | tuple[str, ...] | None, BeforeValidator(_several)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ClassSteps(_Frozen):
    """The likeliest classes of scores ``[batch, classes]``.

    Attributes:
        top: How many.
        scores: What makes scores of the model's numbers.
        labels: Names of the classes, or the file that has one a line; None without names.
        output: The model's output; may be left out where it has one.
    """

    top: int = Field(default=1, ge=1)
    scores: Literal["softmax", "sigmoid", "none"] = "softmax"
    labels: Labels = None
    output: str | None = None


class EmbeddingSteps(_Frozen):
    """One vector of each text, of states ``[batch, tokens, channels]``.

    Attributes:
        pool: How tokens become one; ``none`` for an output that is ``[batch, channels]``.
        normalize: Whether each vector is divided by its length.
        output: The model's output; may be left out where it has one.
    """

    pool: Literal["mean", "first", "max", "none"] = "mean"
    normalize: bool = True
    output: str | None = None


class BoxSteps(_Frozen):
    """The boxes of a detector, the best first; see the module for the keys.

    Attributes:
        format: What the four numbers are: the middle and the size, or two corners.
        channels: Where boxes' numbers stand.
        objectness: Whether a fifth number is what the scores are multiplied with.
        min_score: What is worse is left out.
        max_overlap: Of two boxes of a class that share more, the worse is left out.
        most: At most so many boxes of each class.
        labels: As of classes.
        output: The model's output; may be left out where it has one.
    """

    format: Literal["cxcywh", "xyxy"] = "cxcywh"
    channels: Literal["first", "last"] = "first"
    objectness: bool = False
    min_score: Share = 0.25
    max_overlap: Share = 0.45
    most: int = Field(default=300, ge=1)
    labels: Labels = None
    output: str | None = None


class Postprocess(_Frozen):
    """A file of steps.

    Attributes:
        version: The version of the format.
        classes: For a classifier.
        embedding: For a sentence encoder.
        boxes: For a detector.
    """

    version: Literal[1] = 1
    classes: ClassSteps | None = None
    embedding: EmbeddingSteps | None = None
    boxes: BoxSteps | None = None

    @property
    def chosen(self) -> ClassSteps | EmbeddingSteps | BoxSteps:
        """The one that is there."""
        return next(part for part in (self.classes, self.embedding, self.boxes) if part)

    @model_validator(mode="after")
    def _one(self) -> Postprocess:
        if sum(part is not None for part in (self.classes, self.embedding, self.boxes)) != 1:
            msg = "a file of postprocessing wants exactly one of [classes], [embedding] and [boxes]"
            raise ValueError(msg)
        return self


_FILE: Final = SettingsFile(
    model=Postprocess,
    noun="postprocessing file",
    code="postprocess",
    error=DataError,
    tables="[classes]",
)


def load_postprocess(path: str | Path) -> Postprocess:
    """Read a file of steps.

    Raises:
        DataError: There is no such file, it is not TOML, or it does not say what it should.
    """
    return _FILE.load(path)
