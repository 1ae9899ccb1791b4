"""Encoders with a decoder: a folder of two files that work together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import onnxq
from onnxq.errors import UsageError
from onnxq.export import ExportOptions, export
from onnxq.runtime.session import open_session
from tests.export import checkpoints

if TYPE_CHECKING:
    from pathlib import Path

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.slow


def test_speech_to_the_tokens_of_transformers(tmp_path: Path) -> None:
    import transformers

    folder = checkpoints.write(tmp_path / "checkpoint", "WhisperForConditionalGeneration")
    result = export(folder, tmp_path / "out")
    assert result.task == "automatic-speech-recognition"
    assert sorted(path.name for path in result.path.iterdir()) == ["decoder.onnx", "encoder.onnx"]
    encoder, decoder = result.models
    assert [(item.name, item.shape) for item in encoder.inputs] == [
        ("input_features", ("batch_size", 16, 60))
    ]
    assert encoder.outputs[:2] == ("last_hidden_state", "present.0.encoder.key")
    shapes = {item.name: item.shape for item in decoder.inputs}
    past = ("batch_size", 4, "past_sequence_length", 8)
    assert shapes["past_key_values.1.decoder.value"] == past
    assert shapes["past_key_values.0.encoder.key"] == ("batch_size", 4, 30, 8)

    model = transformers.WhisperForConditionalGeneration.from_pretrained(folder).eval()
    sound = torch.randn(1, 16, 60)
    ids = [1]
    with torch.inference_mode():
        for _ in range(6):
            given = torch.tensor([ids])
            logits = model(input_features=sound, decoder_input_ids=given, use_cache=False).logits
            ids.append(int(logits[0, -1].argmax()))
    assert tokens(result.path, sound.numpy(), 6) == ids


def tokens(folder: Path, sound: np.ndarray, count: int) -> list[int]:
    encoder, decoder = (open_session(folder / f"{name}.onnx") for name in ("encoder", "decoder"))
    encoded = encoder.run({"input_features": sound})
    cross = dict(zip([value.name for value in encoder.outputs], encoded, strict=True))
    del cross["last_hidden_state"]
    feeds = {name.replace("present", "past_key_values"): value for name, value in cross.items()}
    for value in decoder.inputs:
        if ".decoder." in value.name:
            feeds[value.name] = np.zeros((1, 4, 0, 8), np.float32)
    ids = [1]
    for _ in range(count):
        feeds["input_ids"] = np.array([ids[-1:]])
        values = decoder.run(feeds)
        found = dict(zip([value.name for value in decoder.outputs], values, strict=True))
        ids.append(int(found.pop("logits")[0, -1].argmax()))
        feeds |= {name.replace("present", "past_key_values"): v for name, v in found.items()}
    return ids


def test_text_to_text(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path / "checkpoint", "T5ForConditionalGeneration")
    encoder, decoder = export(folder, tmp_path / "out").models
    assert [item.name for item in encoder.inputs] == ["input_ids", "attention_mask"]
    shapes = {item.name: item.shape for item in decoder.inputs}
    assert shapes["encoder_attention_mask"] == ("batch_size", "encoder_sequence_length")
    lengths = {shapes["past_key_values.0.decoder.key"][2] for shapes in decoder.verified_shapes}
    assert lengths >= {0, 5, 9}
    made = onnxq.quantize(
        encoder.path, None, tmp_path / "encoder.onnx", recipe=onnxq.Recipe(scheme="int8-dynamic")
    )
    assert any(site.decision != "float" for site in made.plan.sites)


def test_without_a_cache(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path / "checkpoint", "T5ForConditionalGeneration")
    options = ExportOptions(cache="without-past")
    encoder, decoder = export(folder, tmp_path / "out", options=options).models
    assert encoder.outputs == ("last_hidden_state",)
    names = ["input_ids", "encoder_hidden_states", "encoder_attention_mask"]
    assert [item.name for item in decoder.inputs] == names
    assert decoder.outputs == ("logits",)


def test_a_file_is_not_replaced_by_a_folder(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path / "checkpoint", "T5ForConditionalGeneration")
    path = tmp_path / "out"
    path.write_bytes(b"kept")
    with pytest.raises(UsageError, match="a folder is written"):
        export(folder, path)
    assert path.read_bytes() == b"kept"
