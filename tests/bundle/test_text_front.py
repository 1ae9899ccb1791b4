"""Tokenizers in the graph against the ``tokenizers`` package, which feeds calibration."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx_ir import DataType

from onnxq.bundle.text_front import TextFront
from onnxq.data.preprocess import TextSteps
from onnxq.data.tokenizer import Tokenizer
from onnxq.data.tokenizer_file import read_tokenizer
from onnxq.errors import DataError
from tests.bundle.parts import (
    HOSTILE,
    TOKENS,
    byte_pairs,
    changed,
    draft,
    opened,
    text_graph,
    wordpiece,
)
from tests.word_tokenizer import save_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


_DEFAULT = TextSteps()


def check(path: Path, texts: Iterable[str], steps: TextSteps = _DEFAULT) -> int:
    """Compare; the number of texts that give a token."""
    session = opened(text_graph(path, steps))
    code = Tokenizer(read_tokenizer(path, TOKENS), steps)
    names = [spec.name for spec in session.outputs]
    count = 0
    for text in texts:
        found = dict(zip(names, session.run({"text": np.array([text], object)}), strict=True))
        try:
            expected = code(text, "text")
        except DataError:
            assert found["input_ids"].size == 0
            continue
        count += 1
        for name in names:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=repr(text))
            assert found[name].dtype == expected[name].dtype
    return count


def drawn(count: int, seed: int = 0) -> list[str]:
    """Texts of any characters but NUL, and of what small vocabularies know."""
    chance = random.Random(seed)
    known = ["the", "a", "is", "un", "xs", "12", "3", ".", "!", "[MASK]", "<|im_start|>", "中"]
    known += ["ह", "न", " ", "  ", "\n"]
    plane = [*range(1, 0x2FFF), *range(0xA000, 0xD7FF), *range(0xE000, 0xFFFF)]
    plane += range(0x1F000, 0x1FFFF)
    return [
        "".join(
            chance.choice(known) if chance.random() < 0.6 else chr(chance.choice(plane))
            for _ in range(chance.randrange(1, 30))
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("lowercase", [True, False])
def test_wordpiece(tmp_path: Path, lowercase: bool) -> None:
    path = wordpiece(tmp_path, lowercase=lowercase)
    texts = [*HOSTILE, *drawn(200)]
    assert check(path, texts) == len(texts)


@pytest.mark.parametrize("digits", [True, False])
def test_byte_pairs(tmp_path: Path, digits: bool) -> None:
    path = byte_pairs(tmp_path, digits=digits)
    texts = [*HOSTILE, *drawn(200)]
    assert check(path, texts) == len(texts) - 1  # the empty text gives no token


@pytest.mark.parametrize(
    "steps",
    [{"max_length": 5}, {"max_length": 2}, {"add_special_tokens": False}, {}],
)
def test_where_texts_are_cut(tmp_path: Path, steps: dict[str, Any]) -> None:
    path = wordpiece(tmp_path, length=7)
    texts = ["the", "the a is un x e i o 12 . , !", "", "[MASK] the [SEP] a is is is is is"]
    assert check(path, texts, TextSteps(**steps)) >= 3


def test_a_model_of_fixed_length_is_filled_up(tmp_path: Path) -> None:
    path = wordpiece(tmp_path)
    fixed = tuple(type(spec)(spec.name, spec.dtype, (1, 8), required=True) for spec in TOKENS)
    part = draft()
    front = TextFront(part, read_tokenizer(path, fixed), TextSteps())
    for name, made in front.inputs(part.input("text", DataType.STRING, [1])).items():
        part.output(made, name, DataType.INT64, [1, 8])
    session = opened(part.model())
    code = Tokenizer(read_tokenizer(path, fixed), TextSteps())
    for text in ("the", "the a is un x e i o 12 . , !"):
        found = session.run({"text": np.array([text], object)})
        for spec, value in zip(session.outputs, found, strict=True):
            np.testing.assert_array_equal(value, code(text, "text")[spec.name])


@pytest.mark.parametrize(
    ("keys", "value", "says"),
    [
        (("pre_tokenizer",), {"type": "Whitespace"}, "its pre_tokenizer is Whitespace"),
        (("normalizer",), {"type": "NFC"}, "its normalizer is NFC"),
        (("normalizer",), None, "its normalizer is None"),
        (("model", "max_input_chars_per_word"), 20, "other than 100 characters"),
    ],
)
def test_other_kinds_of_wordpiece_are_refused(
    tmp_path: Path, keys: tuple[str, ...], value: object, says: str
) -> None:
    refused(changed(wordpiece(tmp_path), *keys, to=value), says)


@pytest.mark.parametrize(
    ("keys", "value", "says"),
    [
        (("normalizer",), {"type": "NFC"}, "normalized first (NFC)"),
        (("pre_tokenizer",), {"type": "Whitespace"}, "split by Whitespace"),
        (("model", "byte_fallback"), True, "no byte_fallback"),
        (("pre_tokenizer", "add_prefix_space"), True, "adds a blank"),
    ],
)
def test_other_kinds_of_byte_pairs_are_refused(
    tmp_path: Path, keys: tuple[str, ...], value: object, says: str
) -> None:
    refused(changed(byte_pairs(tmp_path), *keys, to=value), says)


def test_another_model_is_refused_by_name(tmp_path: Path) -> None:
    refused(save_tokenizer(tmp_path), "no operator computes the model WordLevel")


def refused(path: Path, says: str) -> None:
    with pytest.raises(DataError) as caught:
        text_graph(path)
    assert caught.value.code == "bundle.tokenizer"
    assert says in caught.value.message
    assert caught.value.where == str(path)
    assert caught.value.remedy


@pytest.mark.parametrize("token", ["\n", "\r", "\r\n", "", "a\nb", "##\n", "\u2028", "\x0c", "x "])
def test_a_token_that_ends_a_line_does_not_shift_the_others(tmp_path: Path, token: str) -> None:
    path = wordpiece(tmp_path)
    content = json.loads(path.read_text("utf-8"))
    words = list(content["model"]["vocab"])
    words.insert(7, token)
    vocabulary = {word: number for number, word in enumerate(words)}
    changed(path, "model", "vocab", to=vocabulary)
    texts = ["the a is [MASK] un x", "the a\u2028b\x0cc\rd\ne", "unxs the a\x85x"]
    assert check(path, texts) == len(texts)


@pytest.mark.parametrize(
    "steps",
    [{}, {"max_length": 5}, {"max_length": 2}, {"add_special_tokens": False}],
)
def test_texts_of_different_lengths_as_transformers_pads_them(
    tmp_path: Path, steps: dict[str, Any]
) -> None:
    transformers = pytest.importorskip("transformers")
    path = wordpiece(tmp_path)
    known = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path), pad_token="[PAD]")
    session = opened(text_graph(path, TextSteps(**steps)))
    assert session.inputs[0].shape == ("texts",)
    names = [spec.name for spec in session.outputs]
    special = steps.get("add_special_tokens", True)
    texts = [*HOSTILE, *drawn(40, seed=3)]
    batches = [
        texts,
        texts[:2],
        texts[5:6],
        ["", "the a"],
        ["the a", ""],
        ["x", " ", "\ue001 \ue005"],
    ]
    batches += [[""] * 3, ["the " * 400, "a"], ["[MASK]", "[SEP]a", "a[CLS]"] * 20]
    for batch in batches:
        right = known(
            batch,
            padding=True,
            truncation="max_length" in steps,
            max_length=steps.get("max_length"),
            add_special_tokens=special,
            return_token_type_ids=True,
            return_tensors="np",
        )
        made = dict(zip(names, session.run({"text": np.array(batch, object)}), strict=True))
        for name in names:
            np.testing.assert_array_equal(made[name], right[name], err_msg=repr(batch)[:200])


def test_one_text_where_rows_cannot_be_filled_up(tmp_path: Path) -> None:
    path = wordpiece(tmp_path)

    def axis(tokenizer: Path, inputs: Any = TOKENS) -> str | int:
        return TextFront(draft(), read_tokenizer(tokenizer, inputs), TextSteps()).axis

    assert axis(path) == "texts"
    assert axis(path, TOKENS[:1]) == 1
    assert axis(path, tuple(replace(spec, shape=(1, "n")) for spec in TOKENS)) == 1
    left = {"strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": None,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}  # fmt: skip
    assert axis(changed(path, "padding", to={**left, "direction": "Right"})) == "texts"
    assert axis(changed(path, "padding", to=left)) == 1
    (tmp_path / "pairs").mkdir()
    assert axis(byte_pairs(tmp_path / "pairs")) == 1
