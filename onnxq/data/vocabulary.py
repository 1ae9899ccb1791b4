"""Whether a tokenizer belongs to a model, as far as their vocabularies tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxq.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.graph.structure import InputSpec

_SMALL = 0.9
"""Tables have a few rows more than there are tokens, up to a round number."""


def check_vocabulary(tokenizer: Any, spec: InputSpec, file: Path) -> str:
    """Refuse a tokenizer whose ids have no row in the model's table of embeddings.

    Tokens that were added to the vocabulary, for images say, may lie behind the table's end and
    never come: where one does, the sample is refused.

    Args:
        tokenizer: A ``tokenizers.Tokenizer``.
        spec: The model's input for its ids.
        file: Where the tokenizer comes from.

    Returns:
        What the user should know, in a sentence; empty if all is well.

    Raises:
        DataError: The vocabulary is larger than the table.
    """
    rows = spec.rows
    if rows is None:
        return ""
    table = f"the table that {spec.name} is looked up in has {rows} rows"
    most = max(tokenizer.get_vocab(with_added_tokens=False).values(), default=0)
    if most >= rows:
        code, text = "data.vocabulary", f"its ids reach {most}, {table}"
        raise DataError(code, text, where=str(file), remedy="Name the model's own tokenizer.json.")
    added = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
    if added >= rows:
        return f"{file}: the ids of added tokens reach {added}, {table}"
    count = tokenizer.get_vocab_size(with_added_tokens=True)
    if count < _SMALL * rows:
        return f"{file}: it has {count} tokens, {table}: is it the model's own?"
    return ""
