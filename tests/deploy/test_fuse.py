"""Attention that is fused computes the same; attention that only looks alike is left alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from onnxq.deploy import deploy
from onnxq.deploy.attention import UnknownAttentionError
from onnxq.deploy.cache import cache_of
from onnxq.deploy.checkpoint import read_decoder
from onnxq.deploy.fuse import fused
from onnxq.deploy.rehearsal import rehearse
from onnxq.export import export
from onnxq.graph.edit import initializer
from onnxq.graph.io import load, save
from tests.export import checkpoints
from tests.word_tokenizer import save_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("llama")
    settings: dict[str, Any] = {"head_dim": 16, "rope_theta": 100.0}
    checkpoints.write(made / "checkpoint", "LlamaForCausalLM", **settings)
    save_tokenizer(made / "checkpoint")
    (made / "checkpoint" / "tokenizer_config.json").write_text("{}", encoding="utf-8")
    export(str(made / "checkpoint"), made / "model.onnx")
    return made


def test_it_computes_the_same_with_fewer_operators(folder: Path, tmp_path: Path) -> None:
    model = folder / "model.onnx"
    made = deploy(model, tmp_path / "out", "genai", checkpoint=folder / "checkpoint")
    assert made.notes == ("attention is fused to GroupQueryAttention, with a shared cache",)
    before, after = onnx.load(model), onnx.load(tmp_path / "out" / "model.onnx")
    ops = [node.op_type for node in after.graph.node]
    assert ops.count("GroupQueryAttention") == 2
    assert "Softmax" not in ops
    assert len(ops) < len(before.graph.node) / 2
    assert "position_ids" not in [value.name for value in after.graph.input]
    assert [v.name for v in after.graph.output] == [v.name for v in before.graph.output]
    said = json.loads((tmp_path / "out" / "genai_config.json").read_text(encoding="utf-8"))
    assert "position_ids" not in said["model"]["decoder"]["inputs"]
    assert said["search"]["past_present_share_buffer"]
    logits = [rehearse(p, cache_of(load(p), "")) for p in (model, tmp_path / "out" / "model.onnx")]
    assert np.abs(logits[0] - logits[1]).max() < 1e-4 * np.abs(logits[0]).max()


def test_a_window_of_tokens_is_left_alone(folder: Path, tmp_path: Path) -> None:
    config = folder / "checkpoint" / "config.json"
    said = json.loads(config.read_text(encoding="utf-8")) | {"sliding_window": 4}
    (tmp_path / "config.json").write_text(json.dumps(said), encoding="utf-8")
    model = load(folder / "model.onnx")
    with pytest.raises(UnknownAttentionError, match="window"):
        fused(model, read_decoder(tmp_path), cache_of(model, ""))


def test_what_only_looks_alike_is_told_apart_by_its_numbers(folder: Path, tmp_path: Path) -> None:
    """Without the mask the operators are those of attention, and the logits are not."""
    model = load(folder / "model.onnx")
    softmax = next(node for node in model.graph if node.op_type == "Softmax")
    add = softmax.inputs[0].producer() if softmax.inputs[0] else None
    assert add is not None
    assert add.op_type == "Add"
    nothing = initializer(model, "nothing", np.zeros(1, np.float32))
    # Scores are products of a MatMul and a factor; the other side is the mask.
    masks = [not _multiplied(value) for value in add.inputs]
    add.replace_input_with(masks.index(True), nothing)
    save(model, tmp_path / "unmasked.onnx")
    made = deploy(
        tmp_path / "unmasked.onnx", tmp_path / "out", "genai", checkpoint=folder / "checkpoint"
    )
    assert made.notes[0].startswith("attention is not fused: fused, it differs by")


def _multiplied(value: ir.Value | None) -> bool:
    """Whether a value is a MatMul's, times something."""
    node = value.producer() if value else None
    sources = [] if node is None else [v.producer() for v in node.inputs if v is not None]
    return any(source is not None and source.op_type == "MatMul" for source in sources)
