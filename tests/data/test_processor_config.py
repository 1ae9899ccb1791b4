"""A checkpoint's ``preprocessor_config.json`` against what transformers makes of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from onnxq.data import Reading, open_data
from onnxq.data.declared import declared
from onnxq.data.imaging import prepare_image
from onnxq.data.processor_config import NAME, read_processor_config
from onnxq.errors import DataError
from onnxq.graph.structure import InputSpec

if TYPE_CHECKING:
    from pathlib import Path

MEAN = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.25]}


def write(folder: Path, **content: Any) -> Path:
    (folder / NAME).write_text(json.dumps(content))
    return folder / NAME


@pytest.mark.parametrize(
    "content",
    [
        {"image_processor_type": "ViTImageProcessor", "size": {"height": 20, "width": 24}, **MEAN},
        {"feature_extractor_type": "ViTFeatureExtractor", "size": 20, "resample": 3, **MEAN},
        {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 24},
         "crop_size": {"height": 20, "width": 20}, **MEAN},
        {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 28},
         "crop_pct": 0.875, "resample": 3, **MEAN},
        {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 22},
         "crop_size": {"height": 18, "width": 18}, "do_normalize": False},
    ],
)  # fmt: skip
def test_the_steps_are_those_of_transformers(tmp_path: Path, content: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers")
    steps = read_processor_config(write(tmp_path, **content))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    name = content.get("image_processor_type", "ViTImageProcessor")
    kind = getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
    given = {key: value for key, value in content.items() if not key.endswith("_type")}
    expected = np.asarray(kind(**given)(image, return_tensors="np")["pixel_values"])
    found = prepare_image(image, steps, "image")
    assert found.shape == expected.shape
    # Newer processors resize by PyTorch, which rounds otherwise.
    scale = 1 / 255 / float(np.min(steps.std))
    np.testing.assert_allclose(found, expected, atol=2.5 * scale)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({}, "names no image processor"),
        ({"image_processor_type": "DonutImageProcessor"}, "DonutImageProcessor"),
        ({"image_processor_type": "ViTImageProcessor", "do_pad": True}, "do_pad"),
        ({"image_processor_type": "ViTImageProcessor"}, "no image_mean"),
        ({"image_processor_type": "ViTImageProcessor", "resample": 9, **MEAN}, "resampling 9"),
        (
            {"image_processor_type": "ViTImageProcessor", "size": {"w": 3}, **MEAN},
            "height and width",
        ),
        ({"image_processor_type": "ViTImageProcessor", "size": 0, **MEAN}, "exact"),
    ],
)
def test_what_is_not_known_is_refused_by_name(
    tmp_path: Path, content: dict[str, Any], says: str
) -> None:
    path = write(tmp_path, **content)
    with pytest.raises(DataError, match=says) as caught:
        read_processor_config(path)
    assert caught.value.where == str(path)
    assert caught.value.code == "preprocess.processor"


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(DataError, match="it is no JSON"):
        declared(tmp_path, None)


def test_data_is_read_by_it(tmp_path: Path) -> None:
    write(
        tmp_path, image_processor_type="ViTImageProcessor", size={"height": 8, "width": 8}, **MEAN
    )
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (20, 10), (255, 0, 0)).save(tmp_path / "photos/a.png")
    shape = ("n", 3, 8, 8)
    signature = (InputSpec("pixel_values", np.dtype(np.float32), shape, required=True),)
    for named in (tmp_path, tmp_path / NAME):
        (sample,) = open_data(Reading(tmp_path / "photos", preprocess=named), signature)
        np.testing.assert_allclose(sample.feeds["pixel_values"][0, 0], (1 - 0.5) / 0.2, rtol=1e-5)


def test_a_sentence_encoders_length(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    assert declared(tmp_path, None).steps.text.max_length is None
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 256}')
    found = declared(tmp_path, None)
    assert found.steps.text.max_length == 256
    assert found.tokenizer == tmp_path
    assert declared(tmp_path / "tokenizer.json", None).tokenizer == tmp_path / "tokenizer.json"


def test_bytes_are_fed_to_a_model_that_takes_them(tmp_path: Path) -> None:
    """PNG, whatever the file is."""
    Image.new("L", (4, 3), 7).save(tmp_path / "a.jpg")
    signature = (InputSpec("data", np.dtype(np.uint8), (None,), required=True),)
    (sample,) = open_data(tmp_path, signature)
    assert sample.feeds["data"].tobytes().startswith(b"\x89PNG")
