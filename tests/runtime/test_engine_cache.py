"""Where TensorRT keeps its engines: a folder for each model, in every process that opens it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from onnxq import load_recipe, pipeline
from onnxq.errors import UsageError
from onnxq.recipe import Recipe
from onnxq.runtime import engine_cache
from onnxq.runtime.engine_cache import (
    check_used,
    folder_of,
    in_use,
    of_models,
    options_of,
    restored,
)
from onnxq.runtime.provider_options import in_use as options_in_use
from onnxq.runtime.provider_options import provider_options
from onnxq.runtime.session import SessionSettings, open_session
from onnxq.runtime.worker import worker_context
from tests.pretended import pretend
from tests.small_models import normal, write

TEXT = "g (float[2, 64] x) => (float[2, 32] y) { y = MatMul(x, w) }"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path / "m.onnx", TEXT, w=normal(0, 64, 32))


def test_a_session_is_told_where_its_model_and_all_timings_are_kept(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = pretend(monkeypatch, "tensorrt")
    settings, folder = SessionSettings(provider="tensorrt"), tmp_path / "kept"
    with engine_cache.engine_cache(folder), of_models({model: "sha256:abc"}):
        open_session(model, settings)
        open_session(model.read_bytes(), settings)
        with provider_options({"tensorrt": {"trt_timing_cache_path": "/own"}}):
            open_session(model, settings)
    open_session(model, settings)
    timings = {"trt_timing_cache_enable": "1", "trt_timing_cache_path": str(folder)}
    place = Path(noted[0]["trt_engine_cache_path"])
    assert place.parent == folder
    engines = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(place)}
    assert noted == [
        timings | engines,
        timings,
        timings | engines | {"trt_timing_cache_path": "/own"},
        {},
    ]


def test_what_makes_another_engine_has_another_folder(model: Path, tmp_path: Path) -> None:
    table = tmp_path / "table"

    def place(digest: str = "sha256:a", **options: str) -> str:
        with provider_options({"tensorrt": options}), of_models({model: digest}):
            return options_of(model)["trt_engine_cache_path"]

    with engine_cache.engine_cache(tmp_path / "kept"):
        first = place()
        assert place("sha256:b") != first
        assert place(trt_fp16_enable="1") not in (first, place(trt_builder_optimization_level="1"))
        # ONNX Runtime looks at the shapes of a stored engine, and at the device, itself.
        assert place(trt_profile_min_shapes="x:1x4", device_id="1") == first
        table.write_bytes(b"one")
        calibrated = place(trt_int8_calibration_table_name=str(table))
        assert calibrated == place(trt_int8_calibration_table_name=str(table)) != first
        table.write_bytes(b"other")
        assert place(trt_int8_calibration_table_name=str(table)) != calibrated


def test_other_processes_keep_in_the_same_place(model: Path, tmp_path: Path) -> None:
    with engine_cache.engine_cache(tmp_path / "kept"), of_models({model: "sha256:abc"}):
        here, told = options_of(model), worker_context()["engine_cache"]
    assert in_use() is None
    with restored(told):
        assert options_of(model) == here
    with restored(worker_context()["engine_cache"]):
        assert in_use() is None


def test_the_users_own_folder_is_known_too(model: Path, tmp_path: Path) -> None:
    assert folder_of(model) is None
    own = {"trt_engine_cache_enable": "True", "trt_engine_cache_path": str(tmp_path)}
    with provider_options({"tensorrt": own}):
        assert folder_of(model) == tmp_path
    with provider_options({"tensorrt": {**own, "trt_engine_cache_enable": "0"}}):
        assert folder_of(model) is None


def test_a_relative_table_that_lies_here_is_that_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").touch()
    told: list[str] = []
    for name in ("here", "elsewhere"):
        with provider_options({"tensorrt": {"trt_int8_calibration_table_name": name}}):
            told += options_in_use()["TensorrtExecutionProvider"].values()
    assert told == [str(tmp_path / "here"), "elsewhere"]


def test_a_relative_folder_is_that_of_this_process() -> None:
    with provider_options({"tensorrt": {"trt_engine_cache_path": "here", "trt_fp16_enable": "1"}}):
        (found,) = options_in_use().values()
    assert found == {"trt_engine_cache_path": str(Path.cwd() / "here"), "trt_fp16_enable": "1"}


def test_the_folder_is_made_when_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a" / "b"
    with engine_cache.engine_cache(folder):
        with pytest.raises(UsageError, match="only TensorRT builds engines"):
            check_used(["cpu", "cuda"])
        check_used(["tensorrt"])  # it is not here: another provider stands in, or it is refused
        assert not folder.exists()
        pretend(monkeypatch, "tensorrt")
        check_used(["cpu", "tensorrt:1"])
    assert list(folder.iterdir()) == []
    check_used(["cpu"])


def test_a_file_is_refused(model: Path) -> None:
    for folder in (model, model / "deeper"):
        with (
            pytest.raises(UsageError, match="this is a file") as caught,
            engine_cache.engine_cache(folder),
        ):
            pass
        assert caught.value.remedy


def test_a_folder_that_cannot_be_written_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    pretend(monkeypatch, "tensorrt")
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with (
        engine_cache.engine_cache(tmp_path),
        pytest.raises(UsageError, match="cannot be written: Permission denied"),
    ):
        check_used(["tensorrt"])


def test_a_recipes_folder_yields_to_that_of_the_call_and_leaves_no_trace(
    model: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        f'version = 1\nscheme = "int8-weights"\ntarget = "tensorrt"\n'
        f'engine_cache = "{tmp_path / "recipes"}"\n'
    )
    options, out = pipeline.RunOptions(timing=None), tmp_path / "o.onnx"
    found = pipeline.quantize(model, None, out, recipe=load_recipe(recipe), options=options)
    assert (tmp_path / "recipes").is_dir()
    assert found.plan.provenance is not None
    assert "engine_cache" not in found.plan.provenance.recipe
    assert b"recipes" not in out.read_bytes()
    (tmp_path / "recipes").rmdir()
    with engine_cache.engine_cache(tmp_path / "calls"):
        pipeline.quantize(model, None, out, recipe=load_recipe(recipe), options=options)
    assert (tmp_path / "calls").is_dir()
    assert not (tmp_path / "recipes").exists()


def test_quantize_keeps_the_float_models_engine_and_says_so(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = pretend(monkeypatch, "tensorrt")
    recipe = Recipe(scheme="int8-weights", target="tensorrt", engine_cache=str(tmp_path / "kept"))
    options = pipeline.RunOptions(timing=None)
    found = pipeline.quantize(model, None, tmp_path / "o.onnx", recipe=recipe, options=options)
    places = {given.get("trt_engine_cache_path", "") for given in noted} - {""}
    (place,) = places
    assert Path(place).parent == tmp_path / "kept"
    assert any(f"float model's engine in {place}" in text for text in found.warnings)
    found = pipeline.quantize(
        model, None, tmp_path / "o.onnx", recipe=Recipe(target="tensorrt"), options=options
    )
    assert not any("engine" in text for text in found.warnings)
