"""Files of preprocessing steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from onnxq.data.preprocess import EXAMPLE, load_preprocess
from onnxq.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

BASE = "version = 1\n[image]\nscale = 1\nmean = 0\nstd = 1\n"


def test_the_example_of_the_remedy_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text(EXAMPLE.replace("; ", "\n"), encoding="utf-8")
    found = load_preprocess(file).image
    assert found is not None
    assert found.scale == pytest.approx(1 / 255)
    assert found.size == (224, 224)
    assert found.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (f"{BASE}resise = 3\n", "preprocess.unknown_key", "'resize'"),
        (f"{BASE}[text]\nmaxlength = 3\n", "preprocess.unknown_key", "'max_length'"),
        (f"{BASE}resize = {{ shortst = 3 }}\n", "preprocess.unknown_key", "'shortest'"),
        (f"{BASE}resize = {{ shortest = 3, exact = [1, 1] }}", "preprocess.value", "exactly one"),
        (f"{BASE}resize = {{ }}\n", "preprocess.value", "exactly one"),
        (f"{BASE}crop = [0, 3]\n", "preprocess.value", "crop"),
        (f'{BASE}color = "RBG"\n', "preprocess.value", "'RGB'"),
        (BASE.replace("std = 1", "std = [1, 0, 1]"), "preprocess.value", "divided"),
        (BASE.replace("mean = 0", "mean = [1, 2]"), "preprocess.value", "2 numbers"),
        (BASE.replace("scale = 1", 'scale = "1/x"'), "preprocess.value", "fraction"),
        (BASE.replace("scale = 1", "scale = inf"), "preprocess.value", "scale"),
        (BASE.replace("mean = 0\n", ""), "preprocess.missing_key", "image.mean"),
        ("[image]\n", "preprocess.version", "version = 1"),
        ("version = 2\n", "preprocess.version", "version 2"),
        ("version = \n", "preprocess.syntax", "[image]"),
    ],
)
def test_refused(tmp_path: Path, text: str, code: str, words: str) -> None:
    file = tmp_path / "p.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_preprocess(file)
    assert caught.value.code == code
    assert words in str(caught.value)
    assert caught.value.where == str(file)


def test_unreadable(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        load_preprocess(tmp_path / "no.toml")
    (tmp_path / "p.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not UTF-8"):
        load_preprocess(tmp_path / "p.toml")
