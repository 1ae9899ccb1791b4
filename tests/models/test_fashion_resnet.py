"""The committed model reaches its README's accuracy on the committed samples."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from onnxq.graph import io
from onnxq.runtime.session import open_session

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "fashion_resnet" / "fashion_resnet.onnx"
DATA = ROOT / "calibration_data" / "fashion_mnist"


def test_samples_have_the_form_that_the_readme_says() -> None:
    calibration, test = np.load(DATA / "calibration.npy"), np.load(DATA / "test.npy")
    labels = np.load(DATA / "test_labels.npy")
    assert calibration.shape == (256, 1, 28, 28)
    assert test.shape == (1000, 1, 28, 28)
    assert labels.shape == (1000,)
    assert calibration.dtype == test.dtype == np.float32
    assert labels.dtype == np.int64
    assert set(labels) == set(range(10))
    for images in (calibration, test):
        assert images.min() == 0
        assert images.max() == 1
    both = {hashlib.sha256(i.tobytes()).digest() for i in calibration}
    assert not both & {hashlib.sha256(i.tobytes()).digest() for i in test}


def test_licence_notice() -> None:
    notice = (DATA / "LICENSE").read_text("utf-8")
    assert "MIT License" in notice
    assert "2017 Zalando SE" in notice


def test_accuracy_of_the_readme() -> None:
    said = re.search(r"([0-9.]+) on the 1,000", (MODEL.parent / "README.md").read_text("utf-8"))
    assert said
    session = open_session(MODEL)
    found = session.run({"image": np.load(DATA / "test.npy")})[0].argmax(axis=1)
    accuracy = float(np.mean(found == np.load(DATA / "test_labels.npy")))
    assert accuracy == pytest.approx(float(said[1]), abs=0.0011)


def test_model_is_small_dynamic_and_self_contained() -> None:
    assert MODEL.stat().st_size < 400_000
    assert b"site-packages" not in MODEL.read_bytes()
    session = open_session(MODEL)
    assert session.inputs[0].name == "image"
    assert tuple(session.inputs[0].shape) == ("batch", 1, 28, 28)
    for batch in (1, 3):
        image = np.zeros((batch, 1, 28, 28), np.float32)
        assert session.run({"image": image})[0].shape == (batch, 10)
    operators = [node.op_type for node in io.load(MODEL).graph]
    assert operators.count("Conv") == 9
    assert "BatchNormalization" not in operators


def test_files_of_the_data_set_say_when_they_are_missing(tmp_path: Path) -> None:
    from models.fashion_mnist_files import load
    from models.packages import MissingPackageError

    with pytest.raises(MissingPackageError, match="dataset-fashion-mnist"):
        load("test", tmp_path)


def test_weights_export_to_the_committed_model(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from models.fashion_resnet.model import factory
    from onnxq.export import export

    result = export(factory, tmp_path / "again.onnx")
    assert result.models[0].inputs[0].shape == ("batch", 1, 28, 28)
    image = np.load(DATA / "test.npy")[:64]
    again = open_session(result.path).run({"image": image})[0]
    np.testing.assert_allclose(again, open_session(MODEL).run({"image": image})[0], atol=1e-4)
