"""Copies PP-OCRv6's text recognition, and renders lines of real text for it.

The lines are cut from BBC news articles and drawn with the font inside Pillow in drawn sizes and
colours, on a plain ground with noise. Calibration and evaluation lines come from different
articles; ``labels.txt`` has the text of each evaluation sample, a line each.
"""

from __future__ import annotations

import math
import random
import shutil
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from models.packages import package_file
from models.source import ModelSource, Origin, write_samples
from models.texts import BBC_PACKAGE, bbc_articles, bbc_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

PACKAGE: Final = "rapidocr"
MODEL: Final = "rapidocr/models/PP-OCRv6_rec_small.onnx"
HEIGHT: Final = 48
MINIMUM_WIDTH: Final = 320
CALIBRATION_SAMPLES: Final = 128
EVALUATION_SAMPLES: Final = 128


def lines(articles: Sequence[str], seed: int) -> list[str]:
    """Cut from each article words that together have 10 to 40 characters."""
    generator = random.Random(seed)
    cut = []
    for article in articles:
        words = [word for word in article.split() if word.isascii() and word.isprintable()]
        line, longest = "", generator.randint(10, 40)
        for word in words[generator.randint(0, max(0, len(words) - 20)) :]:
            if len(line) + 1 + len(word) > longest:
                break
            line = f"{line} {word}".strip()
        cut.append(line or words[0][:longest])
    return cut


def rendered(line: str, generator: np.random.Generator) -> NDArray[np.float32]:
    """Draw a line and prepare it as the package does.

    Returns:
        ``[1, 3, 48, width]``, BGR, ``(pixel / 255 - 0.5) / 0.5``, zeros right of the text up to
        a width of 320.
    """
    font = ImageFont.load_default(size=int(generator.integers(20, 41)))
    ground, ink = (int(value) for value in generator.integers(0, 90, 2))
    if generator.random() < 0.7:
        ground = 255 - ground
    else:
        ink = 255 - ink
    left, top, right, bottom = (int(edge) for edge in font.getbbox(line))
    margin = int(generator.integers(3, 9))
    size = (right - left + 2 * margin, bottom - top + 2 * margin)
    drawn = Image.new("RGB", size, (ground, ground, ground))
    place = (margin - left, margin - top)
    ImageDraw.Draw(drawn).text(place, line, font=font, fill=(ink, ink, ink))

    width = math.ceil(HEIGHT * size[0] / size[1])
    scaled = np.asarray(drawn.resize((width, HEIGHT), Image.Resampling.BILINEAR), np.float32)
    noisy = np.clip(scaled + generator.normal(0, 4, scaled.shape), 0, 255)
    sample = np.zeros((1, 3, HEIGHT, max(width, MINIMUM_WIDTH)), np.float32)
    sample[0, :, :, :width] = (noisy[:, :, ::-1].transpose(2, 0, 1) / 255 - 0.5) / 0.5
    return sample


def decode(scores: NDArray[Any], characters: Sequence[str]) -> str:
    """Read the text off the model's output: greedy CTC, class 0 is "nothing".

    Args:
        scores: One sample, ``[steps, classes]``.
        characters: The model's metadata entry ``character``, split into lines; a space follows.
    """
    best = scores.argmax(axis=1)
    kept = best[(best != 0) & (best != np.concatenate([[0], best[:-1]]))]
    alphabet = ["", *characters, " "]
    return "".join(alphabet[number] for number in kept)


def write(folder: Path) -> None:
    """Copy the model and write the rendered lines."""
    shutil.copyfile(package_file(PACKAGE, MODEL), folder / "model.onnx")
    articles = bbc_articles(CALIBRATION_SAMPLES + EVALUATION_SAMPLES)
    generator = np.random.default_rng(0)
    for part, texts in (
        ("calibration", lines(articles[:CALIBRATION_SAMPLES], seed=1)),
        ("evaluation", lines(articles[CALIBRATION_SAMPLES:], seed=2)),
    ):
        write_samples(folder / part, ({"x": rendered(text, generator)} for text in texts))
    (folder / "labels.txt").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")


SOURCE: Final = ModelSource(
    name="ppocr_v6",
    origins=(
        Origin(PACKAGE, "Apache-2.0 (weights © Baidu / PaddleOCR authors)", "the model"),
        Origin(BBC_PACKAGE, "MIT (package); articles © BBC, for research", "lines of text"),
    ),
    tools=("pillow",),
    reads=lambda: (package_file(PACKAGE, MODEL), bbc_folder()),
    write=write,
)
