"""Builds minilm: the exported encoder, BBC news texts of 16 to 128 tokens, human judgements.

``similarity/lee.npz`` and ``similarity/simlex999.npz`` hold the texts that people judged and what
they judged (``judgements.py``), whole; none is calibrated on.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from tokenizers import Tokenizer

from models.minilm import judgements
from models.minilm.model import FOLDER, PACKAGE, factory, weights
from models.packages import package_file
from models.source import ModelSource, Origin, write_samples
from models.texts import BBC_PACKAGE, bbc_articles, bbc_folder
from onnxq.export import export

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

CALIBRATION_SAMPLES: Final = 128
EVALUATION_SAMPLES: Final = 64
LENGTHS: Final = (16, 128)


def tokenizer_path() -> Path:
    """Return the path of ``tokenizer.json`` inside the package."""
    return package_file(PACKAGE, f"{FOLDER}/tokenizer.json")


def samples(texts: Sequence[str], seed: int) -> Iterator[dict[str, NDArray[Any]]]:
    """Cut each text to a drawn number of tokens, 16 to 128; batch 1, so nothing is padded."""
    tokenizer = Tokenizer.from_file(str(tokenizer_path()))
    tokenizer.no_padding()
    lengths = random.Random(seed)
    for text in texts:
        tokenizer.enable_truncation(lengths.randint(*LENGTHS))
        ids = np.array([tokenizer.encode(text).ids], np.int64)
        yield {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
        }


def write(folder: Path) -> None:
    """Export the model; calibrate and evaluate on different articles, judge on other texts."""
    export(factory, folder / "model.onnx")
    articles = bbc_articles(CALIBRATION_SAMPLES + EVALUATION_SAMPLES)
    write_samples(folder / "calibration", samples(articles[:CALIBRATION_SAMPLES], seed=1))
    write_samples(folder / "evaluation", samples(articles[CALIBRATION_SAMPLES:], seed=2))
    tokenizer = Tokenizer.from_file(str(tokenizer_path()))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    for name, judged in (("lee", judgements.lee()), ("simlex999", judgements.simlex())):
        judgements.write_judgements(folder / "similarity" / f"{name}.npz", judged, tokenizer)


SOURCE: Final = ModelSource(
    name="minilm",
    origins=(
        Origin(PACKAGE, "MIT (package), Apache-2.0 (weights)", "weights and tokenizer"),
        Origin(BBC_PACKAGE, "MIT (package); articles © BBC, for research", "BBC news articles"),
        Origin(
            judgements.PACKAGE,
            "LGPL-2.1-only (package); no licence is stated there for the documents (M. D. Lee, "
            "2005) and SimLex-999 (F. Hill 2015): for research",
            "documents and words with human judgements of similarity",
        ),
    ),
    tools=("torch", "transformers", "tokenizers"),
    reads=lambda: (weights(), tokenizer_path(), bbc_folder(), *judgements.paths()),
    write=write,
)
