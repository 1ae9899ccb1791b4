"""From a text to token ids, by a ``tokenizer.json`` and the ``tokenizers`` package.

One text is one sample, not padded, unless the model's length is fixed. A text is cut at the least
of: ``max_length`` of the preprocessing file, the model's fixed length, the truncation that
``tokenizer.json`` asks for, and ``model_max_length`` of the ``tokenizer_config.json`` beside it.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from onnxq.data.extras import require
from onnxq.data.roles import role_of
from onnxq.errors import DataError
from onnxq.files import read_regular

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxq.data.preprocess import TextSteps
    from onnxq.data.roles import Role
    from onnxq.data.sample import Signature
    from onnxq.graph.structure import InputSpec

MAX_TEXT: Final = 1 << 20
"""Characters of one text."""

_MOST_BYTES: Final = 256 << 20
_MOST_TOKENS: Final = 1 << 24  # Larger numbers are a way to write "no limit".
_PADS: Final = ("[PAD]", "<pad>", "<|pad|>", "<|endoftext|>", "</s>")


class Tokenizer:
    """Makes the token inputs of a model from one text after the other."""

    def __init__(self, path: Path, signature: Signature, steps: TextSteps) -> None:
        """Read the tokenizer and see which inputs it feeds.

        Raises:
            DataError: It cannot be read, or the model has no input for token ids.
        """
        self._steps = steps
        file = path / "tokenizer.json" if path.is_dir() else path
        content = _read(file)
        self._inner = _parse(content, file)
        self._wanted = _token_inputs(signature, file)
        ids = self._wanted["ids"]
        fixed = ids.shape[1] if isinstance(ids.shape[1], int) else None
        self.limit, self.limit_from = self._limit(file, fixed)
        self._cap(fixed, file)
        settings = f"{self.limit} {fixed} {steps.model_dump_json()}"
        self.digest = hashlib.sha256(content + settings.encode()).hexdigest()
        self.cut = False

    def _limit(self, file: Path, fixed: int | None) -> tuple[int | None, str]:
        """The most tokens of a text, and who says so."""
        own = self._inner.truncation
        limits = {
            "the preprocessing file": self._steps.max_length,
            "the model": fixed,
            file.name: own["max_length"] if own else None,
            "tokenizer_config.json": _configured(file.with_name("tokenizer_config.json")),
        }
        known = [(length, source) for source, length in limits.items() if length is not None]
        if self._steps.max_length is not None:
            # What the user declares holds, up to what the model can take at all.
            known = [pair for pair in known if pair[1] in {"the preprocessing file", "the model"}]
        return min(known, default=(None, ""))

    def _cap(self, fixed: int | None, file: Path) -> None:
        padding = self._inner.padding or {}
        self._inner.no_padding()
        self._inner.no_truncation()
        if self.limit is not None:
            self._inner.enable_truncation(self.limit)
        if fixed is None:
            return
        token = self._steps.pad_token or padding.get("pad_token") or self._known_pad()
        number = None if token is None else self._inner.token_to_id(token)
        if number is None:
            code = "data.pad_token"
            text = f"the model wants {fixed} tokens, and no token to fill up with is known"
            remedy = 'Declare it in the preprocessing file: [text] pad_token = "..."'
            raise DataError(code, text, where=str(file), remedy=remedy)
        self._inner.enable_padding(length=fixed, pad_id=number, pad_token=token)

    def _known_pad(self) -> str | None:
        return next((t for t in _PADS if self._inner.token_to_id(t) is not None), None)

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
        self.cut = self.cut or bool(found.overflowing)
        values: dict[Role, list[int]] = {
            "ids": found.ids,
            "mask": found.attention_mask,
            "types": found.type_ids,
            "positions": list(range(len(found.ids))),
        }
        return {
            spec.name: np.array([values[role]], spec.dtype) for role, spec in self._wanted.items()
        }


def _token_inputs(signature: Signature, file: Path) -> dict[Role, InputSpec]:
    wanted: dict[Role, InputSpec] = {
        role: spec
        for spec in signature
        if (role := role_of(spec)) in {"ids", "mask", "types", "positions"} and role
        if spec.dtype is not None and len(spec.shape) == 2
    }
    if "ids" not in wanted:
        code = "data.no_token_input"
        names = ", ".join(repr(spec.name) for spec in signature)
        text = f"the model has no input_ids of shape [batch, length]; it takes {names}"
        remedy = "Give arrays as .npz, or a preprocessing model that makes these inputs."
        raise DataError(code, text, where=str(file), remedy=remedy)
    return wanted


def _read(file: Path) -> bytes:
    try:
        return read_regular(file, _MOST_BYTES)
    except OSError as error:
        code, text = "data.tokenizer", f"the tokenizer cannot be read ({error.strerror})"
        remedy = "Name a tokenizer.json, or the folder that holds it."
        raise DataError(code, text, where=str(file), remedy=remedy) from error


def _parse(content: bytes, file: Path) -> Any:
    kind = require("tokenizers", str(file)).Tokenizer
    try:
        return kind.from_str(content.decode("utf-8"))
    except BaseException as error:
        # Its Rust code panics with an exception that is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        code, text = "data.tokenizer", f"it is no tokenizer.json ({error})"
        remedy = "Name the tokenizer.json that belongs to the model."
        raise DataError(code, text, where=str(file), remedy=remedy) from error


def _configured(file: Path) -> int | None:
    """``model_max_length`` of a file that need not be there."""
    try:
        found = json.loads(read_regular(file, _MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    length = found.get("model_max_length") if isinstance(found, dict) else None
    return length if isinstance(length, int) and 0 < length < _MOST_TOKENS else None
