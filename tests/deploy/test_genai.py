"""A folder for onnxruntime-genai: what it says is the model's, and what does not fit is named."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import onnx
import pytest

from onnxq.deploy import check_folder, deploy
from onnxq.errors import InputError
from tests.deploy.folders import both, save_checkpoint
from tests.small_decoder import GROUPS, HEAD, VOCABULARY, save_decoder

if TYPE_CHECKING:
    from pathlib import Path


def deployed(folder: Path) -> Path:
    model, checkpoint = both(folder)
    deploy(model, folder / "out", "genai", checkpoint=checkpoint)
    return folder / "out"


def change(folder: Path, **decoder: Any) -> None:
    path = folder / "genai_config.json"
    said = json.loads(path.read_text(encoding="utf-8"))
    for key, value in decoder.items():
        said["model"]["decoder"][key] = value
    path.write_text(json.dumps(said), encoding="utf-8")


def refused(folder: Path, model: Path, checkpoint: Path | None) -> InputError:
    """The refusal; nothing is left where the folder would be, or beside it."""
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(InputError) as caught:
        deploy(model, folder / "out", "genai", checkpoint=checkpoint)
    assert sorted(path.name for path in folder.iterdir()) == before
    assert caught.value.remedy
    assert "\n" not in caught.value.message
    return caught.value


def test_the_folder_is_whole_and_says_what_model_and_checkpoint_say(tmp_path: Path) -> None:
    out = deployed(tmp_path)
    wanted = {
        "genai_config.json",
        "model.onnx",
        "run.py",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert {path.name for path in out.iterdir()} == wanted
    said = json.loads((out / "genai_config.json").read_text(encoding="utf-8"))["model"]
    assert said["decoder"]["inputs"] == {
        "input_ids": "input_ids",
        "attention_mask": "attention_mask",
        "position_ids": "position_ids",
        "past_key_names": "past_key_values.%d.key",
        "past_value_names": "past_key_values.%d.value",
    }
    assert said["decoder"]["outputs"]["present_key_names"] == "present.%d.key"
    assert (said["vocab_size"], said["eos_token_id"], said["pad_token_id"]) == (VOCABULARY, 2, 2)
    cache = check_folder(out)
    assert (cache.layers, cache.heads, cache.head_size) == (1, GROUPS, HEAD)
    compile((out / "run.py").read_text(encoding="utf-8"), "run.py", "exec")


def test_attention_of_another_spelling_stays_and_the_reason_is_told(tmp_path: Path) -> None:
    model, checkpoint = both(tmp_path)
    made = deploy(model, tmp_path / "out", "genai", checkpoint=checkpoint)
    assert made.notes == (
        "attention is not fused: keys or queries are not turned by cosines and sines",
    )


@pytest.mark.parametrize("name", ["genai_config.json", "model.onnx", "tokenizer.json"])
def test_a_folder_that_lacks_a_file_is_refused(tmp_path: Path, name: str) -> None:
    out = deployed(tmp_path)
    (out / name).unlink()
    with pytest.raises(InputError, match="missing") as caught:
        check_folder(out)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"filename": "../model.onnx"}, "no name of a file"),
        ({"num_hidden_layers": 2}, "num_hidden_layers is 2, model.onnx has 1"),
        ({"head_size": 64}, "head_size is 64"),
        ({"inputs": {"input_ids": "ids"}}, "inputs.input_ids is 'ids': the model calls it"),
        ({"outputs": {"logits": "scores"}}, "outputs.logits is 'scores'"),
    ],
)
def test_a_configuration_that_is_not_the_models_is_refused(
    tmp_path: Path, changed: dict[str, Any], told: str
) -> None:
    out = deployed(tmp_path)
    change(out, **changed)
    with pytest.raises(InputError, match=told):
        check_folder(out)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"num_hidden_layers": 12}, "num_hidden_layers is 12, the model model.onnx has 1"),
        ({"vocab_size": 7}, "vocab_size is 7"),
        ({"num_key_value_heads": 3}, "num_key_value_heads is 3"),
        ({"eos_token_id": None}, "eos_token_id is missing"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"max_position_embeddings": "many"}, "max_position_embeddings is missing"),
    ],
)
def test_the_checkpoint_of_another_model_is_refused(
    tmp_path: Path, changed: dict[str, Any], told: str
) -> None:
    model, checkpoint = both(tmp_path, **changed)
    assert told in refused(tmp_path, model, checkpoint).message


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_checkpoint_that_lacks_a_file_is_refused(tmp_path: Path, name: str) -> None:
    model, checkpoint = both(tmp_path)
    (checkpoint / name).unlink()
    assert name in str(refused(tmp_path, model, checkpoint))


def test_a_link_out_of_the_checkpoint_is_not_followed(tmp_path: Path) -> None:
    model, checkpoint = both(tmp_path)
    (tmp_path / "secret").write_text("{}", encoding="utf-8")
    (checkpoint / "tokenizer_config.json").unlink()
    (checkpoint / "tokenizer_config.json").symlink_to(tmp_path / "secret")
    assert "leads out" in refused(tmp_path, model, checkpoint).message


def test_a_model_without_a_cache_is_refused(tmp_path: Path) -> None:
    model = save_decoder(tmp_path / "model.onnx", cache=False)
    checkpoint = save_checkpoint(tmp_path / "checkpoint")
    found = refused(tmp_path, model, checkpoint)
    assert (found.code, found.where) == ("deploy.no_cache", str(model))


def test_an_input_that_nobody_feeds_is_refused(tmp_path: Path) -> None:
    model, checkpoint = both(tmp_path)
    proto = onnx.load(model)
    extra = onnx.helper.make_tensor_value_info("style", onnx.TensorProto.FLOAT, [1])
    proto.graph.input.append(extra)
    onnx.save(proto, model)
    assert "'style'" in refused(tmp_path, model, checkpoint).message


def test_a_folder_that_is_there_stays(tmp_path: Path) -> None:
    out = deployed(tmp_path)
    with pytest.raises(InputError, match="something in it already"):
        deploy(tmp_path / "model.onnx", out, "genai", checkpoint=tmp_path / "checkpoint")
    check_folder(out)


def test_genai_wants_a_checkpoint(tmp_path: Path) -> None:
    model = save_decoder(tmp_path / "model.onnx")
    assert "--as genai" in refused(tmp_path, model, None).remedy
