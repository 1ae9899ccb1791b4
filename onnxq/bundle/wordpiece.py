"""WordPiece, as of BERT, by the operator ``BertTokenizer`` of onnxruntime-extensions.

The operator's own cleaning of texts differs from that of the ``tokenizers`` package (accents beyond
Latin, Hangul, control characters), so it only looks up words. What comes before is taken from the
tokenizer itself: it is asked what it makes of every character of Unicode, and the graph does that.

0. Texts are joined by a character of the private area, which stays a word and parts them again.
1. Added tokens, such as ``[MASK]``, become a character of their own from the private area.
2. Characters that vanish are deleted, those that part words become blanks.
3. Characters that become others (lower case, without accents) are replaced, one by one, and those
   that are a word by themselves get blanks around them.
4. The operator parts words at blanks and looks them up; the vocabulary is longer by the characters
   of the first step, whose numbers become those of the added tokens.
5. Of a word whose end it does not know, the operator gives the pieces before; a mark between words
   shows which they are, and the whole word becomes the token for unknown ones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir

from onnxq.bundle.draft import TEXTS, ints, strings
from onnxq.data.extras import require

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from onnxq.bundle.draft import Draft

    Declared = Mapping[str, Any]

_STANDS: Final = 0xE000
"""The first character that stands for an added token."""

_AT_ONCE: Final = 1 << 14
_APART: Final = "\ua66e"
"""A letter that stays what it is; there is no other like it."""
_LAST: Final = 0x10FFFF
_SURROGATES: Final = range(0xD800, 0xE000)
_MOST_ADDED: Final = 1024


def why_not_wordpiece(declared: Declared) -> str:
    """Why a tokenizer whose model is WordPiece has no form in a graph; empty if it has one."""
    for key, wanted in (("normalizer", "BertNormalizer"), ("pre_tokenizer", "BertPreTokenizer")):
        kind = (declared.get(key) or {}).get("type")
        if kind != wanted:
            return f"its {key} is {kind}, not {wanted}"
    model = declared["model"]
    if model.get("max_input_chars_per_word", 100) != 100:
        return "words may have other than 100 characters"
    tokens = declared.get("added_tokens", ())
    late = [token["content"] for token in tokens if token.get("normalized")]
    if late:
        return f"its token {late[0]!r} is looked for in the normalized text"
    return f"it has {len(tokens)} added tokens" if len(tokens) > _MOST_ADDED else ""


def wordpiece_tokens(draft: Draft, text: ir.Value, declared: Declared) -> tuple[ir.Value, ir.Value]:
    """Tokens of texts ``[texts]``, without what the tokenizer puts around them, and whose each is.

    Both are int64 ``[tokens]``, the second the number of the text.
    """
    model = declared["model"]
    # Blanks beside them part words anyway.
    added = [token for token in declared.get("added_tokens", ()) if not token.get("single_word")]
    stands = {token["content"]: chr(_STANDS + place) for place, token in enumerate(added)}
    mark, between = chr(_STANDS + len(added)), chr(_STANDS + len(added) + 1)
    options = {key: value for key, value in declared["normalizer"].items() if key != "type"}
    characters = _characters(tuple(options.items()))
    own = [*map(ord, stands.values()), ord(mark), ord(between)]
    # Those of the text itself vanish anyway; here they must not be taken for tokens.
    text = _replaced(draft, text, f"[{_ranges(own)}]", "\ufffd")
    text = draft("StringJoin", text, strings(f" {between} "), ints(0), domain=TEXTS)
    text = draft("Reshape", text, ints(1))
    for token, character in stands.items():
        text = _replaced(draft, text, re.escape(token), f" {character} ")
    text = _replaced(draft, text, f"[{_ranges(set(characters.gone) - set(own))}]", "")
    text = _replaced(draft, text, f"[{_ranges(characters.blank)}]", " ")
    letter = strings("(?s)(.)")
    letters = draft.several("StringRegexSplitWithOffsets", 4, text, letter, letter, domain=TEXTS)[0]
    lines = "".join(f"{old}\t{new}\n" for old, new in characters.changed.items())
    letters = draft("StringMapping", letters, domain=TEXTS, map=lines)
    text = draft("StringJoin", letters, strings(""), ints(0), domain=TEXTS)
    text = _replaced(draft, text, f"([{_ranges(characters.alone)}])", r" \1 ")
    # Two blanks would be an empty word between them.
    text = _replaced(draft, text, "^ +| +$", "")
    text = _replaced(draft, text, " +", f" {mark} ")
    text = draft("Reshape", text, ints(1))
    vocabulary = _in_order(model["vocab"])
    ids = draft.several(
        "BertTokenizer",
        3,
        text,
        domain=TEXTS,
        vocab_file="\n".join([*vocabulary, *stands.values(), mark, between]),
        do_lower_case=0,
        do_basic_tokenize=0,
        strip_accents=0,
        tokenize_chinese_chars=0,
        suffix_indicator=model.get("continuing_subword_prefix", "##"),
        unk_token=model["unk_token"],
        sep_token=model["unk_token"],
        cls_token=model["unk_token"],
        pad_token=model["unk_token"],
        mask_token=model["unk_token"],
    )[0]
    # The operator always puts one token before the text and one behind it.
    ids = draft("Slice", ids, ints(1), ints(-1))
    unknown = model["vocab"][model["unk_token"]]
    ids = _whole_words(draft, ids, len(vocabulary) + len(stands), unknown)
    ends = draft("Equal", ids, ints(len(vocabulary) + len(stands) + 1))
    count = draft("Cast", ends, to=ir.DataType.INT64)
    whose = draft("CumSum", count, np.array(0, np.int64))
    kept = draft("Not", ends)
    ids, whose = draft("Compress", ids, kept), draft("Compress", whose, kept)
    numbers = ints(*range(len(vocabulary)), *(token["id"] for token in added))
    return draft("Gather", numbers, ids), whose


def _whole_words(draft: Draft, ids: ir.Value, mark: int, unknown: int) -> ir.Value:
    """Without the marks between words; a word with an unknown piece is one unknown token."""
    marks = draft("Equal", ids, ints(mark))
    counted = draft("Cast", marks, to=ir.DataType.INT64)
    word = draft("CumSum", counted, np.array(0, np.int64))
    unknowns = draft("Cast", draft("Equal", ids, ints(unknown)), to=ir.DataType.INT64)
    nothing = draft("Expand", ints(0), draft("Add", draft("Shape", ids), ints(1)))
    found = draft("ScatterElements", nothing, word, unknowns, axis=0, reduction="max")
    broken = draft("Equal", draft("Gather", found, word), ints(1))
    starts = draft("Concat", ints(1), draft("Slice", counted, ints(0), ints(-1)), axis=0)
    starts = draft("Slice", starts, ints(0), draft("Shape", ids))
    first = draft("Equal", starts, ints(1))
    kept = draft("And", draft("Not", marks), draft("Or", draft("Not", broken), first))
    return draft("Compress", draft("Where", broken, ints(unknown), ids), kept)


@dataclass(frozen=True, slots=True)
class _Characters:
    """What becomes of each character of Unicode.

    Attributes:
        gone: Those that vanish.
        blank: Those that part words.
        alone: Those that are a word by themselves and stay what they are.
        changed: What the others become, where that is not themselves; blanks part words.
    """

    gone: list[int]
    blank: list[int]
    alone: list[int]
    changed: dict[str, str]

    def add(self, character: str, piece: str) -> None:
        """Note what became of one between two letters."""
        if not piece:
            self.gone.append(ord(character))
        elif piece == " ":
            self.blank.append(ord(character))
        elif piece == f" {character} ":
            self.alone.append(ord(character))
        elif piece != character:
            self.changed[character] = piece


@cache
def _characters(options: tuple[tuple[str, bool | None], ...]) -> _Characters:
    """Ask the tokenizer; each character by itself, for BERT's rules look at no neighbours."""
    kinds = require("tokenizers", "tokenizer.json")
    normalizer = kinds.normalizers.BertNormalizer(**dict(options))
    parts = kinds.pre_tokenizers.BertPreTokenizer()
    found = _Characters([], [], [], {})
    for characters in _all_characters():
        made = normalizer.normalize_str(_APART.join(characters))
        words = " ".join(word for word, _ in parts.pre_tokenize_str(made))
        for character, piece in zip(characters, words.split(_APART), strict=True):
            found.add(character, piece)
    return found


