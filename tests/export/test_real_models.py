"""The models of packages: from their checkpoints and factories to ONNX, and on to small weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import onnxq
from onnxq.export import export
from onnxq.runtime.session import open_session

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.slow


def test_minilm_from_its_checkpoint(tmp_path: Path) -> None:
    minilm = pytest.importorskip("models.minilm.model")
    path = tmp_path / "minilm.onnx"
    (model,) = export(minilm.weights().parent, path).models
    assert model.outputs == ("last_hidden_state",)
    inputs = {name: tensor.numpy() for name, tensor in minilm.example(2, 24).items()}
    module = minilm.SentenceEncoder().eval()
    right = module(**minilm.example(2, 24)).detach().numpy()
    np.testing.assert_allclose(open_session(path).run(inputs)[0], right, atol=1e-4)
    recipe = onnxq.Recipe(scheme="int8-dynamic")
    made = onnxq.quantize(path, None, tmp_path / "int8.onnx", recipe=recipe)
    assert sum(site.decision != "float" for site in made.plan.sites) >= 36


def test_efficientnet_by_its_factory(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    result = export("models.efficientnet_lite0.model:factory", tmp_path / "model.onnx")
    assert result.models[0].worst.value <= result.models[0].worst.allowed


def test_smollm2_with_its_cache(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    smollm2 = pytest.importorskip("models.smollm2.model")
    model = smollm2.LanguageModel().llama.eval()
    model.save_pretrained(tmp_path / "checkpoint")
    path = tmp_path / "smollm2.onnx"
    (exported,) = export(tmp_path / "checkpoint", path).models
    assert len(exported.outputs) == 61

    prompt = smollm2.tokenizer()("The capital of France is", return_tensors="pt")["input_ids"]
    named = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    with torch.inference_mode():
        right = model.generate(prompt, attention_mask=torch.ones_like(prompt), **named).numpy()
    session = open_session(path)
    names = [value.name for value in session.outputs]
    tokens = new = prompt.numpy()
    feeds = {
        value.name: np.zeros((1, 3, 0, 64), np.float32)
        for value in session.inputs
        if value.name.startswith("past_key_values")
    }
    for _ in range(8):
        length = tokens.shape[1]
        feeds |= {"input_ids": new, "attention_mask": np.ones((1, length), np.int64)}
        feeds["position_ids"] = np.arange(length - new.shape[1], length)[None]
        found = dict(zip(names, session.run(feeds), strict=True))
        new = found.pop("logits")[:, -1:].argmax(-1)
        tokens = np.concatenate((tokens, new), 1)
        feeds = {name.replace("present", "past_key_values"): v for name, v in found.items()}
    np.testing.assert_array_equal(tokens, right)
