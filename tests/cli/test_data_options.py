"""Every form of DATA on the command line: folders, files, ``--preprocess`` and ``--tokenizer``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from onnxq.calibration.stats import load_stats
from tests.cli.conftest import IMAGES, MODEL, onnxq
from tests.small_models import normal, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STEPS = """version = 1
[image]
color = "L"
resize = { shortest = 32 }
crop = [28, 28]
scale = "1/255"
mean = 0.5
std = 0.25
"""
TEXT = """g (int64[B, T] input_ids, int64[B, T] attention_mask) => (float[B, T, 4] y) {
    e = Gather(t, input_ids) m = Cast<to = 1>(attention_mask) u = Unsqueeze(m, last)
    k = Mul(e, u) h = MatMul(k, w) n = Tanh(h) y = MatMul(n, v)
}"""
TEXTS = ("a small text", "text", "small small")


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return write(
        tmp_path / "encoder.onnx",
        TEXT,
        t=normal(0, 4, 8),
        w=normal(1, 8, 8),
        v=normal(2, 8, 4),
        last=np.asarray([2]),
    )


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    made = Tokenizer(WordLevel({"[UNK]": 0, "a": 1, "small": 2, "text": 3}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def calibrated(*arguments: str | Path, stats: Path) -> int:
    """How many samples ``calibrate`` saw."""
    run = onnxq("calibrate", *arguments, "--calibration", "minmax", "-o", stats, "--json")
    assert run.status == 0, run.err
    return load_stats(stats).samples


def _npz_folder(path: Path) -> None:
    path.mkdir()
    for index, image in enumerate(np.load(IMAGES)[:3]):
        np.savez(path / f"{index}.npz", image=image[np.newaxis])


def _npz(path: Path) -> None:
    np.savez(path, image=np.load(IMAGES)[:3])


def _npy(path: Path) -> None:
    np.save(path, np.load(IMAGES)[:3])


@pytest.mark.parametrize(
    ("name", "make", "samples"), [("d", _npz_folder, 3), ("d.npz", _npz, 1), ("d.npy", _npy, 3)]
)
def test_arrays(tmp_path: Path, name: str, make: Callable[[Path], None], samples: int) -> None:
    make(tmp_path / name)
    assert calibrated(MODEL, "--data", tmp_path / name, stats=tmp_path / "s") == samples


def test_images_and_their_steps(tmp_path: Path) -> None:
    folder, steps, stats = tmp_path / "photos", tmp_path / "steps.toml", tmp_path / "s"
    folder.mkdir()
    steps.write_text(STEPS, encoding="utf-8")
    for value in (0, 255):
        Image.new("RGB", (40, 50), (value,) * 3).save(folder / f"{value}.png")
    assert calibrated(MODEL, "--data", folder, "--preprocess", steps, stats=stats) == 2
    seen = load_stats(stats).tensors["image"]
    assert (seen.low, seen.high) == (-2.0, 2.0)


def _lines(path: Path) -> None:
    path.write_text("\n".join(TEXTS), encoding="utf-8")


def _objects(path: Path) -> None:
    path.write_text("\n".join(f'{{"text": "{text}"}}' for text in TEXTS), encoding="utf-8")


def _records(path: Path) -> None:
    path.write_text("\n".join(("text", *TEXTS)), encoding="utf-8")


def _table(path: Path) -> None:
    pq.write_table(pa.table({"text": list(TEXTS)}), path)


@pytest.mark.parametrize(
    ("name", "make"),
    [("t.txt", _lines), ("t.jsonl", _objects), ("t.csv", _records), ("t.parquet", _table)],
)
def test_texts_and_their_tokenizer(
    tmp_path: Path, encoder: Path, tokenizer: Path, name: str, make: Callable[[Path], None]
) -> None:
    make(tmp_path / name)
    arguments = (encoder, "--data", tmp_path / name, "--tokenizer", tokenizer)
    assert calibrated(*arguments, stats=tmp_path / "s") == 3
