"""What a part that was written is tried on: images of many shapes, texts of many kinds.

The same goes through the graph and through the code that feeds calibration; both must agree.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

import numpy as np

from onnxq.data.extras import require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image

    from onnxq.data.preprocess import ImageSteps

TEXTS: Final = (
    "The quick brown fox jumps over the lazy dog.",
    "  blanks  at the ends\tand within \n",
    "It's 12,345.67 - isn't it? (e.g. #tag @user, C++)",
    "def f(x: int) -> str: return f'{x!r}'",
    "https://example.org/a?b=c&d=%20 user@example.org",
    "ÀÉÎÕÜ àéîõü ç ñ e\u0301 Straße İstanbul ﬁ",
    "中文字符 日本語のテキスト 한국어 텍스트",
    "кириллица Ёё Ελληνικά ΑΣ ς",
    "हिन्दी में पाठ ไทย العربية עברית שָׁלוֹם",
    "😀 👨‍👩‍👧‍👦 🇩🇪 \U0001f468\U0001f3fd",
    "\x01\x1b\x7f\u200b\ufeff\u2028\u00ad\ufffd\ue000 control",
    "“quotes” — … ½ ② ™ ∑∫√ ≠",
    "[MASK] [CLS] <|endoftext|> <|im_start|>user</s><mask>",
    "a" * 101,
    "word " * 600,
)

_SIZES: Final = ((1.0, 1.0), (1.31, 1.77), (2.9, 1.6), (1.2, 6.1), (0.6, 0.8))
_DEFAULT: Final = (96, 96)
_ORIENTATION: Final = 0x0112


def images(steps: ImageSteps) -> Iterator[bytes]:
    """PNG files of :func:`_pixels`, of which the second lies on its side, as its EXIF says."""
    exif = require("PIL.Image", "bundle").Exif()
    for orientation, image in zip((0, 6, 0, 0, 0), _pixels(steps), strict=True):
        exif[_ORIENTATION] = orientation
        stream = io.BytesIO()
        image.save(stream, "PNG", compress_level=1, exif=exif if orientation else None)
        yield stream.getvalue()


def _pixels(steps: ImageSteps) -> Iterator[Image.Image]:
    """Images of RGB pixels, smooth with some noise, about the size that the steps are for."""
    pillow = require("PIL.Image", "bundle")
    generator = np.random.default_rng(0)
    height, width = steps.size or _DEFAULT
    if steps.resize is not None and steps.resize.shortest is not None:
        height, width = (max(side, steps.resize.shortest) for side in (height, width))
    for tall, wide in _SIZES:
        rows, columns = max(round(height * tall), 2), max(round(width * wide), 2)
        y, x = np.mgrid[0:rows, 0:columns] / max(rows, columns)
        waves = [np.sin(9 * x + 5 * y), np.cos(7 * x * y), np.sin(12 * y)]
        noise = generator.normal(scale=0.15, size=(rows, columns, 3))
        values = (np.stack(waves, axis=-1) * 0.8 + noise) * 127.5 + 127.5
        yield pillow.fromarray(np.clip(values, 0, 255).astype(np.uint8))
