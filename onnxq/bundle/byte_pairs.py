"""BPE on bytes, as of GPT-2, by the operator ``GPT2Tokenizer`` of onnxruntime-extensions.

The operator splits by GPT-2's expression and merges pairs. What it lacks stands around it: added
tokens, and with ``Digits`` single digits, are cut out of the text before, so that each piece is
tokenized by itself as the ``tokenizers`` package does; added tokens are their numbers.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from onnxq.bundle.added_tokens import is_odd
from onnxq.bundle.draft import TEXTS, ints, strings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from onnxq.bundle.draft import Draft

    Declared = Mapping[str, Any]

_EMPTY: Final = ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")
_UNSET: Final = ("byte_fallback", "ignore_merges", "fuse_unk")


def why_not_byte_pairs(declared: Declared) -> str:
    """Why a tokenizer whose model is BPE has no form in a graph; empty if it has one."""
    model = declared["model"]
    if declared.get("normalizer") is not None:
        return f"texts are normalized first ({declared['normalizer'].get('type')})"
    unsupported = [key for key in (*_EMPTY, *_UNSET) if model.get(key)]
    if unsupported:
        return f"the operator knows no {unsupported[0]}"
    steps = _pretokenizers(declared)
    kinds = [step.get("type") for step in steps]
    if kinds not in (["ByteLevel"], ["Digits", "ByteLevel"]):
        return f"texts are split by {' and '.join(map(str, kinds)) or 'nothing'}, not as GPT-2 does"
    if steps[-1].get("add_prefix_space") or not steps[-1].get("use_regex", True):
        return "its ByteLevel adds a blank or splits otherwise than GPT-2's"
    if len(steps) == 2 and not steps[0].get("individual_digits"):
        return "its Digits keep numbers together"
    return ""


def byte_pair_tokens(draft: Draft, text: ir.Value, declared: Declared) -> tuple[ir.Value, ir.Value]:
    """Tokens of a text ``[1]``, without what the tokenizer puts around it, and the text of each.

    Both are int64 ``[tokens]``; there is one text, 0.
    """
    model = declared["model"]
    tokens = [token for token in declared.get("added_tokens", ()) if not is_odd(token)]
    # The operator takes places below the size of its vocabulary for granted, not any numbers, and
    # writes beyond its memory else: here tokens are counted, and get their numbers at the end.
    vocabulary = sorted(model["vocab"], key=model["vocab"].__getitem__)
    added = {token["content"]: len(vocabulary) + n for n, token in enumerate(tokens)}
    cut = [re.escape(token) for token in sorted(added, key=len, reverse=True)]
    if len(_pretokenizers(declared)) == 2:
        cut.append(r"\p{N}")
    pieces = draft("Identity", text)
    if cut:
        pattern = strings(f"({'|'.join(cut)})")
        pieces = draft.several(
            "StringRegexSplitWithOffsets", 4, text, pattern, pattern, domain=TEXTS
        )[0]
    ids, mask = draft.several(
        "GPT2Tokenizer",
        2,
        pieces,
        domain=TEXTS,
        vocab=json.dumps({token: n for n, token in enumerate(vocabulary)}, ensure_ascii=False),
        merges="\n".join(["#version: 0.2", *_merges(model["merges"])]),
        padding_length=-1,
    )
    ids, kept = draft("Reshape", ids, ints(-1)), draft("Reshape", mask, ints(-1))
    if added:
        ids, kept = _with_added(draft, pieces, (ids, kept), added)
    numbers = ints(*(model["vocab"][token] for token in vocabulary), *(t["id"] for t in tokens))
    # Characters that the vocabulary lacks are left out, as the tokenizers package does.
    known = draft("Less", ids, np.array(len(numbers), np.int64))
    ids = draft("Compress", ids, draft("And", known, draft("Equal", kept, ints(1))))
    return draft("Gather", numbers, ids), draft("Expand", ints(0), draft("Shape", ids))


def _with_added(
    draft: Draft, pieces: ir.Value, made: tuple[ir.Value, ir.Value], added: Mapping[str, int]
) -> tuple[ir.Value, ir.Value]:
    """Pieces that are added tokens as such, in place of the tokens of their characters."""
    ids, kept = made
    number = draft(
        "LabelEncoder",
        pieces,
        domain="ai.onnx.ml",
        keys_strings=list(added),
        values_int64s=list(added.values()),
        default_int64=-1,
    )
    # Rows are as long as the longest piece; an added token is the first of its row.
    table, mask = (_in_rows(draft, value, pieces) for value in (ids, kept))
    column = draft("Unsqueeze", number, ints(1))
    is_added = draft("GreaterOrEqual", column, ints(0))
    places = draft("CumSum", draft("Expand", ints(1), draft("Shape", table)), np.array(1))
    first = draft("Equal", places, ints(1))
    table = draft("Where", is_added, column, table)
    mask = draft("Where", is_added, draft("Cast", first, to=7), mask)
    return draft("Reshape", table, ints(-1)), draft("Reshape", mask, ints(-1))


def _in_rows(draft: Draft, value: ir.Value, pieces: ir.Value) -> ir.Value:
    """``[pieces, length]`` of as many numbers; of an empty text, without a piece, ``[0, 0]``."""
    count = draft("Shape", pieces)
    length = draft("Div", draft("Shape", value), draft("Max", count, ints(1)))
    return draft("Reshape", value, draft("Concat", count, length, axis=0), allowzero=1)


def _pretokenizers(declared: Declared) -> Sequence[Mapping[str, Any]]:
    step = declared.get("pre_tokenizer")
    if step is None:
        return ()
    return step["pretokenizers"] if step.get("type") == "Sequence" else (step,)


def _merges(merges: Sequence[str | Sequence[str]]) -> list[str]:
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
