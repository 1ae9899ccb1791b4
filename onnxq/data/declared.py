"""What is declared of preprocessing, in whichever of its forms: one place where each is told apart.

==============================  =================================================================
``steps.toml``                  the steps of :mod:`onnxq.data.preprocess`
``preprocessor_config.json``    a checkpoint's steps for images
``tokenizer.json``              a tokenizer
a folder                        a checkpoint: the two before, and how long its texts may be
``pre.onnx``                    a model that makes the inputs
==============================  =================================================================

Calibration reads it to feed a model, and a bundle is built of it, so they cannot differ.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from onnxq.data.preprocess import Preprocess, TextSteps, load_preprocess
from onnxq.data.processor_config import NAME, read_processor_config
from onnxq.errors import DataError
from onnxq.files import read_regular

if TYPE_CHECKING:
    from pathlib import Path

TOKENIZER: Final = "tokenizer.json"
_SENTENCES: Final = "sentence_bert_config.json"
_MOST_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Declared:
    """What is declared.

    Attributes:
        where: The file or folder, for messages; empty where nothing is named.
        steps: The steps for images and texts.
        tokenizer: The tokenizer's file or folder; None without one.
        model: A model that does it all; None without one.
    """

    where: str
    steps: Preprocess = field(default_factory=Preprocess)
    tokenizer: Path | None = None
    model: Path | None = None


def declared(preprocess: Path | None, tokenizer: Path | None) -> Declared:
    """Read what the user names.

    Args:
        preprocess: Any of the forms above.
        tokenizer: A ``tokenizer.json`` or the folder that holds it; it goes before one that
            ``preprocess`` holds.

    Raises:
        DataError: It cannot be read or says something unknown.
    """
    if preprocess is None:
        return Declared(str(tokenizer or ""), tokenizer=tokenizer)
    where = str(preprocess)
    if preprocess.suffix.lower() == ".onnx":
        return Declared(where, tokenizer=tokenizer, model=preprocess)
    if preprocess.is_dir():
        return _of_folder(preprocess, tokenizer)
    if preprocess.name == TOKENIZER:
        return Declared(where, tokenizer=tokenizer or preprocess)
    if preprocess.suffix.lower() == ".json":
        steps = Preprocess(image=read_processor_config(preprocess))
        return Declared(where, steps, tokenizer)
    return Declared(where, load_preprocess(preprocess), tokenizer)


def _of_folder(folder: Path, tokenizer: Path | None) -> Declared:
    image = read_processor_config(folder / NAME) if (folder / NAME).is_file() else None
    if tokenizer is None and (folder / TOKENIZER).is_file():
        tokenizer = folder
    if image is None and tokenizer is None:
        code, text = "preprocess.folder", f"the folder holds no {NAME} and no {TOKENIZER}"
        raise DataError(code, text, where=str(folder), remedy="Name a checkpoint's folder.")
    steps = Preprocess(image=image, text=TextSteps(max_length=_longest(folder)))
    return Declared(str(folder), steps, tokenizer)


def _longest(folder: Path) -> int | None:
    """Where a sentence encoder cuts its texts, which its tokenizer need not say."""
    try:
        found = json.loads(read_regular(folder / _SENTENCES, _MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    length = found.get("max_seq_length") if isinstance(found, dict) else None
    return length if isinstance(length, int) and length > 0 else None
