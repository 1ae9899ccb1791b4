"""What minilm is judged on: the files say what they are said to; none of it is calibrated on."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pytest

from models import texts
from models.minilm import judgements
from models.packages import MissingPackageError, package_version

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _installed() -> None:
    for package in (judgements.PACKAGE, texts.BBC_PACKAGE):
        try:
            package_version(package)
        except MissingPackageError:
            pytest.skip(f"{package} is not installed")


def test_lees_documents_with_all_their_pairs() -> None:
    found = judgements.lee()
    assert len(set(found.texts)) == 50
    assert {text.count("\ufffd") for text in found.texts} == {0}
    assert [tuple(pair) for pair in found.pairs] == list(combinations(range(50), 2))
    # The file's first row after its diagonal: documents 0 and 1, 0 and 2.
    np.testing.assert_array_equal(found.human[:2], [0.3, 0.24])
    assert (found.human.min(), found.human.max()) == (0.2, 1.0)


def test_pairs_of_words() -> None:
    found = judgements.simlex()
    assert len(found.texts) == len(set(found.texts)) == 1028
    words = [tuple(found.texts[index] for index in pair) for pair in found.pairs]
    assert (words[0], found.human[0]) == (("old", "new"), 1.58)
    assert (words[-1], found.human[-1]) == (("attend", "arrive"), 6.08)
    assert len(words) == len(found.human) == 999


def test_no_sample_shares_six_words_in_a_row_with_a_judged_document() -> None:
    def runs(text: str) -> set[tuple[str, ...]]:
        words = text.lower().split()
        return {tuple(words[start : start + 6]) for start in range(len(words) - 5)}

    # minilm's build takes 128 articles to calibrate and the 64 after them to evaluate.
    lee = set().union(*map(runs, judgements.lee().texts))
    shared = [runs(article) & lee for article in texts.bbc_articles(192)]
    assert len(shared) == 192
    assert not any(shared)


def test_written_whole_with_their_masks(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    levels = tokenizers.models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(levels)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    pairs, human = np.array([[0, 1]]), np.array([0.5])
    path = tmp_path / "similarity" / "few.npz"
    judged = judgements.Judgements(("a b b", "b"), pairs, human)
    judgements.write_judgements(path, judged, tokenizer)
    first = path.read_bytes()
    with np.load(path) as found:
        np.testing.assert_array_equal(found["input_ids"], [[1, 2, 2], [2, 0, 0]])
        np.testing.assert_array_equal(found["attention_mask"], [[1, 1, 1], [1, 0, 0]])
        np.testing.assert_array_equal(found["pairs"], pairs)
        np.testing.assert_array_equal(found["human"], human)
    judgements.write_judgements(path, judged, tokenizer)
    assert path.read_bytes() == first
