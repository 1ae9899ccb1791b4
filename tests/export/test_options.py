"""Options that a source has no use for, and outputs that would replace what is read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from onnxq.errors import UsageError
from onnxq.export import ExportOptions, export
from onnxq.export.opened import open_source
from onnxq.export.quiet import quiet
from tests.cli.conftest import onnxq
from tests.export import checkpoints

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

FACTORY = "tests.export.test_options:factory"
FORM = "value=float32[batch,4]"


def factory() -> tuple[Any, Any]:
    return torch.nn.Linear(4, 3), {"input": torch.ones(2, 4)}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path | str]:
    """One of each kind."""
    folder = tmp_path_factory.mktemp("sources")
    module, example = torch.nn.Linear(4, 3).eval(), torch.ones(2, 4)
    with quiet():
        torch.jit.trace(module, example).save(folder / "script.pt")
    torch.export.save(torch.export.export(module, (example,)), folder / "program.pt2")
    return {
        "factory": FACTORY,
        "script": folder / "script.pt",
        "program": folder / "program.pt2",
        "encoder": checkpoints.write(folder / "encoder", "BertModel"),
        "decoder": checkpoints.write(folder / "decoder", "LlamaForCausalLM"),
        "speech": checkpoints.write(folder / "speech", "WhisperForConditionalGeneration"),
    }


ASKED: dict[str, dict[str, Any]] = {
    "--task": {"task": "feature-extraction"},
    "--with-past": {"cache": "with-past"},
    "--without-past": {"cache": "without-past"},
    "--allow-pickle": {"weights": "pickle"},
    "--trust-remote-code": {"code": "checkpoint"},
    "--input": {"inputs": (FORM,)},
}
TAKEN: dict[str, set[str]] = {
    "factory": set(),
    "script": {"--input"},
    "program": set(),
    "encoder": {"--task", "--allow-pickle", "--trust-remote-code"},
    "decoder": {*ASKED} - {"--input", "--task"},
    "speech": {*ASKED} - {"--input", "--task"},
}


@pytest.mark.parametrize("kind", TAKEN)
def test_an_option_is_taken_or_refused(sources: dict[str, Path | str], kind: str) -> None:
    open_source(sources[kind], ExportOptions())
    for option, asked in ASKED.items():
        # A task makes a checkpoint another one: said of it below.
        if option == "--task" and kind in {"decoder", "speech"}:
            continue
        options = ExportOptions(**asked)
        if option in TAKEN[kind]:
            open_source(sources[kind], options)
            continue
        with pytest.raises(UsageError) as caught:
            open_source(sources[kind], options)
        assert caught.value.code == "export.option"
        assert option in caught.value.message
        assert caught.value.where == str(sources[kind])
        assert "leave it out: it is for a" in caught.value.remedy


def test_a_decoder_whose_features_are_wanted_has_no_cache(sources: dict[str, Path | str]) -> None:
    options = ExportOptions(task="feature-extraction", cache="with-past")
    with pytest.raises(UsageError, match="feature-extraction"):
        open_source(sources["decoder"], options)


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("encoder", ["--input", FORM], "--input says nothing of a checkpoint folder for"),
        ("encoder", ["--with-past"], "--without-past say nothing of a checkpoint folder for"),
        ("program", ["--task", "fill-mask"], "--task says nothing of an ExportedProgram"),
        ("factory", ["--allow-pickle"], "--allow-pickle says nothing of a factory"),
        ("encoder", ["--with-preprocessing", "--post", "p.toml"], "both parts"),
    ],
)
def test_the_command_line(
    sources: dict[str, Path | str], tmp_path: Path, kind: str, options: list[str], says: str
) -> None:
    run = onnxq("export", sources[kind], *options, "-o", tmp_path / "m.onnx", "--json")
    (error,) = run.document["errors"]
    assert run.status == 2
    assert says in error["message"]
    assert error["remedy"]
    assert not list(tmp_path.iterdir())


def test_what_is_exported_is_not_written_over(
    sources: dict[str, Path | str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("script", "program", "encoder"):
        copy = shutil.copytree if kind == "encoder" else shutil.copy
        copy(sources[kind], tmp_path / kind)
    (tmp_path / "symbolic").symlink_to(tmp_path / "script")
    (tmp_path / "hard").hardlink_to(tmp_path / "program")
    (tmp_path / "folder").symlink_to(tmp_path / "encoder")
    (tmp_path / "own_module.py").write_text(Path(__file__).read_text("utf-8"), "utf-8")
    monkeypatch.chdir(tmp_path)
    form = ExportOptions(inputs=("input=float32[batch,4]",))
    cases = [
        ("script", "script", form),
        ("script", "symbolic", form),
        ("symbolic", "script", form),
        ("program", "hard", ExportOptions()),
        ("encoder", "encoder/model.safetensors", ExportOptions()),
        ("encoder", "folder/config.json", ExportOptions()),
        ("own_module:factory", "own_module.py", ExportOptions()),
    ]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for source, output, options in cases:
        with pytest.raises(UsageError) as caught:
            export(source, output, options=options)
        assert caught.value.code == "usage.replaces_model", (source, output)
        assert caught.value.remedy
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_model_in_the_checkpoints_folder_is_replaced(
    sources: dict[str, Path | str], tmp_path: Path
) -> None:
    folder = shutil.copytree(sources["encoder"], tmp_path / "encoder")
    (folder / "model.onnx").write_bytes(b"of an earlier run")
    open_source(folder, ExportOptions()).check_output(folder / "model.onnx")


@pytest.mark.slow
def test_a_folder_is_written_into_an_empty_one_or_not_at_all(
    sources: dict[str, Path | str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/kept").write_text("kept")
    (tmp_path / "file").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    for name in ("full", "file", "link", "no/out"):
        run = onnxq("export", sources["speech"], "-o", tmp_path / name, "--json")
        (error,) = run.document["errors"]
        assert (run.status, error["code"]) == (
            (2, "usage.no_folder") if "/" in name else (2, "usage.exists")
        )
        assert error["remedy"]
    assert (tmp_path / "full/kept").read_text() == (tmp_path / "file").read_text() == "kept"

    # The second of the two files fails: the first is not left there.
    def failing(*_: object, **__: object) -> None:
        msg = "no space left"
        raise OSError(28, msg)

    names = sorted(path.name for path in tmp_path.iterdir())
    from onnxq.export import torch_exporter

    monkeypatch.setattr(torch_exporter, "verify", failing)
    assert onnxq("export", sources["speech"], "-o", tmp_path / "empty").status == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert not list((tmp_path / "empty").iterdir())
    monkeypatch.undo()
    result = export(sources["speech"], tmp_path / "empty")
    assert sorted(path.name for path in result.path.iterdir()) == ["decoder.onnx", "encoder.onnx"]
