"""Data together with what turns it into a model's inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Reading:
    """Data, and how its images and texts become arrays; arrays are taken as they are.

    It stands wherever data is wanted: ``quantize(model, Reading("a.txt", tokenizer=...), output)``.

    Attributes:
        source: A path or Python object, as given without a reading.
        preprocess: A file of steps (TOML, see :mod:`onnxq.data.preprocess`), or an ``.onnx`` model
            whose outputs are the inputs of the model to be fed.
        tokenizer: A ``tokenizer.json``, or the folder that holds it.
    """

    source: Any
    preprocess: str | Path | None = None
    tokenizer: str | Path | None = None