def _all_characters() -> Iterator[list[str]]:
    """Thousands at once, which is much faster; surrogates are no characters."""
    # A NUL never arrives, and would end the strings in which it is written here.
    numbers = [*range(1, _SURROGATES.start), *range(_SURROGATES.stop, _LAST + 1)]
    numbers.remove(ord(_APART))
    for start in range(0, len(numbers), _AT_ONCE):
        # At both ends a letter, because blanks there leave no trace.
        yield ["x", *map(chr, numbers[start : start + _AT_ONCE]), "x"]


def _ranges(numbers: Iterable[int]) -> str:
    """Characters as the inside of a class of a regular expression."""
    text, start, last = "", -2, -2
    for number in [*sorted(numbers), -2]:
        if number == last + 1:
            last = number
            continue
        if start >= 0:
            text += f"\\x{{{start:X}}}-\\x{{{last:X}}}"
        start = last = number
    return text


def _replaced(draft: Draft, text: ir.Value, pattern: str, by: str) -> ir.Value:
    return draft("StringRegexReplace", text, strings(pattern), strings(by), domain=TEXTS)


def _in_order(vocabulary: Mapping[str, int]) -> list[str]:
    """Tokens by number; a number without one gets a line that no text can be.

    So does a token that is empty or holds the end of a line, which no word does: the operator would
    cut its vocabulary there, leave out what is empty, and count all tokens behind it wrongly.
    """
    lines = [f"\ufffd {number}" for number in range(max(vocabulary.values()) + 1)]
    for token, number in vocabulary.items():
        if token and "\n" not in token and "\r" not in token:
            lines[number] = token
    return lines
