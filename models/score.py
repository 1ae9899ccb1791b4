"""Prints a built model's task metrics on its evaluation samples.

Run from the repository root: ``python -m models.score NAME... [--model FILE]``; ``--model`` scores
another file, a quantized one say, on the samples of NAME. Metrics: top-1 accuracy where there is
``labels.npy``, share of lines read without an error where there is ``labels.txt``, perplexity for
smollm2; for minilm how its sentence vectors agree with people: the correlation of cosine and human
judgement over pairs of texts, Pearson's for Lee's 50 news documents and Spearman's for the words of
SimLex-999, as their authors take it.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import stats

from models.build import CACHE
from onnxq.errors import OnnxqError
from onnxq.files import lines_of
from onnxq.runtime.session import Session, open_session

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of how well a model does its task.

    Attributes:
        name: What it measures.
        value: The figure.
        digits: Decimals that are worth reading.
    """

    name: str
    value: float
    digits: int = 4

    def __str__(self) -> str:
        """The name and the figure."""
        return f"{self.name} {self.value:.{self.digits}f}"


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
    characters = lines_of(next(note.value for note in notes if note.key == "character"))
    read = [decode(session.run(sample)[0][0], characters) for sample in feeds(folder, session)]
    right = lines_of((folder / "labels.txt").read_text("utf-8"))
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


def sentence_vectors(
    ids: NDArray[np.int64], mask: NDArray[np.int64], session: Session
) -> NDArray[np.float64]:
    """Return each text's mean state over the tokens of its mask, of length 1: ``[texts, 384]``.

    Texts are run one by one without their padding, as the model's samples are: a model that takes
    ranges of what it sees must not take them of padding.
    """
    vectors = []
    for row, length in zip(ids, mask.sum(axis=1), strict=True):
        tokens = row[None, :length]
        ones, zeros = np.ones_like(tokens), np.zeros_like(tokens)
        sample = {"input_ids": tokens, "attention_mask": ones, "token_type_ids": zeros}
        mean = session.run(sample)[0][0].astype(np.float64).mean(axis=0)
        vectors.append(mean / np.linalg.norm(mean))
    return np.stack(vectors)


def cosines(path: Path, session: Session) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the model's cosine and people's judgement of each pair of texts in a file."""
    with np.load(path) as judged:
        vectors = sentence_vectors(judged["input_ids"], judged["attention_mask"], session)
        first, second = vectors[judged["pairs"]].swapaxes(0, 1)
        return (first * second).sum(axis=1), judged["human"]


def agreement(folder: Path, session: Session) -> tuple[Metric, ...]:
    """Return the correlations with people's judgements of documents and of words."""
    pearson = stats.pearsonr(*cosines(folder / "lee.npz", session)).statistic
    spearman = stats.spearmanr(*cosines(folder / "simlex999.npz", session)).statistic
    return (
        Metric("Pearson with Lee's judgements", float(pearson)),
        Metric("Spearman with SimLex-999", float(spearman)),
    )


def score(name: str, model: Path | None = None) -> tuple[Metric, ...]:
    """Return the metrics of a built model, or of another file on its samples.

    Raises:
        FileNotFoundError: If the model is not built, or not with what its metric needs.
        OnnxqError: If `model` cannot be run.
    """
    folder = CACHE / name
    path = model or folder / "model.onnx"
    if not (folder / "SOURCE.json").is_file():
        msg = f"{name} is not built: python -m models.build {name}"
        raise FileNotFoundError(msg)
    session = open_session(path)
    if name == "smollm2":
        return (Metric("perplexity", perplexity(folder, session), digits=2),)
    if (folder / "labels.npy").is_file():
        return (Metric("top-1 accuracy", top_1(folder, session)),)
    if (folder / "labels.txt").is_file():
        return (Metric("lines read without an error", lines_read(folder, session)),)
    if (folder / "similarity").is_dir():
        return agreement(folder / "similarity", session)
    msg = f"{name} was built without what its metric needs: python -m models.build {name}"
    raise FileNotFoundError(msg)


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
            found = ", ".join(map(str, score(name, options.model)))
            sys.stdout.write(f"{name}: {found}\n")
    except (FileNotFoundError, OnnxqError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
