"""What people judged of similarity: Lee's news documents and the word pairs of SimLex-999.

Both lie among the tests of PyPI's ``gensim``. Lee, Pincombe, Welsh (2005), "An empirical evaluation
of models of text document similarity": 50 documents of 45 to 126 words from the Australian
Broadcasting Corporation's news, all 1,225 pairs judged, on the scale from 0.2 to 1 that the file
holds. Hill, Reichart, Korhonen (2015), "SimLex-999: Evaluating Semantic Models with (Genuine)
Similarity Estimation": 999 pairs of English words, judged from 0 to 10.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from models.packages import package_file

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from tokenizers import Tokenizer

PACKAGE: Final = "gensim"
FOLDER: Final = "gensim/test/test_data"
FILES: Final = ("lee.cor", "similarities0-1.txt", "simlex999.txt")


@dataclass(frozen=True)
class Judgements:
    """Pairs of texts, and how similar people found them.

    Attributes:
        texts: The texts, each once.
        pairs: Indices into `texts`, ``[pairs, 2]``.
        human: The mean judgement of each pair, ``[pairs]``; more is more similar.
    """

    texts: tuple[str, ...]
    pairs: NDArray[np.int64]
    human: NDArray[np.float64]


def paths() -> tuple[Path, ...]:
    """Return the paths of the files that are read: documents, their matrix, word pairs."""
    return tuple(package_file(PACKAGE, f"{FOLDER}/{name}") for name in FILES)


def lee() -> Judgements:
    """Return all pairs of the 50 documents; the matrix holds them above its diagonal."""
    documents, matrix, _ = paths()
    texts = tuple(documents.read_text("latin-1").splitlines())
    first, second = np.triu_indices(len(texts), 1)
    human = np.loadtxt(matrix)
    return Judgements(texts, np.stack([first, second], axis=1), human[first, second])


def simlex() -> Judgements:
    """Return the 999 pairs of words, the words in alphabetical order."""
    lines = paths()[2].read_text("ascii").splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    texts = tuple(sorted({word for row in rows for word in row[:2]}))
    number = {word: index for index, word in enumerate(texts)}
    pairs = np.array([[number[word] for word in row[:2]] for row in rows], np.int64)
    return Judgements(texts, pairs, np.array([float(row[2]) for row in rows]))


def write_judgements(path: Path, judged: Judgements, tokenizer: Tokenizer) -> None:
    """Write ``input_ids`` and ``attention_mask`` ``[texts, longest]``, ``pairs`` and ``human``.

    Args:
        path: The ``.npz``; its folder is created if it does not exist.
        judged: The texts and judgements.
        tokenizer: Neither cuts nor pads; what is right of a text's end is 0 in both arrays.
    """
    tokens: list[list[int]] = [tokenizer.encode(text).ids for text in judged.texts]
    ids = np.zeros((len(tokens), max(map(len, tokens))), np.int64)
    mask = np.zeros_like(ids)
    for row, numbers in enumerate(tokens):
        ids[row, : len(numbers)] = numbers
        mask[row, : len(numbers)] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, input_ids=ids, attention_mask=mask, pairs=judged.pairs, human=judged.human)
