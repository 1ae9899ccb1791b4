"""Encoders of texts and images, in each type, and on to INT8."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import onnxq
from onnxq.errors import UsageError
from onnxq.export import ExportOptions, export
from onnxq.graph import io
from tests.export import checkpoints

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.export.options import Dtype

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

TEXT = ("batch_size", "sequence_length")


def test_a_text_encoder(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path / "checkpoint", "BertModel")
    result = export(folder, tmp_path / "model.onnx")
    (model,) = result.models
    assert result.task == "feature-extraction"
    names = ("input_ids", "attention_mask", "token_type_ids")
    assert {item.name: item.shape for item in model.inputs} == dict.fromkeys(names, TEXT)
    assert model.outputs == ("last_hidden_state",)
    batches = {shapes["input_ids"] for shapes in model.verified_shapes}
    assert {shape[0] for shape in batches} >= {1, 2, 3}
    loaded = io.load(model.path)
    # The library's own mask makes about 30 nodes more.
    assert len(loaded.graph) < 95
    assert not [name for name in loaded.graph.initializers if "pooler" in name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "outputs", "settings"),
    [
        ("BertForSequenceClassification", ("logits",), {}),
        ("BertForQuestionAnswering", ("start_logits", "end_logits"), {}),
        ("RobertaForMaskedLM", ("logits",), {}),
        ("MistralForCausalLM", ("last_hidden_state",), {}),
    ],
)
def test_other_heads(
    tmp_path: Path, kind: str, outputs: tuple[str, ...], settings: dict[str, Any]
) -> None:
    folder = checkpoints.write(tmp_path / "checkpoint", kind, **settings)
    task = "feature-extraction" if outputs == ("last_hidden_state",) else ""
    options = ExportOptions(task=task)
    (model,) = export(folder, tmp_path / "model.onnx", options=options).models
    assert model.outputs == outputs


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ViTForImageClassification", "ResNetForImageClassification"])
def test_image_classifiers_and_int8(tmp_path: Path, kind: str) -> None:
    folder = checkpoints.write(tmp_path / "checkpoint", kind)
    steps = {"size": {"shortest_edge": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(steps))
    path = tmp_path / "model.onnx"
    (model,) = export(folder, path).models
    assert [(item.name, item.shape) for item in model.inputs] == [
        ("pixel_values", ("batch_size", 3, 32, 32))
    ]
    samples = [{"pixel_values": torch.randn(1, 3, 32, 32).numpy()} for _ in range(8)]
    recipe = onnxq.Recipe(scheme="int8")
    made = onnxq.quantize(path, samples, tmp_path / "model.int8.onnx", recipe=recipe)
    assert any(site.decision != "float" for site in made.plan.sites)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_types_are_kept(tmp_path: Path, dtype: Dtype) -> None:
    folder = checkpoints.write(
        tmp_path / "checkpoint", "ViTForImageClassification", dtype=dtype, num_hidden_layers=1
    )
    (model,) = export(folder, tmp_path / "model.onnx").models
    assert [item.dtype for item in model.inputs] == [dtype]
    weights = io.load(model.path).graph.initializers.values()
    kinds = {str(value.dtype) for value in weights if value.shape and value.shape.rank() == 2}
    assert kinds == {dtype.upper()}
    assert model.tolerance.relative == {"float16": 1e-2, "bfloat16": 2e-2}[dtype]
    assert bool(model.notes) == (dtype == "bfloat16")


@pytest.mark.slow
def test_another_type_is_made(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path / "c", "ViTForImageClassification", dtype="bfloat16")
    options = ExportOptions(dtype="float32")
    (model,) = export(folder, tmp_path / "model.onnx", options=options).models
    assert [item.dtype for item in model.inputs] == ["float32"]


def refused(folder: Path, code: str, *words: str, task: str = "") -> None:
    output = folder.parent / "out" / "model.onnx"
    output.parent.mkdir()
    with pytest.raises(UsageError) as caught:
        export(folder, output, options=ExportOptions(task=task))
    assert caught.value.code == code
    text = str(caught.value)
    assert len(text.splitlines()) <= 2
    for word in words:
        assert word in text
    assert not list(output.parent.iterdir())


def test_missing_weights_are_not_made_up(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path / "checkpoint", "BertModel")
    refused(folder, "export.missing_weights", "classifier", task="text-classification")


def test_weights_of_another_shape(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path / "checkpoint", "BertModel")
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "intermediate_size": 40}))
    with pytest.raises(UsageError) as caught:
        export(folder, tmp_path / "model.onnx")
    assert caught.value.code in {"export.mismatched_weights", "export.cannot_load"}


def test_a_model_type_that_nobody_knows(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path / "checkpoint", "BertModel")
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "unheard"}))
    refused(folder, "export.cannot_load", "unheard")


def test_a_task_that_the_family_does_not_do(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path / "checkpoint", "T5ForConditionalGeneration")
    refused(folder, "export.unknown_family", "T5", task="feature-extraction")


def test_pickles_on_request(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = checkpoints.write(tmp_path / "checkpoint", "ViTForImageClassification")
    stored = folder / "model.safetensors"
    torch.save(load_file(stored), folder / "pytorch_model.bin")
    stored.unlink()
    refused(folder, "export.pickle", "--allow-pickle")
    options = ExportOptions(weights="pickle")
    (model,) = export(folder, tmp_path / "model.onnx", options=options).models
    assert model.outputs == ("logits",)


def test_a_pickle_that_executes_is_not(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path / "checkpoint", "ViTForImageClassification")
    (folder / "model.safetensors").unlink()
    seen = tmp_path / "executed"
    torch.save({"weight": Executes(seen)}, folder / "pytorch_model.bin")
    with pytest.raises(UsageError) as caught:
        export(folder, tmp_path / "model.onnx", options=ExportOptions(weights="pickle"))
    assert caught.value.code == "export.cannot_load"
    assert not seen.exists()


def test_code_of_a_checkpoint_is_not_executed(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path / "checkpoint", "BertModel")
    seen = tmp_path / "executed"
    (folder / "modeling_own.py").write_text(f"open({str(seen)!r}, 'w')\n")
    path = folder / "config.json"
    named = {"auto_map": {"AutoModel": "modeling_own.Own"}, "model_type": "own"}
    path.write_text(json.dumps({**json.loads(path.read_text()), **named}))
    refused(folder, "export.remote_code", "modeling_own.Own")
    assert not seen.exists()


class Executes:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self.path).touch, (self.path,))
