"""A text to a model's token inputs, in the graph; which kinds of tokenizer have operators for that.

The graph takes one text, a string ``[1]``, and gives what :class:`onnxq.data.tokenizer.Tokenizer`
gives for it, cut at the same length. Known are two kinds, told by ``tokenizer.json``; of all others
the reason is said.

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

_KINDS: Final[Mapping[str, tuple[Callable[..., str], Callable[..., ir.Value]]]] = {
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

    def inputs(self, text: ir.Value) -> dict[str, ir.Value]:
        """The model's inputs by name, each ``[1, tokens]``."""
        draft = self._draft
        body = self._write(draft, text, self._declared)
        limit = self._cut.limit
        if limit is not None:
            room = max(limit - len(self._opening) - len(self._ending), 0)
            body = draft("Slice", body, ints(0), ints(room))
        ids = draft("Concat", ints(*self._opening), body, ints(*self._ending), axis=0)
        values = self._values(ids)
        return {spec.name: self._shaped(values[role], spec) for role, spec in self._wanted()}

    def _ids(self, special: bool) -> list[int]:
        """A short text's tokens, without padding."""
        found = self._file.inner.encode("a", add_special_tokens=special)
        return [n for n, kept in zip(found.ids, found.attention_mask, strict=True) if kept]

    def _wanted(self) -> list[tuple[Role, InputSpec]]:
        return list(self._file.wanted.items())

    def _values(self, ids: ir.Value) -> dict[Role, ir.Value]:
        """int64 ``[tokens]`` for each use."""
        draft = self._draft
        count = draft("Shape", ids)
        ones = draft("Expand", ints(1), count)
        zeros = draft("Expand", ints(0), count)
        padding = self._file.inner.padding
        if padding is not None:
            behind = draft("Sub", ints(padding["length"]), count)
            pads = draft("Concat", ints(0), behind, axis=0)
            number = np.array(padding["pad_id"], np.int64)
            ids = draft("Pad", ids, pads, number)
            ones, zeros = (draft("Pad", v, pads, np.array(0, np.int64)) for v in (ones, zeros))
        length = draft("Squeeze", draft("Shape", ids))
        places = draft("Range", np.array(0, np.int64), length, np.array(1, np.int64))
        return {"ids": ids, "mask": ones, "types": zeros, "positions": places}

    def _shaped(self, value: ir.Value, spec: InputSpec) -> ir.Value:
        draft = self._draft
        row = draft("Unsqueeze", value, ints(0))
        if spec.dtype is None or spec.dtype == np.int64:
            return row
        return draft("Cast", row, to=ir.DataType.from_numpy(spec.dtype))


def _unsupported(file: TokenizerFile, why: str) -> DataError:
    code = "bundle.tokenizer"
    text = f"this tokenizer cannot be put into a graph: {why}"
    remedy = "Tokenize outside of the graph; --tokenizer still serves calibration."
    return DataError(code, text, where=str(file.path), remedy=remedy)
