"""A checkpoint is loaded from its own folder alone: whatever it names, nothing else is touched."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from onnxq.errors import OnnxqError, UsageError
from onnxq.export import ExportOptions, export
from onnxq.export.checkpoint import open_checkpoint
from onnxq.export.huggingface import load_model
from onnxq.export.isolated import isolated
from onnxq.export.tasks import task_of
from tests.export import checkpoints

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnxq.export.options import Code, Weights

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

EVIL = """
from pathlib import Path
from transformers import BertModel
Path({canary!r}).touch()
class Evil(BertModel):
    pass
"""


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.write(tmp_path_factory.mktemp("bert") / "checkpoint", "BertModel")


@pytest.fixture
def folder(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint with code beside it, and another one outside, which is in the way."""
    made: Path = shutil.copytree(bert, tmp_path / "checkpoint")
    text = EVIL.format(canary=str(tmp_path / "canary"))
    (made / "modeling_evil.py").write_text(text)
    (made / "custom_generate").mkdir()
    (made / "custom_generate/generate.py").write_text(text)
    outside = shutil.copytree(bert, tmp_path / "outside")
    (outside / "modeling_evil.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    return made


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[list[str]]:
    """What is opened, or looked up on the network, outside of the checkpoint from now on."""
    seen: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if not watching:
            return
        if event == "open" and str(arguments[0]).startswith(str(tmp_path / "outside")):
            seen.append(f"open {arguments[0]}")
        if event in {"socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system"}:
            seen.append(f"{event} {arguments[1:2]}")

    watching = True
    sys.addaudithook(watch)
    yield seen
    watching = False


def change(folder: Path, **entries: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **entries}))


def loaded(folder: Path, weights: Weights = "safetensors", code: Code = "installed") -> Any:
    checkpoint = open_checkpoint(folder, weights=weights, code=code)
    options = ExportOptions(weights=weights, code=code)
    return load_model(checkpoint, task_of(checkpoint, ""), options)


def check_same(one: Any, other: Any) -> None:
    right = dict(other.named_parameters())
    assert len(right) > 10
    for name, value in one.named_parameters():
        assert torch.equal(value, right[name]), name


def deep(entry: dict[str, Any]) -> dict[str, Any]:
    return {"text_config": {"parts": [{"model_type": "bert", **entry}]}}


EVIL_MAP = {"AutoModel": "modeling_evil.Evil", "AutoConfig": "modeling_evil.Evil"}
PLANTED: dict[str, tuple[dict[str, Any], str]] = {
    "code": ({"auto_map": EVIL_MAP}, "export.remote_code"),
    "code of a part": (deep({"auto_map": EVIL_MAP}), "export.remote_code"),
    "code elsewhere": (
        {"auto_map": {"AutoModel": "../outside--modeling_evil.Evil"}}, "export.remote_code"),
    "quantized": ({"quantization_config": {"quant_method": "gptq"}}, "export.quantized"),
    "a part quantized": (deep({"quantization_config": {"bits": 4}}), "export.quantized"),
    "compressed": ({"compression_config": {"format": "x"}}, "export.quantized"),
    "other weights": ({"transformers_weights": "../outside/model.safetensors"},
        "export.other_weights"),
    "other configuration": ({"configuration_files": ["config.4.0.0.json"]}, "export.other_config"),
    "backbone folder": (
        {"backbone": "{}/outside", "use_timm_backbone": False}, "export.other_model"),
    "backbone above": ({"backbone": "../outside"}, "export.other_model"),
    "backbone here": ({"backbone": "outside", "use_timm_backbone": False}, "export.other_model"),
    "backbone of the hub": ({"backbone": "microsoft/resnet-50"}, "export.other_model"),
    "backbone of a part": (deep({"backbone": "hf-hub:a/b"}), "export.other_model"),
    "backbone that is none": ({"backbone": ["a"]}, "export.other_model"),
    "timm folder": (
        {"model_type": "timm_wrapper", "architecture": "local-dir:{}/outside"},
        "export.other_model"),
    "timm of the hub": (
        {"model_type": "timm_wrapper", "architecture": "hf-hub:a/b"}, "export.other_model"),
    "timm checkpoint": (
        {"model_type": "timm_wrapper", "architecture": "resnet18",
         "model_args": {"checkpoint_path": "{}/outside/model.safetensors"}}, "export.other_model"),
    "backbone checkpoint": (
        deep({"backbone_kwargs": {"pretrained_cfg": {"file": "{}/outside/x"}}}),
        "export.other_model"),
    "nested": ({"a": json.loads("[" * 99 + "]" * 99)}, "export.no_config"),
}  # fmt: skip


