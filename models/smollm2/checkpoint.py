"""Writes SmolLM2 as a checkpoint folder: ``python -m models.smollm2.checkpoint FOLDER``.

Weights (float32, 540 MB, as the GGUF file's 4 bits stand for), configuration, tokenizer and chat
template; and two texts of SOTU speeches for quantizing, ``texts.txt`` and ``unseen.txt``, of
different speeches.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from models.smollm2.model import LanguageModel, tokenizer
from models.texts import sotu_speeches

CHARACTERS: Final = 60_000
"""Of each text: about 50 windows of 256 tokens."""


def write(folder: Path) -> None:
    """Write the checkpoint and the texts."""
    LanguageModel().llama.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    speeches = [" ".join(speech.split()) for speech in sotu_speeches()]
    half = len(speeches) // 2
    for name, part in (("texts.txt", speeches[:half]), ("unseen.txt", speeches[half:])):
        (folder / name).write_text("\n".join(part)[:CHARACTERS], encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
