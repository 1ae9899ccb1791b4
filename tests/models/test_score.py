"""The metrics: correlation with people against a reference, and what is said where none is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats

from models import score as scorer
from onnxq.runtime.session import open_session
from tests.small_models import normal, write

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

# Looks the states of tokens up, and adds the mean of all that it sees: of padding too.
ENCODER = """g (int64[B, L] input_ids, int64[B, L] attention_mask, int64[B, L] token_type_ids)
        => (float[B, L, 8] last_hidden_state) {
    states = Gather<axis = 0>(table, input_ids)
    mean = ReduceMean<axes = [1]>(states)
    last_hidden_state = Add(states, mean)
}"""
TABLE = normal(0, 20, 8)
LENGTHS = np.array([3, 5, 1, 4])
PAIRS = np.array([[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]])


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return write(tmp_path / "encoder.onnx", ENCODER, table=TABLE)


def judged(path: Path, human: NDArray[np.float64], longest: int = 5) -> NDArray[np.float64]:
    """Write a file of judgements; the cosines of its pairs by their formula."""
    generator = np.random.default_rng(1)
    ids, mask = np.zeros((4, longest), np.int64), np.zeros((4, longest), np.int64)
    vectors = []
    for row, length in enumerate(LENGTHS):
        ids[row, :length] = generator.integers(0, 20, length)
        mask[row, :length] = 1
        vectors.append(TABLE[ids[row, :length]].astype(np.float64).mean(axis=0))
    path.parent.mkdir(exist_ok=True)
    np.savez(path, input_ids=ids, attention_mask=mask, pairs=PAIRS, human=human)
    norms = np.linalg.norm(vectors, axis=1)
    first, second = np.stack(vectors)[PAIRS].swapaxes(0, 1)
    cosines: NDArray[np.float64] = (first * second).sum(axis=1) / norms[PAIRS].prod(axis=1)
    return cosines


@pytest.mark.parametrize("longest", [5, 9])
def test_cosines_are_those_of_the_formula(tmp_path: Path, encoder: Path, longest: int) -> None:
    human = np.arange(6.0)
    wanted = judged(tmp_path / "lee.npz", human, longest)
    found, said = scorer.cosines(tmp_path / "lee.npz", open_session(encoder))
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    np.testing.assert_array_equal(said, human)


def test_agreement_is_pearsons_and_spearmans(
    tmp_path: Path,
    encoder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(scorer, "CACHE", tmp_path)
    folder = tmp_path / "minilm"
    folder.mkdir()
    (folder / "SOURCE.json").write_text("{}")
    human = np.array([0.9, 0.2, 0.4, 0.3, 0.8, 0.1])
    cosines = judged(folder / "similarity" / "lee.npz", human)
    judged(folder / "similarity" / "simlex999.npz", cosines**3)
    pearson, spearman = scorer.score("minilm", encoder)
    assert pearson.value == pytest.approx(np.corrcoef(cosines, human)[0, 1], abs=1e-5)
    assert spearman.value == pytest.approx(1)
    assert spearman.value == pytest.approx(stats.spearmanr(cosines, cosines**3).statistic)
    assert scorer.main(["minilm", "--model", str(encoder)]) == 0
    assert capsys.readouterr().out == f"minilm: {pearson}, Spearman with SimLex-999 1.0000\n"


def test_what_is_missing_is_named(
    tmp_path: Path,
    encoder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(scorer, "CACHE", tmp_path)
    assert scorer.main(["minilm"]) == 2
    (tmp_path / "minilm").mkdir()
    (tmp_path / "minilm" / "SOURCE.json").write_text("{}")
    assert scorer.main(["minilm", "--model", str(encoder)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "minilm is not built: python -m models.build minilm",
        "minilm was built without what its metric needs: python -m models.build minilm",
    ]