@pytest.mark.parametrize("case", PLANTED)
def test_what_a_configuration_names_is_refused(
    folder: Path, tmp_path: Path, opened: list[str], case: str
) -> None:
    entries, code = PLANTED[case]
    change(folder, **json.loads(json.dumps(entries).replace("{}", str(tmp_path))))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError) as caught:
        export(folder, tmp_path / "m.onnx")
    assert caught.value.code == code
    assert caught.value.where == str(folder / "config.json")
    assert caught.value.remedy
    assert len(str(caught.value).splitlines()) == 2
    assert sorted(tmp_path.rglob("*")) == before
    assert opened == []


def test_what_is_only_said_is_not_looked_at(
    folder: Path, tmp_path: Path, opened: list[str]
) -> None:
    """Where a checkpoint came from, and names that nothing is loaded by."""
    plain = loaded(folder)
    outside = str(tmp_path / "outside")
    change(
        folder,
        _name_or_path=outside,
        name_or_path=outside,
        base_model_name_or_path=outside,
        tokenizer_class="modeling_evil.Evil",
        attn_implementation="evil/kernels",
        _attn_implementation="evil/kernels",
        use_pretrained_backbone=True,
        backbone=None,
        quantization_config=None,
        auto_map=None,
    )
    (folder / "shard-00001-model-00001-of-00001.safetensors").write_bytes(b"none")
    (folder / "config.4.0.0.json").write_text('{"model_type": "llama"}')
    (folder / "generation_config.json").write_text('{"_from_model_config": 3')
    made = loaded(folder)
    check_same(made, plain)
    assert "outside" not in made.config.name_or_path
    assert not (tmp_path / "canary").exists()
    assert opened == []


def test_no_names_of_private_folders_are_told(folder: Path, tmp_path: Path) -> None:
    change(folder, hidden_size="many")
    with pytest.raises(OnnxqError) as caught:
        export(folder, tmp_path / "m.onnx")
    assert caught.value.code == "export.cannot_load"
    assert caught.value.where == str(folder)
    assert "onnxq-scratch" not in str(caught.value)


def test_transformers_sees_what_was_checked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = open_checkpoint(folder, weights="safetensors", code="installed")
    with isolated(checkpoint) as seen:
        assert sorted(path.name for path in seen.iterdir()) == ["config.json", "model.safetensors"]
        assert (seen / "model.safetensors").samefile(folder / "model.safetensors")
    assert not seen.exists()
    assert (folder / "model.safetensors").exists()

    def refuse(*_: object) -> None:
        raise OSError(1, "no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with isolated(checkpoint) as seen:
        content = (seen / "model.safetensors").read_bytes()
        assert content == (folder / "model.safetensors").read_bytes()


def test_shards_and_their_index(bert: Path, tmp_path: Path) -> None:
    model = loaded(bert)
    model.save_pretrained(tmp_path / "shards", max_shard_size="20kB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    check_same(loaded(tmp_path / "shards"), model)


def test_tensors_alone_from_a_pickle(folder: Path) -> None:
    model = loaded(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    check_same(loaded(folder, weights="pickle"), model)


def test_the_network_is_off_although_the_hub_was_imported_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    seen: list[bool] = []

    def note(*_: object, **__: object) -> None:
        seen.append(constants.is_offline_mode())
        msg = "enough"
        raise ValueError(msg)

    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", note)
    with pytest.raises(UsageError, match="enough"):
        loaded(folder)
    assert seen == [True]
    assert constants.HF_HUB_OFFLINE is False


def test_code_that_is_trusted_is_executed(folder: Path, tmp_path: Path) -> None:
    change(folder, auto_map={"AutoModel": "modeling_evil.Evil"})
    assert type(loaded(folder, code="checkpoint")).__name__ == "Evil"
    assert (tmp_path / "canary").exists()
