"""From an image to a model's input, as a preprocessing file declares it.

``x = (pixel * scale - mean) / std`` in float32, pixels from 0 to 255, after resizing and cropping.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.data.arrays import MAX_SAMPLE_BYTES
from onnxq.data.decode import MAX_PIXELS
from onnxq.data.extras import require
from onnxq.errors import DataError

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray
    from PIL import Image

    from onnxq.data.preprocess import ImageSteps, Resize


def prepare_image(image: Image.Image, steps: ImageSteps, where: str) -> NDArray[Any]:
    """Take all steps.

    Args:
        image: What was decoded.
        steps: What to do.
        where: The file, for messages.

    Returns:
        ``[1, channels, height, width]``, or channels last.

    Raises:
        DataError: The image is smaller than the crop, or the result would be too large.
    """
    pillow = require("PIL.Image", where)
    # Colours first: interpolating the indices of a palette makes no sense.
    image = to_color(image, "L" if steps.color == "L" else "RGB")
    if steps.resize is not None:
        image = _resized(pillow, image, steps.resize, where)
    if steps.crop is not None:
        image = _cropped(image, steps.crop, where)
    return normalized(np.asarray(image), steps, where)


def to_color(image: Image.Image, mode: str) -> Image.Image:
    """Convert to RGB or L; transparency is dropped."""
    # From a palette with transparency Pillow wants to go by way of RGBA.
    if image.mode in {"P", "PA"}:
        image = image.convert("RGBA")
    return image if image.mode == mode else image.convert(mode)


def as_png(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels in RGB, written anew as PNG: bytes that no decoder in a graph trips over."""
    encoded = io.BytesIO()
    to_color(image, "RGB").save(encoded, "PNG", compress_level=1, icc_profile=None)
    return np.frombuffer(encoded.getvalue(), np.uint8)


def normalized(pixels: NDArray[np.uint8], steps: ImageSteps, where: str) -> NDArray[Any]:
    """The arithmetic, the order of channels and the layout.

    Args:
        pixels: ``[height, width]`` for L, ``[height, width, 3]`` in the order RGB otherwise.
        steps: What to do.
        where: The file, for messages.

    Raises:
        DataError: The result would be larger than a sample may be, or does not fit its type.
    """
    if pixels.size * 4 > MAX_SAMPLE_BYTES:
        code, text = "data.too_large", f"{pixels.shape[1]} × {pixels.shape[0]} pixels are too many"
        remedy = "Declare a resize or a crop."
        raise DataError(code, text, where=where, remedy=remedy)
    if pixels.ndim == 2:
        pixels = pixels[..., np.newaxis]
    if steps.color == "BGR":
        pixels = pixels[..., ::-1]
    if steps.layout == "NCHW":
        pixels = pixels.transpose(2, 0, 1)
    axis = 0 if steps.layout == "NCHW" else 2
    values = np.array(pixels, np.float32, order="C")
    values *= np.float32(steps.scale)
    values -= _per_channel(steps.mean, axis)
    values /= _per_channel(steps.std, axis)
    return _cast(values, steps, where)[np.newaxis]


def _per_channel(value: float | tuple[float, ...], axis: int) -> NDArray[np.float32]:
    array = np.asarray(value, np.float32)
    if array.ndim == 0:
        return array
    shape = [1, 1, 1]
    shape[axis] = len(array)
    return array.reshape(shape)


def _cast(values: NDArray[np.float32], steps: ImageSteps, where: str) -> NDArray[Any]:
    dtype = np.dtype(steps.dtype)
    if dtype.kind == "f":
        return values.astype(dtype, copy=False)
    rounded = np.rint(values)
    info = np.iinfo(dtype)
    if rounded.size and (rounded.min() < info.min or rounded.max() > info.max):
        low, high = float(rounded.min()), float(rounded.max())
        code, text = "data.dtype", f"values from {low:g} to {high:g} do not fit {dtype}"
        remedy = "For pixels as they are: scale = 1, mean = 0, std = 1."
        raise DataError(code, text, where=where, remedy=remedy)
    return rounded.astype(dtype)


def _resized(pillow: ModuleType, image: Image.Image, resize: Resize, where: str) -> Image.Image:
    method = getattr(pillow.Resampling, resize.interpolation.upper())
    if resize.shortest is not None:
        return image.resize(_by_shortest(image, resize.shortest, where), method)
    if resize.exact is not None:
        return image.resize(resize.exact[::-1], method)
    if resize.letterbox is None:
        return image
    height, width = resize.letterbox
    factor = min(width / image.width, height / image.height)
    inner = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    fill = resize.fill if image.mode == "L" else (resize.fill,) * 3
    box: Image.Image = pillow.new(image.mode, (width, height), fill)
    at = ((width - inner[0]) // 2, (height - inner[1]) // 2)
    box.paste(image.resize(inner, method), at)
    return box


def _by_shortest(image: Image.Image, shortest: int, where: str) -> tuple[int, int]:
    """Width and height; the longer side rounded down, as torchvision's Resize does."""
    short, long = min(image.size), max(image.size)
    other = shortest * long // short
    if shortest * other > MAX_PIXELS:
        code, text = "data.too_large", f"{image.width} × {image.height} pixels are too oblong"
        remedy = f"Its longer side would have {other} pixels; leave it out."
        raise DataError(code, text, where=where, remedy=remedy)
    return (other, shortest) if image.width >= image.height else (shortest, other)


def _cropped(image: Image.Image, size: tuple[int, int], where: str) -> Image.Image:
    height, width = size
    if image.width < width or image.height < height:
        code = "data.too_small"
        text = f"{image.width} × {image.height} pixels are left to crop {width} × {height} out of"
        remedy = "Declare a resize that leaves enough, or leave the image out."
        raise DataError(code, text, where=where, remedy=remedy)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
