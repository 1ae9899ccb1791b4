"""Data together with what turns it into a model's inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from onnxq.errors import DataError

TEXT_SUFFIXES: Final = (".txt", ".jsonl", ".csv", ".parquet")
"""Files that hold texts, or may."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Data, and how its images and texts become arrays; arrays are taken as they are.

    It stands wherever data is wanted: ``quantize(model, Reading("a.txt", tokenizer=...), output)``.

    Attributes:
        source: A path or Python object, as given without a reading.
        preprocess: How images and texts become inputs, in any form of :mod:`onnxq.data.declared`:
            a file of steps (TOML), a checkpoint's ``preprocessor_config.json`` or folder, or an
            ``.onnx`` model whose outputs are the inputs of the model to be fed.
        tokenizer: A ``tokenizer.json``, or the folder that holds it.
    """

    source: Any
    preprocess: str | Path | None = None
    tokenizer: str | Path | None = None


def text_reading(
    source: str | Path,
    model: Path,
    preprocess: str | Path | None = None,
    tokenizer: str | Path | None = None,
) -> Reading:
    """A file of texts, read by a tokenizer: the one named, or else ``tokenizer.json`` by the model.

    Raises:
        DataError: It is no file of texts, or there is no tokenizer.
    """
    if Path(source).suffix.lower() not in TEXT_SUFFIXES:
        code, text = "data.not_text", f"this is no file of texts ({', '.join(TEXT_SUFFIXES)})"
        raise DataError(code, text, where=str(source), remedy="Give other data with --data.")
    if tokenizer is None:
        tokenizer = model.with_name("tokenizer.json")
        if not tokenizer.is_file():
            code, text = "data.no_tokenizer", f"there is no tokenizer.json beside {model}"
            remedy = "Give --tokenizer with the model's tokenizer.json or the folder that holds it."
            raise DataError(code, text, where=str(source), remedy=remedy)
    return Reading(source, preprocess, tokenizer)
