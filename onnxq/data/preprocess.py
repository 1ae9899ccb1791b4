"""The steps from an image or a text to a model's input, as a TOML file.

An image is turned upright (EXIF), converted to ``color``, resized, cropped from the middle, and
becomes ``(pixel * scale - mean) / std`` with a batch dimension of 1. All of it is said, nothing is
guessed::

    version = 1

    [image]
    resize = { shortest = 256, interpolation = "bicubic" }  # or exact, or letterbox
    crop = [224, 224]             # height and width
    color = "RGB"                 # or "BGR", "L"
    scale = "1/255"               # a number or a fraction
    mean = [0.485, 0.456, 0.406]  # one number, or one a channel
    std = [0.229, 0.224, 0.225]
    layout = "NCHW"               # or "NHWC"
    dtype = "float32"             # or "float16", "float64", "uint8", "int8"
    input = "pixel_values"        # only where the model has several inputs

    [text]
    max_length = 128              # longer texts are cut; left out: as the tokenizer says
    column = "text"               # where the text stands in .jsonl, .csv and .parquet
    add_special_tokens = true
    pad_token = "[PAD]"           # for a model of fixed length; left out: as the tokenizer says
    window = 256                  # texts of a file are joined and cut to windows of so many tokens
    past = 128                    # so many of them come first, as past keys and values

Windows are for language models, and what they get where ``window`` is left out: of 256 tokens, or
as many as the model takes. ``window = 0`` makes each text a sample, as it is for other models.
``resize`` is one of ``{ shortest = 256 }`` (the shorter side, the shape is kept),
``{ exact = [224, 224] }`` (height and width) and ``{ letterbox = [640, 640], fill = 114 }`` (as
large as fits, in the middle). ``interpolation`` is nearest, box, bilinear (the default), bicubic
or lanczos.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from onnxq.errors import DataError
from onnxq.settings import SettingsFile

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLE: Final = (
    'version = 1; [image]; resize = { shortest = 256 }; crop = [224, 224]; scale = "1/255"; '
    "mean = [0.485, 0.456, 0.406]; std = [0.229, 0.224, 0.225]"
)
"""A whole file, its lines parted by semicolons, for a remedy."""

Interpolation = Literal["nearest", "box", "bilinear", "bicubic", "lanczos"]


def _fraction(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return float(Fraction(value))
    except (ValueError, ZeroDivisionError) as error:
        msg = f"{value!r} is no number and no fraction like 1/255"
        raise ValueError(msg) from error


def _several(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Side = Annotated[int, Field(ge=1, le=16384)]
Size = Annotated[tuple[Side, Side], BeforeValidator(_several)]
Channels = Annotated[float | tuple[float, ...], BeforeValidator(_several)]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Resize(_Frozen):
    """How an image gets its size; exactly one of the first three.

    Attributes:
        shortest: Pixels of the shorter side.
        exact: Height and width.
        letterbox: Height and width that the image is fitted into, its shape kept.
        interpolation: How pixels are computed; always with antialiasing.
        fill: What surrounds the image in a letterbox, 0 to 255.
    """

    shortest: Side | None = None
    exact: Size | None = None
    letterbox: Size | None = None
    interpolation: Interpolation = "bilinear"
    fill: int = Field(default=0, ge=0, le=255)

    @model_validator(mode="after")
    def _one_way(self) -> Resize:
        if sum(way is not None for way in (self.shortest, self.exact, self.letterbox)) != 1:
            msg = "resize wants exactly one of shortest, exact and letterbox"
            raise ValueError(msg)
        return self


class ImageSteps(_Frozen):
    """The steps for images; see the module for the file.

    Attributes:
        input: The model's input; may be left out where it has one.
        resize: How the image gets its size; None leaves it.
        crop: Height and width cut from the middle; None for all.
        color: Order of the channels, or L for one of gray.
        scale: What pixels of 0 to 255 are multiplied with.
        mean: What is then subtracted, of each channel.
        std: What the result is then divided by.
        layout: Where the channels stand.
        dtype: The element type.
    """

    input: str | None = None
    resize: Resize | None = None
    crop: Size | None = None
    color: Literal["RGB", "BGR", "L"] = "RGB"
    scale: Annotated[float, BeforeValidator(_fraction)]
    mean: Channels
    std: Channels
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    dtype: Literal["float32", "float16", "float64", "uint8", "int8"] = "float32"

    @property
    def channels(self) -> int:
        """How many channels the result has."""
        return 1 if self.color == "L" else 3

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of every result; None where they follow from the image."""
        if self.crop is not None or self.resize is None:
            return self.crop
        return self.resize.exact or self.resize.letterbox

    @model_validator(mode="after")
    def _channels_agree(self) -> ImageSteps:
        for key in ("mean", "std"):
            value = getattr(self, key)
            if isinstance(value, tuple) and len(value) != self.channels:
                msg = f"{key} has {len(value)} numbers, {self.color} has {self.channels} channels"
                raise ValueError(msg)
        stds = self.std if isinstance(self.std, tuple) else (self.std,)
        if 0.0 in stds:
            msg = "std has a 0, which nothing can be divided by"
            raise ValueError(msg)
        return self


class TextSteps(_Frozen):
    """The steps for texts; see the module for the file.

    Attributes:
        max_length: Most tokens of a text; None leaves it to the tokenizer.
        column: Where the text stands in a table.
        add_special_tokens: Whether the tokenizer adds tokens like [CLS].
        pad_token: What short texts are filled up with where the model's length is fixed.
        window: Tokens of a window; 0 for each text by itself, None for what suits the model.
        past: How many of a window's tokens the model has seen when it gets the rest.
    """

    max_length: int | None = Field(default=None, ge=1)
    column: str = "text"
    add_special_tokens: bool = True
    pad_token: str | None = None
    window: int | None = Field(default=None, ge=0, le=1 << 20)
    past: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _windows_agree(self) -> TextSteps:
        if self.window and self.max_length is not None:
            msg = "max_length cuts each text by itself, window joins them: say one of the two"
            raise ValueError(msg)
        if self.window == 0 and self.past:
            msg = "past is a part of each window, and window = 0 asks for none"
            raise ValueError(msg)
        return self


class Preprocess(_Frozen):
    """A file of steps.

    Attributes:
        version: The version of the format.
        image: The steps for images; None where there are none.
        text: The steps for texts.
    """

    version: Literal[1] = 1
    image: ImageSteps | None = None
    text: TextSteps = TextSteps()


_FILE = SettingsFile(
    model=Preprocess,
    noun="preprocessing file",
    code="preprocess",
    error=DataError,
    tables="[image] and [text]",
)


def load_preprocess(path: str | Path) -> Preprocess:
    """Read a file of steps.

    Raises:
        DataError: There is no such file, it is not TOML, or it does not say what it should.
    """
    return _FILE.load(path)
