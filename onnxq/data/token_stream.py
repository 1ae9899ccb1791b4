"""From texts without end to token ids, for windows.

A document begins with what the tokenizer puts before a text and ends with what it puts behind one;
where that is nothing, with its end-of-text token, unless this is what documents begin with.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from onnxq.data.roles import role_of
from onnxq.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from onnxq.data.preprocess import TextSteps
    from onnxq.data.sample import Signature
    from onnxq.data.tokenizer_file import TokenizerFile

    Tokens = NDArray[np.int64]

WINDOW: Final = 256
"""Tokens of a window where neither the user nor the model says."""

_ENDS: Final = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[EOS]")
_MASKS: Final = ("[MASK]", "<mask>")
_AT_ONCE: Final = 1 << 20
"""Characters of a longer text that are tokenized together."""


class TokenStream:
    """Makes tokens of texts as they come.

    Attributes:
        window: Tokens of a window.
        past: How many of them come first, as past keys and values.
        declared: Whether windows must have this length: the user or the model says so.
        opening: What a document begins with.
        ending: What it ends with.
        digest: Of all that tokens and windows depend on beside the texts.
    """

    def __init__(self, file: TokenizerFile, signature: Signature, steps: TextSteps) -> None:
        """Look for the tokens that part documents.

        Args:
            file: The tokenizer; it no longer cuts or pads.
            signature: The model's inputs.
            steps: What is declared; :func:`window_for` must not be 0.

        Raises:
            DataError: The window or its past does not suit the model.
        """
        self._file = file
        self._inner = file.inner
        self._inner.no_padding()
        self._inner.no_truncation()
        self.window = window_for(file, signature, steps)
        self.past = steps.past
        self.declared = steps.window is not None or file.fixed is not None
        self.opening, self.ending = self._around(steps)
        self._check(signature)
        settings = f"{self.window} {steps.model_dump_json()}"
        self.digest = hashlib.sha256(file.content + settings.encode()).hexdigest()

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the tokenizer."""
        return (self._file.note,) if self._file.note else ()

    def tokens(self, text: str) -> Tokens:
        """The tokens of a text, without what documents begin and end with."""
        parts = [
            np.array(self._inner.encode(part, add_special_tokens=False).ids, np.int64)
            for part in _parts(text)
        ]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def feeds(self, tokens: Tokens) -> dict[str, NDArray[Any]]:
        """The model's token inputs, each ``[1, tokens]``."""
        count = len(tokens)
        return self._file.feeds(
            {
                "ids": tokens.tolist(),
                "mask": [1] * count,
                "types": [0] * count,
                "positions": range(count),
            }
        )

    def _around(self, steps: TextSteps) -> tuple[Tokens, Tokens]:
        if not steps.add_special_tokens:
            return _array([]), _array([])
        plain = self._inner.encode("a", add_special_tokens=False).ids
        whole = self._inner.encode("a", add_special_tokens=True)
        special = whole.special_tokens_mask
        before = special.index(0) if 0 in special else 0
        opening, ending = whole.ids[:before], whole.ids[before + len(plain) :]
        end = self._end_of_text()
        if not ending and end is not None and end not in opening:
            ending = [end]
        return _array(opening), _array(ending)

    def _end_of_text(self) -> int | None:
        configured = self._file.configured.get("eos_token")
        names = [*_ENDS, *([configured] if isinstance(configured, str) else [])]
        numbers = (self._inner.token_to_id(name) for name in names)
        return next((number for number in numbers if number is not None), None)

    def _check(self, signature: Signature) -> None:
        fixed, where = self._file.fixed, str(self._file.path)
        longest = self._file.longest or self.window
        if fixed is not None and fixed != self.window:
            code, text = "data.window", f"windows of {self.window}, the model wants {fixed} tokens"
            raise DataError(code, text, where=where, remedy=f"Say [text] window = {fixed}.")
        if self.window > longest:
            code = "data.window"
            text = f"windows of {self.window}, the model has positions for {longest} tokens"
            raise DataError(code, text, where=where, remedy=f"Say [text] window = {longest}.")
        if not self.past:
            return
        if not _takes_past(signature):
            code, text = "data.past", "past keys and values are asked for, the model takes none"
            remedy = "Leave [text] past out, or give a model with past_key_values."
            raise DataError(code, text, where=where, remedy=remedy)
        if self.past >= self.window:
            code, text = "data.past", f"a past of {self.past} tokens fills the window"
            remedy = f"Give less than the window's {self.window}."
            raise DataError(code, text, where=where, remedy=remedy)


def window_for(file: TokenizerFile, signature: Signature, steps: TextSteps) -> int:
    """Tokens of a window; 0 where each text is a sample by itself.

    Without a word of the user these are windows for language models: those that give logits over
    their tokens or take past keys and values, unless the tokenizer has a token to mask others with.
    """
    if steps.window is not None:
        return steps.window
    is_decoder = file.ids.scored or _takes_past(signature)
    masks = any(file.inner.token_to_id(name) is not None for name in _MASKS)
    if not is_decoder or masks or steps.max_length is not None:
        return 0
    if file.fixed is not None:
        return file.fixed if file.fixed > 1 else 0
    return min(WINDOW, file.model_max_length or WINDOW, file.longest or WINDOW)


def _takes_past(signature: Signature) -> bool:
    return any(role_of(spec) == "past" for spec in signature)


def _parts(text: str) -> Iterator[str]:
    """The text, a long one in parts that end before a blank where there is one."""
    start = 0
    while len(text) - start > _AT_ONCE:
        blank = text.rfind(" ", start + 1, start + _AT_ONCE)
        end = blank if blank > start else start + _AT_ONCE
        yield text[start:end]
        start = end
    yield text[start:]


def _array(tokens: list[int]) -> Tokens:
    return np.array(tokens, np.int64)
