"""Does the graph make of images and texts what the code that feeds calibration makes of them?

Token ids must be equal. Pixels may differ by what is known of resizing
(:mod:`onnxq.bundle.image_front`): by :data:`MOST_LEVELS` of 255, in the mean by
:data:`MEAN_LEVELS`; without resizing, or to the nearest pixel, not at all.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from onnxq.bundle.probes import TEXTS, images
from onnxq.data.decode import decode
from onnxq.data.imaging import prepare_image
from onnxq.data.roles import role_of_name
from onnxq.data.tokenizer import Tokenizer
from onnxq.data.tokenizer_file import read_tokenizer
from onnxq.errors import DataError, ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from onnxq.data.declared import Declared
    from onnxq.data.preprocess import ImageSteps
    from onnxq.data.sample import Signature
    from onnxq.runtime.session import Session

    Feeds = Mapping[str, NDArray[Any]]

MOST_LEVELS: Final = {"bilinear": 2.0, "bicubic": 24.0}
MEAN_LEVELS: Final = 0.5
_ROUNDING: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far the graph and the code agree.

    Attributes:
        kind: ``images`` or ``texts``.
        samples: On how many they were compared.
        levels: Greatest difference of a pixel, in levels of 0 to 255; 0 of texts.
        mean_levels: The mean difference.
    """

    kind: str
    samples: int
    levels: float = 0.0
    mean_levels: float = 0.0


def check_agreement(front: Session, found: Declared, wanted: Signature) -> Agreement | None:
    """Run the part in front of a model beside the code; None where there is no code for it.

    Raises:
        ModelError: They differ by more than is known and stated.
    """
    if found.model is not None:
        return None
    if found.steps.image is not None:
        return _of_images(front, found.steps.image)
    return _of_texts(front, found, wanted)


def _of_images(front: Session, steps: ImageSteps) -> Agreement:
    spec = front.inputs[0]
    levels = float(np.abs(np.asarray(steps.std) / steps.scale).max())
    worst, means = 0.0, list[float]()
    for content in images(steps):
        try:
            expected = prepare_image(decode(io.BytesIO(content), "probe"), steps, "probe")
        except DataError:
            continue  # smaller than the crop
        feeds = {spec.name: np.frombuffer(content, np.uint8)}
        made = front.run(feeds, [front.outputs[0].name])[0]
        if made.shape != expected.shape or made.dtype != expected.dtype:
            why = f"the graph makes {made.dtype} {list(made.shape)} of an image"
            raise _differs(why)
        apart = np.abs(made.astype(np.float64) - expected.astype(np.float64)) * levels
        worst, means = max(worst, float(apart.max())), [*means, float(apart.mean())]
    resized = steps.resize is not None
    most = MOST_LEVELS.get(steps.resize.interpolation, 0.0) if steps.resize else 0.0
    # What float16 or whole numbers round away.
    most += _ROUNDING * 255 if steps.dtype != "float16" else 1.0
    if worst > most or (resized and means and max(means) > MEAN_LEVELS):
        why = f"pixels differ by {worst:.3g} of 255, {most:.3g} is known of resizing"
        raise _differs(why)
    return Agreement("images", len(means), worst, max(means, default=0.0))


def _of_texts(front: Session, found: Declared, wanted: Signature) -> Agreement:
    if found.tokenizer is None:
        return Agreement("texts", 0)
    code = Tokenizer(read_tokenizer(found.tokenizer, wanted), found.steps.text)
    names = [spec.name for spec in front.outputs]
    singles: list[Feeds] = []
    for text, expected in _tokenized(code):
        values = front.run({front.inputs[0].name: np.array([text], object)}, names)
        made = dict(zip(names, values, strict=True))
        for name, value in made.items():
            if value.dtype != expected[name].dtype or not np.array_equal(value, expected[name]):
                why = f"{name!r} of the text {text[:40]!r} differs"
                raise _differs(why)
        singles.append(made)
    if front.inputs[0].shape != (1,):
        _check_batch(front, names, singles, tuple(text for text, _ in _tokenized(code)))
    return Agreement("texts", len(singles))


def _check_batch(
    front: Session, names: list[str], singles: Sequence[Feeds], texts: tuple[str, ...]
) -> None:
    """All at once, each row has what its text has by itself, and the mask says where it ends."""
    made = front.run({front.inputs[0].name: np.array(texts, object)}, names)
    by_name = dict(zip(names, made, strict=True))
    mask = next(value for name, value in by_name.items() if role_of_name(name) == "mask")
    for row, single in enumerate(singles):
        length = single[names[0]].shape[1]
        same = all(np.array_equal(by_name[n][row, :length], single[n][0]) for n in names)
        if not same or mask[row, length:].any():
            why = f"the text {texts[row][:40]!r} differs among others"
            raise _differs(why)


def _tokenized(code: Tokenizer) -> Iterator[tuple[str, Feeds]]:
    for text in TEXTS:
        try:
            yield text, code(text, "probe")
        except DataError:
            continue  # it gives no token


def _differs(why: str) -> ModelError:
    code, text = "bundle.differs", f"in the graph preprocessing comes to something else: {why}"
    remedy = "pip install -U onnxruntime onnxruntime-extensions, or preprocess outside of the graph"
    return ModelError(code, text, remedy=remedy)
