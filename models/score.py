"""Prints a built model's task metric on its evaluation samples.

Run from the repository root: ``python -m models.score NAME... [--model FILE]``; ``--model`` scores
another file, a quantized one say, on the samples of NAME. Metrics: top-1 accuracy where there is
``labels.npy``, share of lines read without an error where there is ``labels.txt``, perplexity for
smollm2. minilm has no labels: what counts there is how close its states stay to the float model's.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models.build import CACHE
from onnxq.errors import OnnxqError
from onnxq.runtime.session import Session, open_session

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

BATCH: Final = 500


def feeds(folder: Path, session: Session) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the evaluation samples; those of a ``.npy`` many at a time."""
    rows = folder / "evaluation.npy"
    if rows.is_file():
        images = np.load(rows, mmap_mode="r")
        name = session.inputs[0].name
        for start in range(0, len(images), BATCH):
            yield {name: np.asarray(images[start : start + BATCH])}
    for path in sorted((folder / "evaluation").glob("*.npz")):
        with np.load(path) as sample:
            yield dict(sample)


def top_1(folder: Path, session: Session) -> float:
    """Return the share of samples whose largest output is at the label."""
    found = [session.run(sample)[0].argmax(axis=1) for sample in feeds(folder, session)]
    return float(np.mean(np.concatenate(found) == np.load(folder / "labels.npy")))


def lines_read(folder: Path, session: Session) -> float:
    """Return the share of rendered lines that are read without an error."""
    import onnx

    from models.ppocr_v6.build import decode

    # From the file that the package ships: other tools may drop metadata.
    notes = onnx.load(folder / "model.onnx", load_external_data=False).metadata_props
    characters = next(note.value for note in notes if note.key == "character").splitlines()
    read = [decode(session.run(sample)[0][0], characters) for sample in feeds(folder, session)]
    right = (folder / "labels.txt").read_text("utf-8").splitlines()
    return sum(a == b for a, b in zip(read, right, strict=True)) / len(right)


def perplexity(folder: Path, session: Session) -> float:
    """Return exp of the mean negative log-likelihood of each next token."""
    total, count = 0.0, 0
    for sample in feeds(folder, session):
        logits = session.run(sample)[0][0, :-1].astype(np.float64)
        following = sample["input_ids"][0, 1:]
        top = logits.max(axis=1)
        normalizer = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        total += float((normalizer - logits[np.arange(len(following)), following]).sum())
        count += len(following)
    return math.exp(total / count)


def score(name: str, model: Path | None = None) -> str:
    """Return the metric's name and value.

    Raises:
        FileNotFoundError: If the model is not built.
        OnnxqError: If `model` cannot be run.
    """
    folder = CACHE / name
    path = model or folder / "model.onnx"
    if not (folder / "SOURCE.json").is_file():
        msg = f"{name} is not built: python -m models.build {name}"
        raise FileNotFoundError(msg)
    session = open_session(path)
    if name == "smollm2":
        return f"perplexity {perplexity(folder, session):.2f}"
    if (folder / "labels.npy").is_file():
        return f"top-1 accuracy {top_1(folder, session):.4f}"
    if (folder / "labels.txt").is_file():
        return f"lines read without an error {lines_read(folder, session):.4f}"
    return "no labels"


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and print a line for each model."""
    parser = argparse.ArgumentParser(
        prog="python -m models.score", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--model", type=Path, metavar="FILE", help="score this file instead")
    options = parser.parse_args(arguments)
    try:
        for name in options.names:
            sys.stdout.write(f"{name}: {score(name, options.model)}\n")
    except (FileNotFoundError, OnnxqError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
