"""Real builds keep calibration and evaluation apart; preparation does what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models import texts
from models.packages import MissingPackageError


def installed(package: str) -> None:
    from models.packages import package_version

    try:
        package_version(package)
    except MissingPackageError:
        pytest.skip(f"{package} is not installed")


def test_articles_are_disjoint_and_all_different() -> None:
    installed(texts.BBC_PACKAGE)
    first, second = texts.bbc_articles(200), texts.bbc_articles(100, skip=200)
    assert len(set(first)) == 200
    assert len(set(second)) == 100
    assert not set(first) & set(second)
    assert first == texts.bbc_articles(200)


def test_crops() -> None:
    pytest.importorskip("PIL")
    installed("foolbox")
    installed("scikit-image")
    installed("scikit-learn")
    from models import images

    labelled, others = images.labelled_photographs(), images.photographs()
    assert len(labelled) == 20
    assert not {p.read_bytes() for p in labelled} & {p.read_bytes() for p in others}
    assert images.label(Path("imagenet_03_990.jpg")) == 990
    assert images.center_crop(labelled[0], 224).shape == (224, 224, 3)
    few = list(images.random_crops(others, 3, 64, seed=1, smallest=0.5))
    more = list(images.random_crops(others, 5, 64, seed=1, smallest=0.5))
    assert all(np.array_equal(a, b) for a, b in zip(few, more, strict=False))
    assert few[0].shape == (64, 64, 3)


def test_rendered_lines_and_their_reading() -> None:
    pytest.importorskip("PIL")
    from models.ppocr_v6.build import decode, lines, rendered

    cut = lines(["one two three four five six seven eight nine ten eleven twelve " * 3], seed=0)
    assert 1 <= len(cut[0]) <= 40
    image = rendered("some text", np.random.default_rng(0))
    assert image.shape[:3] == (1, 3, 48)
    assert image.shape[3] >= 320
    assert -1 <= image.min() < image.max() <= 1
    # Classes: nothing, a, b, space. Twice the same without nothing between is one letter.
    steps = np.eye(4)[[0, 1, 1, 0, 1, 3, 2, 0]]
    assert decode(steps, ["a", "b"]) == "aa b"
