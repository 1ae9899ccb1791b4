"""Signatures, samples that fit them, and a small tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from onnxq.graph.structure import InputSpec

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxq.data import Signature

Feeds = dict[str, "NDArray[Any]"]

FLOAT, INT = np.dtype(np.float32), np.dtype(np.int64)


@pytest.fixture
def one_input() -> Signature:
    return (InputSpec("x", FLOAT, ("batch", 3), required=True),)


@pytest.fixture
def two_inputs() -> Signature:
    return (
        InputSpec("ids", INT, ("batch", "length"), required=True),
        InputSpec("mask", FLOAT, ("batch", "length"), required=True),
        InputSpec("bias", FLOAT, (4,), required=False),
    )


@pytest.fixture
def tokens() -> Feeds:
    return {"mask": np.ones((2, 5), np.float32), "ids": np.arange(10, dtype=np.int64).reshape(2, 5)}


WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "small", "text", "é")


@pytest.fixture
def tokenizer_file(tmp_path: Path) -> Path:
    """A tokenizer of whole words, which adds [CLS] and [SEP]."""
    tokenizer = Tokenizer(WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    file = tmp_path / "tokenizer" / "tokenizer.json"
    file.parent.mkdir()
    tokenizer.save(str(file))
    return file


@pytest.fixture
def encoder() -> Signature:
    dims = ("batch", "length")
    names = ("input_ids", "attention_mask", "token_type_ids")
    return tuple(InputSpec(name, INT, dims, required=True) for name in names)
