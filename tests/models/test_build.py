"""The builder: what it lists, when it builds again, how it fails; then the real builds."""

from __future__ import annotations

import hashlib
import importlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from models import build as builder
from models.packages import MissingPackageError, package_file, package_version
from models.source import ModelSource, Origin, write_samples

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["efficientnet_lite0", "fashion_resnet", "magika", "minilm", "ppocr_v6", "smollm2"]


@pytest.fixture
def source(tmp_path: Path) -> ModelSource:
    read = tmp_path / "read.txt"
    read.write_text("one")

    def write(folder: Path) -> None:
        (folder / "model.onnx").write_bytes(read.read_bytes())
        write_samples(folder / "calibration", [{"x": np.zeros((1, 2), np.float32)}] * 2)

    return ModelSource(
        name="fashion_resnet",
        origins=(Origin("numpy", "BSD-3-Clause", "nothing"),),
        tools=("pytest",),
        reads=lambda: (read,),
        write=write,
    )


def test_all_models_are_found_and_described() -> None:
    assert builder.names() == NAMES
    for name in NAMES:
        folder = builder.MODELS / name
        readme = (folder / "README.md").read_text("utf-8")
        assert readme.startswith(f"# {name}: ")
        for row in ("| source |", "| licence |", "| task, metric |"):
            assert row in readme
        assert (folder / "recipe.toml").read_text() == 'version = 1\nscheme = "int8"\n'


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert builder.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == NAMES


@pytest.mark.parametrize("arguments", [[], ["no_such_model"]])
def test_unknown_names_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        builder.main(arguments)
    assert caught.value.code == 2
    assert "minilm" in capsys.readouterr().err


def test_builds_once_and_again_when_something_changed(tmp_path: Path, source: ModelSource) -> None:
    cache = tmp_path / "cache"
    folder, built = builder.build(source, cache=cache)
    assert built
    assert folder == cache / "fashion_resnet"
    assert sorted(p.name for p in (folder / "calibration").iterdir()) == ["0000.npz", "0001.npz"]
    assert not builder.build(source, cache=cache)[1]
    assert builder.build(source, cache=cache, force=True)[1]

    (source.reads()[0]).write_text("two")
    assert builder.build(source, cache=cache)[1]
    assert (folder / "model.onnx").read_text() == "two"

    (folder / "calibration" / "0001.npz").unlink()
    assert builder.build(source, cache=cache)[1]
    (folder / "SOURCE.json").write_text("{")
    assert builder.build(source, cache=cache)[1]
    assert [p.name for p in cache.iterdir()] == ["fashion_resnet"]


def test_source_file_says_what_was_read_and_written(tmp_path: Path, source: ModelSource) -> None:
    folder, _ = builder.build(source, cache=tmp_path / "cache")
    said: dict[str, Any] = json.loads((folder / "SOURCE.json").read_text("utf-8"))
    assert said["origins"] == [
        {
            "package": "numpy",
            "version": np.__version__,
            "licence": "BSD-3-Clause",
            "what": "nothing",
        }
    ]
    assert set(said["tools"]) == {"pytest"}
    digest = hashlib.sha256(b"one").hexdigest()
    assert list(said["read"].values()) == [{"sha256": digest, "bytes": 3}]
    assert said["written"]["model.onnx"] == {"sha256": digest, "bytes": 3}
    assert set(said["written"]) == {"model.onnx", "calibration/0000.npz", "calibration/0001.npz"}


def test_a_failed_build_leaves_the_earlier_one(tmp_path: Path, source: ModelSource) -> None:
    cache = tmp_path / "cache"
    folder, _ = builder.build(source, cache=cache)
    source.reads()[0].unlink()
    source_without_reads = ModelSource(
        source.name, source.origins, source.tools, lambda: (), source.write
    )
    with pytest.raises(FileNotFoundError):
        builder.build(source_without_reads, cache=cache)
    assert (folder / "model.onnx").read_text() == "one"
    assert [p.name for p in cache.iterdir()] == ["fashion_resnet"]


def test_missing_package_says_pip_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MissingPackageError, match="pip install no-such-package-here"):
        package_version("no-such-package-here")
    with pytest.raises(MissingPackageError, match="absent/file"):
        package_file("numpy", "absent/file")

    def missing(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    def import_module(name: str) -> None:
        missing("efficientnet_lite_pytorch.model")

    monkeypatch.setattr(importlib, "import_module", import_module)
    assert builder.main(["efficientnet_lite0"]) == 2
    said = capsys.readouterr().err
    assert "pip install efficientnet-lite-pytorch" in said
    assert len(said.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("name", "calibration", "evaluation", "metric"),
    [
        ("fashion_resnet", 256, 10_000, "top-1 accuracy 0.91"),
        ("minilm", 128, 64, "Pearson with Lee's judgements 0.65"),
        ("efficientnet_lite0", 128, 320, "top-1 accuracy 0.88"),
        ("magika", 100, 100, "top-1 accuracy 0.8"),
        ("ppocr_v6", 128, 128, "lines read without an error 0.9"),
        ("smollm2", 64, 32, "perplexity 31."),
    ],
)
def test_real_builds(name: str, calibration: int, evaluation: int, metric: str) -> None:
    from models.score import score

    try:
        folder, _ = builder.build(builder.find(name))
    except MissingPackageError as error:
        pytest.skip(f"{name} {error}")
    assert count(folder, "calibration") >= calibration
    assert count(folder, "evaluation") >= evaluation
    said = json.loads((folder / "SOURCE.json").read_text("utf-8"))
    assert said["origins"]
    assert all(origin["licence"] for origin in said["origins"])
    assert str(score(name)[0]).startswith(metric)


def count(folder: Path, part: str) -> int:
    rows = folder / f"{part}.npy"
    if rows.is_file():
        return len(np.load(rows, mmap_mode="r"))
    return len(list((folder / part).glob("*.npz")))
