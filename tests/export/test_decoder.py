"""Language models with a cache and without, against transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import onnxq
from onnxq.export import ExportOptions, export
from onnxq.graph import io
from onnxq.runtime.session import open_session
from tests.export import checkpoints

if TYPE_CHECKING:
    from pathlib import Path

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.mark.parametrize(
    "kind",
    [
        "LlamaForCausalLM",
        pytest.param("MistralForCausalLM", marks=pytest.mark.slow),
        pytest.param("GPT2LMHeadModel", marks=pytest.mark.slow),
    ],
)
def test_with_a_cache(tmp_path: Path, kind: str) -> None:
    folder = checkpoints.write(tmp_path / "checkpoint", kind)
    result = export(folder, tmp_path / "model.onnx")
    (model,) = result.models
    assert result.task == "text-generation"
    assert result.checkpoint == folder
    batch, past = "batch_size", "past_sequence_length"
    heads = 4 if kind == "GPT2LMHeadModel" else 2
    shapes = {item.name: item.shape for item in model.inputs}
    assert shapes == {
        "input_ids": (batch, "sequence_length"),
        "attention_mask": (batch, "total_sequence_length"),
        "position_ids": (batch, "sequence_length"),
        **{
            f"past_key_values.{layer}.{part}": (batch, heads, past, 8)
            for layer in range(2)
            for part in ("key", "value")
        },
    }
    present = tuple(f"present.{layer}.{part}" for layer in range(2) for part in ("key", "value"))
    assert model.outputs == ("logits", *present)
    assert {len(s["input_ids"]) for s in model.verified_shapes} == {2}
    assert {s["past_key_values.0.key"][2] for s in model.verified_shapes} >= {0, 5, 9}
    outputs = {value.name: value for value in io.load(model.path).graph.outputs}
    shape = outputs["present.1.key"].shape
    assert shape is not None
    assert str(shape[2]) == "total_sequence_length"


@pytest.mark.slow
def test_greedy_text_is_that_of_transformers(tmp_path: Path) -> None:
    import transformers

    folder = checkpoints.write(tmp_path / "checkpoint", "LlamaForCausalLM")
    path = tmp_path / "model.onnx"
    export(folder, path)
    model = transformers.LlamaForCausalLM.from_pretrained(folder).eval()
    prompt = torch.tensor([[5, 9, 33]])
    right = model.generate(prompt, max_new_tokens=8, do_sample=False, eos_token_id=None)

    session = open_session(path)
    names = [value.name for value in session.outputs]
    tokens = prompt.numpy()
    cache = {
        value.name: np.zeros((1, 2, 0, 8), np.float32)
        for value in session.inputs
        if value.name.startswith("past")
    }
    new = tokens
    for _ in range(8):
        length = tokens.shape[1]
        feeds = {"input_ids": new, "attention_mask": np.ones((1, length), np.int64), **cache}
        feeds["position_ids"] = np.arange(length - new.shape[1], length)[None]
        found = dict(zip(names, session.run(feeds), strict=True))
        cache = {n.replace("present", "past_key_values"): v for n, v in found.items() if "." in n}
        new = found["logits"][:, -1:].argmax(-1)
        tokens = np.concatenate((tokens, new), 1)
    np.testing.assert_array_equal(tokens, right.numpy())


@pytest.mark.slow
def test_without_a_cache(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path / "checkpoint", "LlamaForCausalLM")
    result = export(folder, tmp_path / "m.onnx", options=ExportOptions(cache="without-past"))
    (model,) = result.models
    assert [item.name for item in model.inputs] == ["input_ids", "attention_mask"]
    assert model.outputs == ("logits",)


@pytest.mark.slow
def test_weights_of_four_bits(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path / "checkpoint", "LlamaForCausalLM")
    path = tmp_path / "model.onnx"
    export(folder, path)
    made = onnxq.quantize(path, None, tmp_path / "int4.onnx", recipe=onnxq.Recipe(scheme="int4"))
    assert any(site.decision != "float" for site in made.plan.sites)
    # The mask that is made up is as long as past and sequence together.
    assert not [text for text in made.warnings if "does not run" in text]
