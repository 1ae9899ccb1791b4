"""A tokenizer of whole words, ``w0`` to ``w59``, for models with 96 tokens, and texts for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

if TYPE_CHECKING:
    from pathlib import Path

WORDS: Final = [f"w{n}" for n in range(60)]
END: Final = 60
"""The token of the end of a text."""

SIZE: Final = 96


def save_tokenizer(folder: Path, opening: str = "", ending: str = "", *more: str) -> Path:
    """Write ``tokenizer.json``.

    Args:
        folder: Where to.
        opening: The token that it puts before a text, if any.
        ending: The one behind it.
        more: Further tokens, from 62 on.
    """
    known = [*WORDS, "<|endoftext|>", "[UNK]", *more]
    words = [*known, *(f"unused{n}" for n in range(SIZE - len(known)))]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    if opening or ending:
        special = [(word, tokenizer.token_to_id(word)) for word in {opening, ending} if word]
        single = f"{opening} $A {ending}".strip()
        tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=special)
    file = folder / "tokenizer.json"
    tokenizer.save(str(file))
    return file


def some_text(words: int, seed: int = 0) -> str:
    """Words on lines of differing length, some of them empty."""
    random = np.random.default_rng(seed)
    ends = random.choice([" ", " ", " ", "\n", "\n\n"], words)
    return "".join(f"w{n}{end}" for n, end in zip(random.integers(0, 60, words), ends, strict=True))


def numbers(text: str) -> list[int]:
    """The tokens of such a text."""
    return [int(word[1:]) for word in text.split()]
