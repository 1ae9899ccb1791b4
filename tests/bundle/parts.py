# ruff: noqa: RUF001 - odd characters are what it is about
"""Parts of graphs as they are written, opened with the operators that they need."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from onnxq.bundle.draft import Draft
from onnxq.bundle.image_front import ImageFront
from onnxq.bundle.text_front import TextFront
from onnxq.data.preprocess import ImageSteps, TextSteps
from onnxq.data.tokenizer_file import read_tokenizer
from onnxq.graph.edit import NameScope
from onnxq.graph.io import to_bytes
from onnxq.graph.structure import InputSpec
from onnxq.runtime.custom_ops import custom_ops
from onnxq.runtime.session import SessionSettings, open_session
from tests.small_models import normalized

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.data import Signature
    from onnxq.runtime.session import Session

INT = np.dtype(np.int64)
_DEFAULT: Final = TextSteps()
TOKENS: Signature = tuple(
    InputSpec(name, INT, ("batch", "sequence"), required=True)
    for name in ("input_ids", "attention_mask", "token_type_ids")
)

HOSTILE: Final = (
    "", " ", "\t", "a\tb\n c\r\n", "😀", "👨‍👩‍👧‍👦 family", "🇩🇪", "\U0001f468\U0001f3fd", "é",
    "e\u0301", "q\u0307\u0323", "ÀÉÎÕÜ àéîõü ç", "İstanbul ıI", "Straße ẞ", "ﬁ ŉ Ǆ",
    "ＦＵＬＬ", "中文字符测试", "日本語 かな", "한국어 텍스트", "हिन्दी में पाठ", "ไทย", "العربية",
    "עברית שָׁלוֹם", "Ελληνικά ΑΣ ς", "Ёё Йй", "ộ ậ ẵ", "\x01\x02 c \x7f", "a\u200bb", "a\u00a0b",
    "a\u3000b", "\ufeffbom", "a\u2028b\u2029c", "\ufffd", "soft\u00adhyphen", "\ue000\ue001 p",
    "\U0010ffff", "\u0378", "\x0b\x0c\x1c\x1d\x1e\x1f\x85", "x" * 99, "x" * 100, "x" * 101,
    "x" * 300, "é" * 101, "[MASK]", "a [MASK]b", "[CLS] a [SEP]", "[UNK]", "[mask]", "[MA SK]",
    "[MA\ue000SK]", "don't can't I'M", "a-b_c/d\\e", "$1 €2", "½ ² ③", "“q” ‘s’ — …", "a.b..c",
    "!!!???", "𝕳𝖊", "𠀀𠀁", "<|endoftext|>", "a<|endoftext|>b<|im_start|>", "<|im_start|>user\nhi",
    "  a   b  ", "\n\n\n", "12345 6 789", "3.14e-10", "http://x.y/z?a=b", "∑≠≤", "→ ⇒", "a\u0327",
)  # fmt: skip
"""Texts on which tokenizers differ."""


def opened(model: ir.Model | Path) -> Session:
    content = to_bytes(model) if isinstance(model, ir.Model) else model
    with custom_ops(["extensions"]):
        return open_session(content, SessionSettings(threads=1, spinning=False))


def draft(prefix: str = "pre/") -> Draft:
    empty = normalized("g (float[1] x) => (float[1] y) { y = Relu(x) }")
    return Draft(prefix, NameScope(empty))


def image_graph(**steps: Any) -> tuple[ir.Model, ImageSteps]:
    """The graph of such steps, from ``image_bytes`` to ``pixels`` and ``geometry``."""
    made = ImageSteps.model_validate({"scale": 1.0, "mean": 0.0, "std": 1.0, **steps})
    part = draft()
    front = ImageFront(part, made, "steps.toml")
    pixels = front.pixels(part.input("image_bytes", ir.DataType.UINT8, ["bytes"]))
    dtype = ir.DataType.from_numpy(np.dtype(made.dtype))
    part.output(pixels, "pixels", dtype, [None] * 4)
    part.output(front.geometry(), "geometry", ir.DataType.FLOAT, [4])
    return part.model(), made


def text_graph(path: Path, steps: TextSteps = _DEFAULT) -> ir.Model:
    """The graph of a tokenizer, from ``text`` to the inputs of :data:`TOKENS`."""
    part = draft()
    front = TextFront(part, read_tokenizer(path, TOKENS), steps)
    axis = front.axis
    for name, value in front.inputs(part.input("text", ir.DataType.STRING, [axis])).items():
        part.output(value, name, ir.DataType.INT64, [axis, None])
    return part.model()


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """Smooth colours with some noise."""
    noise = np.random.default_rng(seed).normal(scale=20, size=(height, width, 3))
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 11)], axis=-1)
    return Image.fromarray(np.clip(waves * 100 + 127 + noise, 0, 255).astype(np.uint8))


_WORDS: Final = (
    *("the", "a", "is", "un", "##a", "##b", "##s", "##un", "x", "##x", "##xx", "e", "##e", "i"),
    *("##i", "o", "1", "##2", "##3", "12", ".", ",", "!", "?", "'", "-", "_", "/", "$", "[", "]"),
    *("ma", "mask", "##sk", "cl", "##s", "se", "##p", "user", "hi", "с", "е", "##е", "и", "##и"),
    *(
        "中",
        "文",
        "字",
        "ᄒ",
        "##ᅡ",
        "##ᆫ",
        "ह",
        "##ि",
        "##न",
        "##्",
        "##द",
        "म",
        "=",
        "α",
        "σ",
        "##σ",
    ),
)


def wordpiece(folder: Path, *, lowercase: bool = True, length: int | None = None) -> Path:
    """A small BERT tokenizer."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(_WORDS)]
    vocabulary = {word: number for number, word in enumerate(words)}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(words[:5])
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    if length is not None:
        made.enable_truncation(length)
    made.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def byte_pairs(folder: Path, *, digits: bool = False) -> Path:
    """A small GPT-2 tokenizer: all bytes, a few merges, two added tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("1", "2"), ("12", "3"), ("Ġ", "Ġ"), ("i", "n")]
    words = [*letters, *(a + b for a, b in merges)]
    vocabulary = {word: number + 2 for number, word in enumerate(words)}
    made = Tokenizer(models.BPE(vocabulary, merges))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.pre_tokenizer = level
    if digits:
        parts = [pre_tokenizers.Digits(individual_digits=True), level]
        made.pre_tokenizer = pre_tokenizers.Sequence(parts)
    made.add_special_tokens(["<|endoftext|>", "<|im_start|>"])
    made.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def changed(path: Path, *keys: str, to: object) -> Path:
    """The same ``tokenizer.json`` with one value changed."""
    content = json.loads(path.read_text("utf-8"))
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = to
    path.write_text(json.dumps(content), "utf-8")
    return path
