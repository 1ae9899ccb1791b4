"""What a checkpoint folder may not be: incomplete, damaged, outside itself, code."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from onnxq.errors import UsageError
from onnxq.export.checkpoint import open_checkpoint
from onnxq.export.image_size import image_size
from onnxq.export.tasks import task_of

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.export.options import Weights

CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "checkpoint"
    made.mkdir()
    write_config(made)
    save_file({"a": np.ones((2, 3), np.float16), "b": np.ones(1, np.float32)}, weights(made))
    return made


def weights(folder: Path) -> Path:
    return folder / "model.safetensors"


def write_config(folder: Path, **more: Any) -> None:
    (folder / "config.json").write_text(json.dumps({**CONFIG, **more}))


def refused(
    folder: Path,
    code: str,
    *words: str,
    weights: Weights = "safetensors",
) -> None:
    with pytest.raises(UsageError) as caught:
        open_checkpoint(folder, weights=weights, code="installed")
    assert caught.value.code == code
    text = str(caught.value)
    assert len(text.splitlines()) <= 2
    for word in words:
        assert word in text


def index(folder: Path, *names: str) -> None:
    weights(folder).unlink()
    found = {"weight_map": {str(number): name for number, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(found))


def test_a_sound_one(folder: Path) -> None:
    found = open_checkpoint(folder, weights="safetensors", code="installed")
    assert found.architecture == "LlamaForCausalLM"
    assert found.dtype == "float16"


def test_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    refused(folder, "export.no_config", "config.json", "missing")


@pytest.mark.parametrize("content", ["{", "[1]", "\xff", "[" * 100_000])
def test_a_config_that_is_none(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content, encoding="latin-1")
    refused(folder, "export.no_config", "config.json")


def test_no_weights(folder: Path) -> None:
    weights(folder).unlink()
    refused(folder, "export.no_weights", "model.safetensors")


def test_damaged_weights(folder: Path) -> None:
    content = weights(folder).read_bytes()
    weights(folder).write_bytes(content[:-4])
    refused(folder, "export.damaged", "model.safetensors")
    weights(folder).write_bytes(b"\xff" * 64)
    refused(folder, "export.damaged", "model.safetensors")


def test_a_missing_shard(folder: Path) -> None:
    index(folder, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    save_file({"a": np.ones(1, np.float32)}, folder / "model-00001-of-00002.safetensors")
    refused(folder, "export.no_weights", "1 of 2", "model-00002-of-00002.safetensors")


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "..", "a\\b"])
def test_a_shard_outside(folder: Path, name: str) -> None:
    index(folder, name)
    refused(folder, "export.outside", "index.json")


@pytest.mark.parametrize("name", ["more/model.safetensors", "adapter_model.bin"])
def test_weights_under_another_name(folder: Path, name: str) -> None:
    write_config(folder, transformers_weights=name)
    refused(folder, "export.other_weights", "transformers_weights", "config.json")


def test_links(folder: Path, tmp_path: Path) -> None:
    inside = folder / "stored"
    weights(folder).rename(inside)
    weights(folder).symlink_to(inside)
    open_checkpoint(folder, weights="safetensors", code="installed")
    inside.rename(tmp_path / "elsewhere")
    weights(folder).unlink()
    weights(folder).symlink_to(tmp_path / "elsewhere")
    refused(folder, "export.outside", "model.safetensors")


def test_the_cache_of_the_hub(folder: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b/snapshots/1"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (folder / name).rename(blobs / name)
        (snapshot / name).symlink_to(blobs / name)
    open_checkpoint(snapshot, weights="safetensors", code="installed")


def test_code(folder: Path) -> None:
    write_config(folder, auto_map={"AutoModel": "modeling_evil.Evil"})
    refused(folder, "export.remote_code", "modeling_evil.Evil", "--trust-remote-code")
    open_checkpoint(folder, weights="safetensors", code="checkpoint")


def test_a_pickle(folder: Path) -> None:
    weights(folder).rename(folder / "pytorch_model.bin")
    refused(folder, "export.pickle", "pytorch_model.bin", "--allow-pickle")
    assert open_checkpoint(folder, weights="pickle", code="installed").dtype == ""


def test_quantized_weights(folder: Path) -> None:
    write_config(folder, quantization_config={"quant_method": "gptq"})
    refused(folder, "export.quantized", "gptq")


def test_an_adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    refused(folder, "export.adapter", "merge")


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("LlamaForCausalLM", "text-generation"),
        ("BertModel", "feature-extraction"),
        ("BertForSequenceClassification", "text-classification"),
        ("ViTForImageClassification", "image-classification"),
        ("WhisperForConditionalGeneration", "automatic-speech-recognition"),
        ("T5ForConditionalGeneration", "text2text-generation"),
    ],
)
def test_tasks(folder: Path, architecture: str, task: str) -> None:
    pytest.importorskip("transformers")
    write_config(folder, architectures=[architecture])
    checkpoint = open_checkpoint(folder, weights="safetensors", code="installed")
    assert task_of(checkpoint, "").name == task
    assert task_of(checkpoint, "fill-mask").name == "fill-mask"


@pytest.mark.parametrize("architectures", [["NothingForEver"], [], None])
def test_an_unknown_architecture(folder: Path, architectures: Any) -> None:
    pytest.importorskip("transformers")
    write_config(folder, architectures=architectures)
    checkpoint = open_checkpoint(folder, weights="safetensors", code="installed")
    with pytest.raises(UsageError) as caught:
        task_of(checkpoint, "")
    assert caught.value.code == "export.unknown_architecture"
    assert "--task" in caught.value.remedy
    with pytest.raises(UsageError, match="no task called 'sing'"):
        task_of(checkpoint, "sing")


class Config:
    image_size: Any = None


@pytest.mark.parametrize(
    ("own", "steps", "size"),
    [
        (32, None, (32, 32)),
        ([32, 48], None, (32, 48)),
        (None, {"size": {"height": 8, "width": 9}}, (8, 9)),
        (None, {"size": {"shortest_edge": 256}, "crop_size": {"height": 7, "width": 7}}, (7, 7)),
        (
            None,
            {"size": 64, "crop_size": 32, "do_center_crop": False},
            (64, 64),
        ),
    ],
)
def test_image_sizes(folder: Path, own: Any, steps: Any, size: tuple[int, int]) -> None:
    config = Config()
    config.image_size = own
    if steps is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(steps))
    assert image_size(config, folder) == size


def test_no_image_size(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"preprocessor_config\.json"):
        image_size(Config(), folder)
