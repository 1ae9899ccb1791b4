"""A ``tokenizer.json`` as it was read, and the inputs of a model that token ids feed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from onnxq.data.extras import require
from onnxq.data.roles import role_of
from onnxq.data.vocabulary import check_vocabulary
from onnxq.errors import DataError
from onnxq.files import read_regular

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxq.data.roles import Role
    from onnxq.data.sample import Signature
    from onnxq.graph.structure import InputSpec

    Wanted = dict[Role, InputSpec]

_MOST_BYTES: Final = 256 << 20
_MOST_TOKENS: Final = 1 << 24  # Larger numbers are a way to write "no limit".


@dataclass(frozen=True, slots=True)
class TokenizerFile:
    """A tokenizer, and what it feeds.

    Attributes:
        path: The file.
        content: Its bytes.
        inner: The ``tokenizers.Tokenizer``.
        wanted: The model's inputs that it feeds, by what they are for.
        configured: What the ``tokenizer_config.json`` beside it says; empty if there is none.
        note: What the user should know of its vocabulary; empty if all is well.
    """

    path: Path
    content: bytes
    inner: Any
    wanted: Wanted
    configured: Mapping[str, Any]
    note: str

    @property
    def ids(self) -> InputSpec:
        """The input for token ids."""
        return self.wanted["ids"]

    @property
    def fixed(self) -> int | None:
        """How many tokens the model wants; None where it takes any number."""
        length = self.ids.shape[1]
        return length if isinstance(length, int) else None

    @property
    def longest(self) -> int | None:
        """How many tokens the model has positions for; None where it does not say."""
        positions = self.wanted.get("positions")
        return None if positions is None else positions.rows

    @property
    def model_max_length(self) -> int | None:
        """The most tokens that the configuration allows; None where it says nothing."""
        length = self.configured.get("model_max_length")
        return length if isinstance(length, int) and 0 < length < _MOST_TOKENS else None

    def feeds(self, values: Mapping[Role, Sequence[int]]) -> dict[str, NDArray[Any]]:
        """The model's token inputs, each ``[1, tokens]``; ``values`` may hold more than these."""
        return {
            spec.name: np.array([values[role]], spec.dtype) for role, spec in self.wanted.items()
        }


def read_tokenizer(path: Path, signature: Signature) -> TokenizerFile:
    """Read the tokenizer and see which inputs it feeds.

    Args:
        path: A ``tokenizer.json``, or the folder that holds it.
        signature: The model's inputs.

    Raises:
        DataError: It cannot be read, belongs to another model, or the model has no input for ids.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    content = _read(file)
    inner = _parse(content, file)
    wanted = _token_inputs(signature, file)
    note = check_vocabulary(inner, wanted["ids"], file)
    configured = _configured(file.with_name("tokenizer_config.json"))
    return TokenizerFile(file, content, inner, wanted, configured, note)


def _token_inputs(signature: Signature, file: Path) -> Wanted:
    wanted: Wanted = {
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


def _configured(file: Path) -> Mapping[str, Any]:
    """What a file that need not be there says."""
    try:
        found = json.loads(read_regular(file, _MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
