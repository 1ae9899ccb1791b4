"""From a text to token ids, by a ``tokenizer.json`` and the ``tokenizers`` package.

One text is one sample, not padded, unless the model's length is fixed. A text is cut at the least
of: ``max_length`` of the preprocessing file, the model's fixed length, the truncation that
``tokenizer.json`` asks for, and ``model_max_length`` of the ``tokenizer_config.json`` beside it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

from onnxq.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxq.data.preprocess import TextSteps
    from onnxq.data.roles import Role
    from onnxq.data.tokenizer_file import TokenizerFile

MAX_TEXT: Final = 1 << 20
"""Characters of one text."""

_PADS: Final = ("[PAD]", "<pad>", "<|pad|>", "<|endoftext|>", "</s>")


class Tokenizer:
    """Makes the token inputs of a model from one text after the other."""

    def __init__(self, file: TokenizerFile, steps: TextSteps) -> None:
        """See where texts are cut.

        Raises:
            DataError: The model's length is fixed and nothing is known to fill up with.
        """
        self._steps = steps
        self._file = file
        self._inner = file.inner
        self.limit, self.limit_from = self._limit(file.path.name, file.fixed)
        self.pad_token = self._pad_token()
        self._cap(file.fixed)
        settings = f"{self.limit} {file.fixed} {steps.model_dump_json()}"
        self.digest = hashlib.sha256(file.content + settings.encode()).hexdigest()
        self._cut = False

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the tokenizer and of what became of texts so far."""
        cut = f"texts of more than {self.limit} tokens are cut there ({self.limit_from} says so)"
        return tuple(note for note in (self._file.note, cut if self._cut else "") if note)

    def _limit(self, name: str, fixed: int | None) -> tuple[int | None, str]:
        """The most tokens of a text, and who says so."""
        own = self._inner.truncation
        limits = {
            "the preprocessing file": self._steps.max_length,
            "the model": fixed,
            name: own["max_length"] if own else None,
            "tokenizer_config.json": self._file.model_max_length,
        }
        known = [(length, source) for source, length in limits.items() if length is not None]
        if self._steps.max_length is not None:
            # What the user declares holds, up to what the model can take at all.
            known = [pair for pair in known if pair[1] in {"the preprocessing file", "the model"}]
        return min(known, default=(None, ""))

    def _cap(self, fixed: int | None) -> None:
        self._inner.no_padding()
        self._inner.no_truncation()
        if self.limit is not None:
            self._inner.enable_truncation(self.limit)
        if fixed is None:
            return
        token, number = self.pad_token, self.pad_id
        if number is None:
            code = "data.pad_token"
            text = f"the model wants {fixed} tokens, and no token to fill up with is known"
            remedy = 'Declare it in the preprocessing file: [text] pad_token = "..."'
            raise DataError(code, text, where=str(self._file.path), remedy=remedy)
        self._inner.enable_padding(length=fixed, pad_id=number, pad_token=token)

    @property
    def pad_id(self) -> int | None:
        """The token that fills up; None where none is known."""
        return None if self.pad_token is None else self._inner.token_to_id(self.pad_token)

    def _pad_token(self) -> str | None:
        own = (self._inner.padding or {}).get("pad_token")
        known = (t for t in _PADS if self._inner.token_to_id(t) is not None)
        return self._steps.pad_token or own or next(known, None)

    def __call__(self, text: str, where: str) -> dict[str, NDArray[Any]]:
        """The model's token inputs, each ``[1, tokens]``.

        Raises:
            DataError: The text is too long to be one, or gives no token.
        """
        if len(text) > MAX_TEXT:
            code, why = "data.too_large", f"a text of {len(text)} characters"
            remedy = f"One text is one sample; split it at {MAX_TEXT} characters or earlier."
            raise DataError(code, why, where=where, remedy=remedy)
        found = self._inner.encode(text, add_special_tokens=self._steps.add_special_tokens)
        if not found.ids:
            code, why = "data.empty_sample", "the text gives no token"
            raise DataError(code, why, where=where, remedy="Leave it out.")
        self._cut = self._cut or bool(found.overflowing)
        values: dict[Role, list[int]] = {
            "ids": found.ids,
            "mask": found.attention_mask,
            "types": found.type_ids,
            "positions": list(range(len(found.ids))),
        }
        return self._file.feeds(values)
