"""What the README's examples run on, from installed packages: photographs, sentences, a checkpoint.

``python -m models.examples DIR`` writes

- ``DIR/photos``, 16 photographs as they are, and ``DIR/labelled``, 20 JPEG files whose names end
  with their ImageNet class;
- ``DIR/sentences.txt``, 96 sentences of BBC news, one a line;
- ``DIR/minilm``, the checkpoint folder of all-MiniLM-L6-v2.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Final

from models.images import labelled_photographs, photographs
from models.minilm.model import FOLDER, PACKAGE
from models.packages import package_file
from models.texts import bbc_articles

SENTENCES: Final = 96
_WORDS: Final = range(8, 40)


def sentences(count: int) -> list[str]:
    """Return the first sentence of middling length of each of ``count`` articles."""
    found = []
    for article in bbc_articles(3 * count):
        parts = re.split(r"(?<=[.!?])\s+", article)
        found += [part for part in parts if len(part.split()) in _WORDS][:1]
    return found[:count]


def write(folder: Path) -> None:
    """Write everything; what is there already is written anew."""
    for name, paths in (("photos", photographs()), ("labelled", labelled_photographs())):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for path in paths:
            shutil.copyfile(path, folder / name / path.name)
    text = "".join(f"{sentence}\n" for sentence in sentences(SENTENCES))
    (folder / "sentences.txt").write_text(text, "utf-8")
    # Copied, not linked: a link would lead out of the checkpoint's folder.
    shutil.copytree(package_file(PACKAGE, FOLDER), folder / "minilm", dirs_exist_ok=True)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
