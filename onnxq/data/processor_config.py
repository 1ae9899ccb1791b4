"""A checkpoint's ``preprocessor_config.json`` as steps for images.

The file is what Hugging Face's image processors write. Read are those processors that turn an
image upright, resize it whole, crop its middle, rescale and normalize, and nothing else; another
one, or a step that is not known here, is refused by its name.

=========================  ====================================================================
``size``                   a number or ``shortest_edge``: the shorter side (a ViT: both sides);
                           ``height`` and ``width``: both sides
``resample``               Pillow's number: 0 nearest, 1 lanczos, 2 bilinear, 3 bicubic, 4 box
``crop_size``              cut from the middle, where ``do_center_crop`` is set
``crop_pct``               of a ConvNeXT below 384 pixels: the image is larger by so much first
``rescale_factor``         1/255 where it is left out
``image_mean, image_std``  where ``do_normalize`` is set
=========================  ====================================================================
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from onnxq.data.preprocess import ImageSteps
from onnxq.errors import DataError
from onnxq.files import read_regular

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NAME: Final = "preprocessor_config.json"

_SQUARE: Final = frozenset({"ViT", "DeiT", "Beit", "EfficientNet"})
_SHORTEST: Final = frozenset({"CLIP", "Bit", "MobileNetV1", "MobileNetV2", "ConvNext", "ConvNeXT"})
_METHODS: Final = ("nearest", "lanczos", "bilinear", "bicubic", "box")
_DEFAULT_METHOD: Final = {"CLIP": 3, "Bit": 3, "DeiT": 3, "Beit": 3, "EfficientNet": 0}
_UNSUPPORTED: Final = ("do_pad", "do_thumbnail", "do_align_long_axis", "do_flip_channel_order")
_MOST_BYTES: Final = 1 << 20


def read_processor_config(path: Path) -> ImageSteps:
    """The steps that the file declares.

    Raises:
        DataError: It cannot be read, or asks for something that onnxq does not do.
    """
    try:
        found = json.loads(read_regular(path, _MOST_BYTES))
    except OSError as error:
        raise _refused(path, f"it cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise _refused(path, "it is no JSON") from error
    if not isinstance(found, dict):
        raise _refused(path, "it is no JSON object")
    kind = _kind(found, path)
    try:
        return ImageSteps.model_validate(_steps(found, kind, path))
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        key = ".".join(map(str, detail["loc"]))
        raise _refused(
            path, f"{key}: {str(detail['msg']).removeprefix('Value error, ')}"
        ) from error


def _kind(found: Mapping[str, Any], path: Path) -> str:
    name = found.get("image_processor_type") or found.get("feature_extractor_type")
    if not isinstance(name, str):
        raise _refused(path, "it names no image processor")
    kind = name.removesuffix("Fast").removesuffix("ImageProcessor").removesuffix("FeatureExtractor")
    if kind not in _SQUARE | _SHORTEST:
        raise _refused(path, f"onnxq does not know the steps of {name}")
    unknown = next((key for key in _UNSUPPORTED if found.get(key)), None)
    if unknown is not None:
        raise _refused(path, f"onnxq does not do {unknown}")
    return kind


def _steps(found: Mapping[str, Any], kind: str, path: Path) -> dict[str, Any]:
    steps: dict[str, Any] = {"mean": 0.0, "std": 1.0, "scale": 1.0}
    if found.get("do_rescale", True):
        steps["scale"] = float(found.get("rescale_factor", 1 / 255))
    if found.get("do_normalize", True):
        for key, name in (("mean", "image_mean"), ("std", "image_std")):
            if name not in found:
                raise _refused(path, f"it says do_normalize and no {name}")
            value = found[name]
            # A ViT's are lists of three, in some files single numbers.
            steps[key] = [float(v) for v in value] if isinstance(value, list) else float(value)
    crops = bool(found.get("do_center_crop", kind in {"CLIP", "Bit"})) and "crop_size" in found
    if crops:
        steps["crop"] = _both(found["crop_size"], path)
    if found.get("do_resize", True):
        steps["resize"], more = _resize(found, kind, path)
        steps |= more
    return steps


def _resize(
    found: Mapping[str, Any], kind: str, path: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    number = found.get("resample", _DEFAULT_METHOD.get(kind, 2))
    if not isinstance(number, int) or not 0 <= number < len(_METHODS):
        raise _refused(path, f"onnxq does not know the resampling {number!r}")
    how = {"interpolation": _METHODS[number]}
    size = found.get("size", 224)
    if isinstance(size, dict) and "shortest_edge" in size:
        size = size["shortest_edge"]
    elif isinstance(size, dict) or kind in _SQUARE:
        return {"exact": _both(size, path), **how}, {}
    if not isinstance(size, int):
        raise _refused(path, f"its size is {size!r}")
    if not kind.startswith("ConvNe"):
        return {"shortest": size, **how}, {}
    if size >= 384:
        return {"exact": [size, size], **how}, {}
    enlarged = int(size / float(found.get("crop_pct", 224 / 256)))
    return {"shortest": enlarged, **how}, {"crop": [size, size]}


def _both(size: object, path: Path) -> list[int]:
    if isinstance(size, int):
        return [size, size]
    if isinstance(size, dict) and {"height", "width"} <= size.keys():
        return [size["height"], size["width"]]
    raise _refused(path, f"{size!r} is no height and width")


def _refused(path: Path, why: str) -> DataError:
    code = "preprocess.processor"
    remedy = "Say the steps in a TOML file instead: version = 1, [image], resize, crop, scale, ..."
    return DataError(code, why, where=str(path), remedy=remedy)
