"""Equal ids on 1,000 strings: real ones from installed packages, and hostile ones."""

from __future__ import annotations

import random
import sysconfig
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the models are made with PyTorch: make models")

from models.minilm.model import FOLDER, PACKAGE
from models.packages import package_file
from models.smollm2.model import tokenizer
from onnxq.bundle.probes import TEXTS
from onnxq.data.preprocess import TextSteps
from onnxq.data.tokenizer import Tokenizer
from onnxq.data.tokenizer_file import read_tokenizer
from onnxq.errors import DataError
from tests.bundle.parts import HOSTILE, TOKENS, opened, text_graph

pytestmark = pytest.mark.slow

COUNT = 1000


def lines(count: int) -> list[str]:
    """A line of each file in turn, and where it has one, a line that is not ASCII."""
    packages = Path(sysconfig.get_paths()["purelib"])
    paths = sorted(p for end in ("md", "rst", "txt", "py") for p in packages.glob(f"*/**/*.{end}"))
    chance = random.Random(0)
    chance.shuffle(paths)
    found: list[str] = []
    for path in paths:
        text = path.read_text("utf-8", errors="replace")[:200_000]
        known = [line for line in text.splitlines() if line.strip() and "\0" not in line]
        odd = [line for line in known if not line.isascii()]
        found += [chance.choice(some)[:500] for some in (known, odd) if some]
        if len(found) >= count:
            return found[:count]
    return found


@pytest.mark.parametrize("name", ["minilm", "smollm2"])
def test_a_thousand_strings(name: str, tmp_path: Path) -> None:
    path = package_file(PACKAGE, f"{FOLDER}/tokenizer.json")
    if name == "smollm2":
        path = tmp_path / "tokenizer.json"
        tokenizer().backend_tokenizer.save(str(path))
    texts = [*HOSTILE, *TEXTS, *lines(COUNT)][:COUNT]
    assert len(texts) == COUNT
    assert sum(not text.isascii() for text in texts) > COUNT / 8
    steps = TextSteps(max_length=128)
    session = opened(text_graph(path, steps))
    code = Tokenizer(read_tokenizer(path, TOKENS), steps)
    names = [spec.name for spec in session.outputs]
    empty = 0
    for text in texts:
        found = dict(zip(names, session.run({"text": np.array([text], object)}), strict=True))
        try:
            expected = code(text, "text")
        except DataError:
            empty += 1
            continue
        for spec in TOKENS:
            np.testing.assert_array_equal(found[spec.name], expected[spec.name], err_msg=repr(text))
    assert empty <= 1
    if session.inputs[0].shape == (1,):
        assert name == "smollm2"
        return
    for start in range(0, COUNT, 40):
        batch = texts[start : start + 40]
        rows = dict(zip(names, session.run({"text": np.array(batch, object)}), strict=True))
        for row, text in enumerate(batch):
            expected = code(text, "text")
            length = expected["attention_mask"].shape[1]
            for spec in TOKENS:
                np.testing.assert_array_equal(rows[spec.name][row, :length], expected[spec.name][0])
            assert not rows["attention_mask"][row, length:].any()


def test_the_one_exception() -> None:
    """A text ends at a NUL: so ONNX Runtime's strings of Python do."""
    path = package_file(PACKAGE, f"{FOLDER}/tokenizer.json")
    session = opened(text_graph(path))
    whole, cut = (
        session.run({"text": np.array([text], object)}, ["input_ids"])[0]
        for text in ("one\0two", "one")
    )
    np.testing.assert_array_equal(whole, cut)
