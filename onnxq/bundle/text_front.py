"""A text to a model's token inputs, in the graph; which kinds of tokenizer have operators for that.

The graph takes texts, strings ``[texts]``, and gives for each what
:class:`onnxq.data.tokenizer.Tokenizer` gives for it, cut at the same length; rows are filled up on
the right to the longest, which the mask says. Where a model is not made for that it takes one text,
``[1]`` (:attr:`TextFront.axis`). Known are two kinds, told by ``tokenizer.json``; of all others the
reason is said.

============================  ====================================================================
WordPiece, as of BERT         :mod:`onnxq.bundle.wordpiece`
BPE on bytes, as of GPT-2     :mod:`onnxq.bundle.byte_pairs`
============================  ====================================================================

A text with a NUL character ends there, because strings do so on their way into ONNX Runtime.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir

from onnxq.bundle.added_tokens import is_odd
from onnxq.bundle.byte_pairs import byte_pair_tokens, why_not_byte_pairs
from onnxq.bundle.draft import ints
from onnxq.bundle.wordpiece import why_not_wordpiece, wordpiece_tokens
from onnxq.data.tokenizer import Tokenizer
from onnxq.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from onnxq.bundle.draft import Draft
    from onnxq.data.preprocess import TextSteps
    from onnxq.data.roles import Role
    from onnxq.data.tokenizer_file import TokenizerFile
    from onnxq.graph.structure import InputSpec

    Declared = Mapping[str, Any]
    Tokens = tuple[ir.Value, ir.Value]

_KINDS: Final[Mapping[str, tuple[Callable[..., str], Callable[..., Tokens]]]] = {
    "WordPiece": (why_not_wordpiece, wordpiece_tokens),
    "BPE": (why_not_byte_pairs, byte_pair_tokens),
}


class TextFront:
    """Writes a tokenizer's steps."""

    def __init__(self, draft: Draft, file: TokenizerFile, steps: TextSteps) -> None:
        """See that there are operators for it.

        Args:
            draft: Where to write.
            file: The tokenizer, and the inputs that it feeds.
            steps: Where texts are cut, and whether special tokens are added.

        Raises:
            DataError: A graph cannot do what the tokenizer does, with the reason.
        """
        self._draft = draft
        self._file = file
        self._steps = steps
        self._declared: Declared = json.loads(file.content)
        kind = str((self._declared.get("model") or {}).get("type"))
        if kind not in _KINDS:
            raise _unsupported(file, f"no operator computes the model {kind}")
        self._kind = kind
        why_not, self._write = _KINDS[kind]
        reason = why_not(self._declared)
        if reason:
            raise _unsupported(file, reason)
        whole, plain = (self._ids(special) for special in (steps.add_special_tokens, False))
        start = whole.index(plain[0]) if plain else 0
        self._opening, self._ending = whole[:start], whole[start + len(plain) :]
        # The tokenizer as calibration uses it knows where texts are cut, and how filled up.
        self._cut = Tokenizer(file, steps)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know: tokens that stay plain text."""
        odd = [
            token["content"] for token in self._declared.get("added_tokens", ()) if is_odd(token)
        ]
        if not odd:
            return ()
        return (f"in texts {', '.join(odd)} stays plain text: its blanks belong to it",)

    @property
    def axis(self) -> str | int:
        """What the axis of texts is called, where several can be given; else 1."""
        wanted, padding = self._file.wanted, self._declared.get("padding") or {}
        several = (
            self._kind == "WordPiece"
            and "mask" in wanted
            and not any(isinstance(spec.shape[0], int) for spec in wanted.values())
            and padding.get("direction") != "Left"
            and self._cut.pad_id is not None
        )
        return "texts" if several else 1

    def inputs(self, texts: ir.Value) -> dict[str, ir.Value]:
        """The model's inputs by name, each ``[texts, tokens]``."""
        draft = self._draft
        body, whose = self._write(draft, texts, self._declared)
        lengths = draft("Expand", ints(0), draft("Shape", texts))
        ones = draft("Expand", ints(1), draft("Shape", body))
        lengths = draft("ScatterElements", lengths, whose, ones, axis=0, reduction="add")
        starts = draft("CumSum", lengths, np.array(0, np.int64), exclusive=1)
        places = draft("Sub", self._range(draft("Shape", body)), draft("Gather", starts, whose))
        limit = self._cut.limit
        if limit is not None:
            room = ints(max(limit - len(self._opening) - len(self._ending), 0))
            kept = draft("Less", places, room)
            body, whose, places = (draft("Compress", v, kept) for v in (body, whose, places))
            lengths = draft("Min", lengths, room)
        values = self._values(body, (whose, places), lengths)
        return {
            spec.name: self._typed(values[role], spec) for role, spec in self._file.wanted.items()
        }

    def _ids(self, special: bool) -> list[int]:
        """A short text's tokens, without padding."""
        found = self._file.inner.encode("a", add_special_tokens=special)
        return [n for n, kept in zip(found.ids, found.attention_mask, strict=True) if kept]

    def _values(self, body: ir.Value, at: Tokens, lengths: ir.Value) -> dict[Role, ir.Value]:
        """int64 ``[texts, tokens]`` for each use.

        Args:
            body: The tokens, without those around them.
            at: The text of each, and its place in that.
            lengths: How many each text has.
        """
        draft, opening, ending = self._draft, self._opening, self._ending
        count, around = draft("Shape", lengths), len(opening) + len(ending)
        width = draft("Add", draft("ReduceMax", lengths, keepdims=1), ints(around))
        if self._file.fixed is not None:
            width = draft("Max", width, ints(self._file.fixed))
        shape = draft("Concat", count, width, axis=0)
        whose, places = at
        place = draft("Add", places, ints(len(opening)))
        at_all = [draft("Unsqueeze", value, ints(1)) for value in (whose, place)]
        ids = draft("Expand", ints(self._cut.pad_id or 0), shape)
        ids = draft("ScatterND", ids, draft("Concat", *at_all, axis=1), body)
        columns = self._range(width)
        ends = draft("Unsqueeze", draft("Add", lengths, ints(len(opening))), ints(1))
        behind = draft("Sub", columns, ends)
        for column, number, token in (
            *((columns, n, token) for n, token in enumerate(opening)),
            *((behind, n, token) for n, token in enumerate(ending)),
        ):
            ids = draft("Where", draft("Equal", column, ints(number)), ints(token), ids)
        mask = draft("Cast", draft("Less", behind, ints(len(ending))), to=ir.DataType.INT64)
        types, positions = (draft("Expand", value, shape) for value in (ints(0), columns))
        return {"ids": ids, "mask": mask, "types": types, "positions": positions}

    def _range(self, count: ir.Value) -> ir.Value:
        """0, 1, ... for a length ``[1]``."""
        zero, one = np.array(0, np.int64), np.array(1, np.int64)
        return self._draft("Range", zero, self._draft("Squeeze", count), one)

    def _typed(self, value: ir.Value, spec: InputSpec) -> ir.Value:
        if spec.dtype is None or spec.dtype == np.int64:
            return value
        return self._draft("Cast", value, to=ir.DataType.from_numpy(spec.dtype))


def _unsupported(file: TokenizerFile, why: str) -> DataError:
    code = "bundle.tokenizer"
    text = f"this tokenizer cannot be put into a graph: {why}"
    remedy = "Tokenize outside of the graph; --tokenizer still serves calibration."
    return DataError(code, text, where=str(file.path), remedy=remedy)
